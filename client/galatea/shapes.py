"""Seeded mask shapes, for models that turn a mask into a lesion.

Such models (medigan's 00004, pix2pix of breast masses) come with a maker of their conditioning:
closed Bézier curves, "oval" or "lobulated", optionally filled with texture from inside and outside
of a lesion in 32 × 32 patches. This is a maker of the same kind. The same seed gives the same mask
on every platform.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from galatea._draws import fractions
from galatea.errors import InvalidInput
from galatea.pictures import Picture

__all__ = ["KINDS", "PATCH", "Kind", "masks", "pictures", "textured"]

Kind = Literal["oval", "lobulated"]
KINDS: tuple[Kind, ...] = ("oval", "lobulated")

PATCH = 32  # pixels of a side of a texture patch
SMALLEST = 16  # pixels of a side of a mask
STEPS = 16  # straight pieces of each Bézier segment
# The number of equal parts around the centre, and (place, distance) of the points of each part.
PATTERN: dict[Kind, tuple[int, list[tuple[float, float]]]] = {
    "oval": (8, [(0.0, 1.0)]),
    "lobulated": (3, [(0.0, 0.76), (0.2, 0.96), (0.5, 1.1), (0.8, 0.96)]),
}
UNIT = 256  # corners lie on this part of a pixel, so that every platform rounds alike


def masks(
    n: int, size: int | tuple[int, int], kind: Kind = "oval", seed: int = 0
) -> NDArray[np.uint8]:
    """`n` masks, the first of `seed`, the next of ``seed + 1``, …

    Args:
        n: number of masks.
        size: height and width in pixels, or one number for both.
        kind: "oval" has a smooth outline, "lobulated" three to five lobes.
        seed: any whole number.

    Returns:
        uint8 [n, H, W], 255 inside and 0 outside; each one a single piece away from the border.

    Raises:
        InvalidInput: `n`, `size` or `kind` is none.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if kind not in KINDS:
        raise InvalidInput(f"no shape {kind!r}", f"choose one of: {', '.join(KINDS)}")
    if n < 1 or min(height, width) < SMALLEST:
        raise InvalidInput(
            f"{n} masks of {height} × {width} pixels",
            f"give at least 1 mask of at least {SMALLEST} × {SMALLEST}",
        )
    return np.stack([_filled(_outline(kind, height, width, seed + i), height, width)
                     for i in range(n)])  # fmt: skip


def textured(
    mask: NDArray[np.uint8], inside: Picture, outside: Picture, seed: int = 0
) -> NDArray[np.uint8]:
    """A canvas of patches of a lesion where the mask is, and of its surroundings elsewhere.

    Args:
        mask: uint8 [H, W], 255 inside.
        inside: a picture of the inside of a lesion, at least 32 × 32 pixels.
        outside: one of its surroundings.
        seed: decides where each patch is cut.

    Returns:
        8-bit levels, uint8 [H, W].

    Raises:
        InvalidInput: a picture is smaller than a patch.
    """
    lesion = _tiled(inside, mask.shape, fractions(seed, "texture inside"))
    surroundings = _tiled(outside, mask.shape, fractions(seed, "texture outside"))
    return np.where(mask > 0, lesion, surroundings)


def pictures(
    n: int,
    size: int | tuple[int, int],
    kind: Kind = "oval",
    seed: int = 0,
    texture: tuple[Picture, Picture] | None = None,
) -> Iterator[Picture]:
    """The masks as pictures to translate, one at a time, named ``<kind>-<seed>``.

    Args:
        texture: pictures of the inside and the outside of a lesion; see :func:`textured`.

    Raises:
        InvalidInput: as :func:`masks` and :func:`textured`.
    """
    for i in range(max(n, 1)):
        mask = masks(min(n, 1), size, kind, seed + i)[0]
        pixels = textured(mask, *texture, seed + i) if texture else mask
        yield Picture(f"{kind}-{seed + i:012d}", pixels, mask=mask)


