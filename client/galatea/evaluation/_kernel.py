"""The kernel distance (KID): unbiased at every n, with an error that can be computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.evaluation._frechet import Floats, check_sets

__all__ = ["KernelDistance", "kernel_distance"]

DEGREE = 3
BLOCK = 1 << 22  # values of the kernel that are in memory at once


@dataclass(frozen=True)
class KernelDistance:
    """The squared maximum mean discrepancy, which may be below 0, and its standard error."""

    value: float
    error: float


def kernel_distance(first: NDArray[Any], second: NDArray[Any]) -> KernelDistance:
    """The kernel inception distance of Bińkowski et al. 2018 (arXiv:1801.01401) over all pairs.

    The kernel is (x·y / d + 1)³ and the estimate the U-statistic. Its error is that of the
    jackknife, which leaves out one image at a time: the usual spread over overlapping subsets is
    no error of the value.

    Args:
        first, second: features [n, d] and [m, d].

    Raises:
        InvalidInput: fewer than three rows, or another number of features.
    """
    check_sets(first, second, least=3)
    x, y = (np.asarray(features, np.float64) for features in (first, second))
    n, m = len(x), len(y)
    x_rows, _ = _sums(x, x)
    y_rows, _ = _sums(y, y)
    across, down = _sums(x, y)
    x_rows -= _kernel((x * x).sum(1), x.shape[1])  # no image is compared with itself
    y_rows -= _kernel((y * y).sum(1), y.shape[1])
    x_sum, y_sum, both = x_rows.sum(), y_rows.sum(), across.sum()
    x_part, y_part = x_sum / (n * (n - 1)), y_sum / (m * (m - 1))
    without_x = (
        (x_sum - 2 * x_rows) / ((n - 1) * (n - 2)) + y_part - 2 * (both - across) / ((n - 1) * m)
    )
    without_y = (
        x_part + (y_sum - 2 * y_rows) / ((m - 1) * (m - 2)) - 2 * (both - down) / (n * (m - 1))
    )
    variance = sum(
        (len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum()
        for left in (without_x, without_y)
    )
    return KernelDistance(float(x_part + y_part - 2 * both / (n * m)), float(np.sqrt(variance)))


def _sums(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Sums of the kernel of every pair over y, [n], and over x, [m]."""
    rows, columns = np.empty(len(x)), np.zeros(len(y))
    size = max(1, BLOCK // len(y))
    for start in range(0, len(x), size):
        block = _kernel(x[start : start + size] @ y.T, x.shape[1])
        rows[start : start + size] = block.sum(1)
        columns += block.sum(0)
    return rows, columns


def _kernel(products: Floats, features: int) -> Floats:
    """The kernel of pairs, from their inner products."""
    values: Floats = (products / features + 1) ** DEGREE
    return values
