"""What nearest neighbours tell: precision, recall, density, coverage, and the closest pairs.

Distances are computed block by block, so that 10,000 × 10,000 of them need no memory of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.evaluation._frechet import Floats, check_sets

__all__ = ["NEIGHBOURS", "Manifold", "nearest", "prdc"]

NEIGHBOURS = 5
BLOCK = 1 << 22  # distances that are in memory at once


@dataclass(frozen=True)
class Manifold:
    """How two sets cover each other.

    Attributes:
        precision: share of the synthetic images that lie in the ball of a real one.
        recall: share of the real images that lie in the ball of a synthetic one.
        density: real balls that a synthetic image lies in, of as many as were expected; may be
            above 1.
        coverage: share of the real images whose ball has a synthetic one in it.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: NDArray[Any], synthetic: NDArray[Any], k: int = NEIGHBOURS) -> Manifold:
    """Precision and recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797).

    The ball of an image reaches to its k-th nearest neighbour of the same set.

    Args:
        real, synthetic: features [n, d] and [m, d].
        k: neighbours; the papers take 3 and 5.

    Raises:
        InvalidInput: not more than `k` rows, or another number of features.
    """
    check_sets(real, synthetic, least=k + 1)
    real_balls, synthetic_balls = _radii(real, k), _radii(synthetic, k)
    inside = np.zeros(len(synthetic), np.int64)
    recalled = covered = 0
    for rows, distances in _blocks(real, synthetic):
        balls = real_balls[rows, None]
        inside += (distances < balls).sum(0)
        recalled += int((distances < synthetic_balls).any(1).sum())
        covered += int((distances.min(1) < real_balls[rows]).sum())
    return Manifold(
        precision=float((inside > 0).mean()),
        recall=recalled / len(real),
        density=float(inside.mean()) / k,
        coverage=covered / len(real),
    )


def nearest(points: NDArray[Any], among: NDArray[Any]) -> tuple[NDArray[np.int64], Floats]:
    """Of each point the nearest one among others: its index, int64 [n], and the distance, [n]."""
    index, distance = np.empty(len(points), np.int64), np.empty(len(points))
    for rows, distances in _blocks(points, among):
        index[rows] = distances.argmin(1)
        distance[rows] = np.sqrt(distances.min(1))
    return index, distance


def _radii(points: NDArray[Any], k: int) -> Floats:
    """The squared distance of each point to its k-th neighbour."""
    radii = np.empty(len(points))
    for rows, distances in _blocks(points, points):
        here = np.arange(rows.start, rows.stop)
        distances[here - rows.start, here] = np.inf  # no point is its own neighbour
        radii[rows] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii


def _blocks(points: NDArray[Any], among: NDArray[Any]) -> Iterator[tuple[slice, Floats]]:
    """Squared distances of a run of points to all others."""
    # Near the origin the products lose less of the small differences that are looked for.
    centre = np.asarray(among, np.float64).mean(0)
    x, y = np.asarray(points, np.float64) - centre, np.asarray(among, np.float64) - centre
    squares = (y * y).sum(1)
    size = max(1, BLOCK // len(y))
    for start in range(0, len(x), size):
        block = x[start : start + size]
        distances = (block * block).sum(1)[:, None] + squares - 2 * (block @ y.T)
        yield slice(start, start + len(block)), distances.clip(0)
