"""Drawing samples side by side, whatever their pixels are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["panels", "sheet", "tile"]

OUTLINE = (255, 80, 60)  # RGB of a mask's outline
GAP = 2  # pixels between tiles


def panels(pixels: NDArray[Any], outlined: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """An image as RGB [H, W', 3]; unless there are 3 channels, they lie side by side in grey.

    Of a volume the middle slices lie side by side: axial, coronal, sagittal.

    Args:
        pixels: [H, W, C] or [X, Y, Z, C]; uint8, uint16, or float32 of which 0 … 1 is shown.
        outlined: a mask, without the channel, whose outline is drawn.
    """
    if pixels.ndim == 4:
        return tile(
            [
                panels(_middle(pixels, axis), None if outlined is None else _middle(outlined, axis))
                for axis in (2, 1, 0)
            ]
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        pixels = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    count = pixels.shape[2]
    parts = [pixels] if count == 3 else [pixels[:, :, [k] * 3] for k in range(count)]
    if outlined is not None and outlined.shape == pixels.shape[:2]:
        edge = _outline(outlined)
        parts = [part.copy() for part in parts]
        for part in parts:
            part[edge] = OUTLINE
    return np.concatenate(parts, 1)


def tile(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Panels side by side, at the top of the highest one's height."""
    height = max(part.shape[0] for part in parts)
    return np.concatenate(
        [np.pad(part, ((0, height - part.shape[0]), (0, 0), (0, 0))) for part in parts], 1
    )


def sheet(tiles: Sequence[NDArray[np.uint8]], across: int) -> Image:
    """Tiles of one size in rows of `across`."""
    from PIL import Image

    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // across)
    picture = Image.new("RGB", (across * (width + GAP) - GAP, rows * (height + GAP) - GAP))
    for i, pixels in enumerate(tiles):
        place = (i % across * (width + GAP), i // across * (height + GAP))
        picture.paste(Image.fromarray(pixels), place)
    return picture


def _middle(volume: NDArray[Any], axis: int) -> NDArray[Any]:
    """A slice of a volume [X, Y, Z, …], lying as DICOM shows it: right or front at the left."""
    plane: NDArray[Any] = volume.take(volume.shape[axis] // 2, axis)
    return plane[::-1, ::-1].swapaxes(0, 1)


def _outline(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels outside of the mask that touch it, so that thin structures stay visible."""
    inside = np.pad(mask > 0, 1)
    around = inside[:-2, 1:-1] | inside[2:, 1:-1] | inside[1:-1, :-2] | inside[1:-1, 2:]
    edge: NDArray[np.bool_] = around & ~inside[1:-1, 1:-1]
    return edge
