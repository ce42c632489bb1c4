"""Ways from one vector to the next."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from galatea.errors import InvalidInput

Floats = NDArray[np.float32]

IN_LINE = 1e-4  # sine of the angle below which two vectors count as being in line


def slerp(a: Floats, b: Floats, t: NDArray[np.float64]) -> Floats:
    """Spherical interpolation (Shoemake 1985), along the shorter arc.

    Normal vectors of many dimensions lie close to a sphere; a straight line leads through its
    inside, where the generator has not been trained (White 2016, arXiv:1609.04468). Vectors in line
    have no arc, or no single one, and are joined by a straight line.

    Args:
        a, b: [n, d].
        t: [n], the share of the way from `a` to `b`.

    Returns:
        [n, d]; exactly `a` where t is 0, and `b` where it is 1.
    """
    start, end = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(start, axis=1) * np.linalg.norm(end, axis=1)
    cosine = (start * end).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    angle = np.arccos(cosine.clip(-1, 1))
    sine = np.sin(angle)
    curved = sine > IN_LINE
    divisor = np.where(curved, sine, 1)
    of_start = np.where(curved, np.sin((1 - t) * angle) / divisor, 1 - t)
    of_end = np.where(curved, np.sin(t * angle) / divisor, t)
    return (of_start[:, None] * start + of_end[:, None] * end).astype(np.float32)


def lerp(a: Floats, b: Floats, t: NDArray[np.float64]) -> Floats:
    """Linear interpolation of [n, …]; exactly `a` where t is 0, and `b` where it is 1."""
    share = t.reshape(-1, *[1] * (a.ndim - 1))
    return ((1 - share) * a + share * b).astype(np.float32)


def positions(
    keys: int, frames: int, *, closed: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Where evenly spaced frames of a walk over `keys` points lie.

    Args:
        closed: the walk leads back to the first point, which is not repeated at its end.

    Returns:
        For each frame the point before it, the point behind it, and the share of the way between
        them; [frames] each.

    Raises:
        InvalidInput: fewer than two points or frames.
    """
    if keys < 2:
        raise InvalidInput(f"{keys} latent is no walk", "give at least 2 seeds")
    if not isinstance(frames, Integral) or frames < 2:
        raise InvalidInput(f"frames is {frames!r}", "give a whole number of at least 2")
    spans, parts = (keys, frames) if closed else (keys - 1, frames - 1)
    before, rest = np.divmod(np.arange(frames) * spans, parts)
    return before, (before + 1) % keys, rest / parts
