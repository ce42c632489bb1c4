"""From the outcome of each tested image to scores, and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galatea.evaluation._frechet import Floats

__all__ = ["Estimate", "Scores", "dice"]

DRAWS = 2000
LEVEL = (2.5, 97.5)  # percentiles of an interval


@dataclass(frozen=True)
class Estimate:
    """A value with its interval of 95 %."""

    value: float
    low: float
    high: float


class Scores:
    """Means over images, and intervals over patients and repeats.

    Patients and repeats are drawn with replacement, independently and for all arms alike (the
    pigeonhole bootstrap of crossed random effects, doi:10.1214/07-AOAS122). Patients count alike,
    however many images they have.

    Args:
        patients: that each tested image is of, [n].
        groups: class of each tested image, int64 [n]; scores are means over classes.
        repeats: of the study.
        seed: of the draws.
    """

    def __init__(
        self, patients: list[str], groups: NDArray[np.int64], repeats: int, seed: int
    ) -> None:
        names, places, images = np.unique(patients, return_inverse=True, return_counts=True)
        random = np.random.default_rng([seed, 2])
        drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
        self._once = (1 / images)[places][None]
        self._weights = drawn[:, places] * self._once
        self._repeats = random.multinomial(repeats, np.full(repeats, 1 / repeats), DRAWS) / repeats
        self._groups = groups

    def each(self, outcomes: Floats) -> Floats:
        """The mean of each repeat, [repeats]; outcomes are [repeats, n]."""
        means: Floats = self._means(outcomes, self._once)[0]
        return means

    def score(self, outcomes: Floats) -> Estimate:
        """The mean of outcomes, [repeats, n]."""
        return _estimate(self._value(outcomes), self._drawn(outcomes))

    def ratio(self, outcomes: Floats, reference: Floats) -> Estimate | None:
        """The mean of outcomes as a share of that of others, both [repeats, n].

        None where those may be 0, and no share can be told.
        """
        drawn = self._drawn(reference)
        if not (drawn > 0).all():
            return None
        return _estimate(
            self._value(outcomes) / self._value(reference), self._drawn(outcomes) / drawn
        )

    def _value(self, outcomes: Floats) -> np.float64:
        return np.float64(self.each(outcomes).mean())

    def _drawn(self, outcomes: Floats) -> Floats:
        drawn: Floats = (self._means(outcomes, self._weights) * self._repeats).sum(1)
        return drawn

    def _means(self, outcomes: Floats, weights: Floats) -> Floats:
        """Of each draw and repeat, [draws, repeats]: the mean over the classes that it has."""
        total, classes = 0.0, 0.0
        for group in np.unique(self._groups):
            own = self._groups == group
            weight = weights[:, own].sum(1, keepdims=True)
            there = weight > 0
            total = total + (weights[:, own] @ outcomes[:, own].T) / np.where(there, weight, 1)
            classes = classes + there
        means: Floats = np.asarray(total / classes)
        return means


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Floats:
    """Dice coefficient of each mask, [n]; 1 where both are empty.

    Args:
        found, truth: [n, H, W].
    """
    both = (found & truth).sum((1, 2))
    all_ = found.sum((1, 2)) + truth.sum((1, 2))
    coefficients: Floats = np.where(all_ > 0, 2 * both / np.maximum(all_, 1), 1.0)
    return coefficients


def _estimate(value: np.float64, drawn: Floats) -> Estimate:
    low, high = np.percentile(drawn, LEVEL)
    return Estimate(float(value), float(low), float(high))