def _outline(kind: Kind, height: int, width: int, seed: int) -> list[tuple[int, int]]:
    """Corners (x, y) of the shape in parts of a pixel.

    A closed Catmull-Rom spline through points around an ellipse, as cubic Bézier curves, with
    jittered angles and radii. Each lobe of a lobulated shape is three points between two notches.
    """
    draw = fractions(seed, kind)
    reach = 0.5 * min(height, width)
    axes = [reach * (0.35 + 0.25 * next(draw)) for _ in range(2)]
    turn = 2 * math.pi * next(draw)
    free = [max(0.0, side - 2.6 * max(axes)) for side in (width, height)]
    middle = [
        side / 2 + (next(draw) - 0.5) * room
        for side, room in zip((width, height), free, strict=True)
    ]
    parts, pattern = PATTERN[kind]
    parts += int(3 * next(draw)) * (kind == "lobulated")
    points = []
    for part in range(parts):
        for place, distance in pattern:
            angle = 2 * math.pi * (part + place + 0.12 * (next(draw) - 0.5)) / parts
            radius = distance + 0.1 * (next(draw) - 0.5)
            x, y = axes[0] * radius * math.cos(angle), axes[1] * radius * math.sin(angle)
            points.append(
                (
                    middle[0] + x * math.cos(turn) - y * math.sin(turn),
                    middle[1] + x * math.sin(turn) + y * math.cos(turn),
                )
            )
    return [corner for k in range(len(points)) for corner in _segment(points, k)]


def _segment(points: Sequence[tuple[float, float]], k: int) -> Iterator[tuple[int, int]]:
    """The Bézier curve from point `k` to the next, without its end."""
    before, start, end, after = (points[(k + j) % len(points)] for j in (-1, 0, 1, 2))
    for step in range(STEPS):
        t = step / STEPS
        x, y = (
            (1 - t) ** 3 * start[axis]
            + 3 * (1 - t) ** 2 * t * (start[axis] + (end[axis] - before[axis]) / 6)
            + 3 * (1 - t) * t**2 * (end[axis] - (after[axis] - start[axis]) / 6)
            + t**3 * end[axis]
            for axis in (0, 1)
        )
        yield round(x * UNIT), round(y * UNIT)


def _filled(corners: list[tuple[int, int]], height: int, width: int) -> NDArray[np.uint8]:
    """Pixels whose centres are inside, in whole numbers; by the even-odd rule."""
    inside = np.zeros((height, width), np.bool_)
    columns = np.arange(width) * UNIT + UNIT // 2
    for pair in zip(corners, [*corners[1:], corners[0]], strict=True):
        (x1, y1), (x2, y2) = sorted(pair, key=lambda corner: corner[1])
        first, last = (-((UNIT // 2 - y) // UNIT) for y in (y1, y2))
        rows = np.arange(max(first, 0), min(last, height))
        beyond = (rows * UNIT + UNIT // 2 - y1) * (x2 - x1)
        inside[rows] ^= (columns - x1) * (y2 - y1) > beyond[:, None]
    return np.where(inside, np.uint8(255), np.uint8(0))


def _tiled(picture: Picture, shape: tuple[int, ...], draw: Iterator[float]) -> NDArray[np.uint8]:
    levels = picture.to_levels()
    grey = levels if levels.ndim == 2 else levels.mean(2).round().astype(np.uint8)
    if min(grey.shape) < PATCH:
        raise InvalidInput(
            f"{picture.name}: {grey.shape[0]} × {grey.shape[1]} pixels are too few for a texture",
            f"give a picture of at least {PATCH} × {PATCH}",
        )
    height, width = (-(-side // PATCH) * PATCH for side in shape)
    canvas = np.zeros((height, width), np.uint8)
    for top in range(0, height, PATCH):
        for left in range(0, width, PATCH):
            y, x = (int(next(draw) * (side - PATCH + 1)) for side in grey.shape)
            canvas[top : top + PATCH, left : left + PATCH] = grey[y : y + PATCH, x : x + PATCH]
    return canvas[: shape[0], : shape[1]]
