"""Features made of a seed, for comparisons with other implementations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Real images, synthetic images, features: more images than features, and fewer.
CASES = {"many": (400, 300, 64), "few": (90, 90, 256)}


def pair(case: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlated features of two sets that differ in mean and in spread."""
    n, m, d = CASES[case]
    random = np.random.default_rng(len(case))
    mixing = random.normal(0, 1 / np.sqrt(d), (d, d))
    real = np.abs(random.normal(0, 1, (n, d)) @ mixing)
    synthetic = np.abs(random.normal(0.2, 0.9, (m, d)) @ mixing)
    return real, synthetic


def logits() -> NDArray[np.float64]:
    """float64 [200, 30]."""
    return np.random.default_rng(3).normal(0, 2, (200, 30))


def gaussian(
    random: np.random.Generator, n: int, mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Independent normal features [n, d]."""
    return mean + deviation * random.normal(0, 1, (n, len(mean)))
