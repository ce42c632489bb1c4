"""Parts of what there is, drawn without replacement: the error of a figure, and its floor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Statistic", "floor", "half_sample_errors"]

Statistic = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]


def half_sample_errors(
    statistic: Statistic,
    real: NDArray[Any],
    synthetic: NDArray[Any],
    repeats: int,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Standard errors of figures: how much they differ between halves of both sets.

    A half drawn without replacement has half as much to say and shares half of it with the next
    one; the two cancel, so that the spread at n / 2 is the error at n. Copies, as the bootstrap
    draws them, would change the distance itself.

    Args:
        statistic: of real and synthetic features, [figures].
        repeats: halves that are drawn.
    """
    drawn = [
        statistic(*(_part(points, len(points) // 2, random) for points in (real, synthetic)))
        for _ in range(repeats)
    ]
    errors: NDArray[np.float64] = np.std(drawn, axis=0, ddof=1)
    return errors


def floor(
    statistic: Statistic,
    real: NDArray[Any],
    synthetic: NDArray[Any],
    splits: int,
    random: np.random.Generator,
) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """What figures come to where nothing differs: real against real, at an n for both.

    Args:
        statistic: of real and synthetic features, [figures].
        splits: of the real images into two halves; the mean over them is returned.

    Returns:
        (n, real against real, real against synthetic at that same n).
    """
    n = min(len(real) // 2, len(synthetic))
    alike, apart = [], []
    for _ in range(splits):
        order = random.permutation(len(real))
        first, second = real[order[:n]], real[order[n : 2 * n]]
        alike.append(statistic(first, second))
        apart.append(statistic(first, _part(synthetic, n, random)))
    return n, np.mean(alike, axis=0), np.mean(apart, axis=0)


def _part(points: NDArray[Any], n: int, random: np.random.Generator) -> NDArray[Any]:
    chosen: NDArray[Any] = points[random.permutation(len(points))[:n]]
    return chosen
