"""When requests of an open loop arrive."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import numpy as np

__all__ = ["Arrivals", "gaps"]

Arrivals = Literal["poisson", "constant"]
BLOCK = 1024  # gaps that are drawn at a time


def gaps(rate: float, arrivals: Arrivals, seed: int) -> Iterator[float]:
    """Endless seconds from one arrival to the next.

    Args:
        rate: arrivals a second, on average.
        arrivals: "poisson" draws exponential gaps by `seed`, as of many users who do not know of
            each other; "constant" has all gaps equal.
    """
    if arrivals == "constant":
        return itertools.repeat(1 / rate)
    generator = np.random.default_rng(abs(seed))
    return (gap for _ in itertools.count() for gap in generator.exponential(1 / rate, BLOCK))
