"""Who is tested with, and what each training sees: always by patient, never by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galatea.errors import InvalidInput
from galatea.evaluation.utility._cases import TABLE, Cases

__all__ = ["ARMS", "Split", "Training", "split", "trainings"]

ARMS = ("real", "synthetic", "both")
LEAST = 5  # patients to train and to test with; an interval of fewer tells nothing

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Real images of two groups of patients.

    Attributes:
        train, test: names of the patients, sorted.
        test_images: indices of the images to test with, int64 [n].
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    test_images: Indices


@dataclass(frozen=True, eq=False)
class Training:
    """What one training sees.

    Attributes:
        arm: "real", "synthetic" or "both".
        fraction: of the patients to train with; None where there are no real images.
        repeat: from 0.
        patients: how many of them.
        real: indices of the real images, int64 [n].
        synthetic: whether the synthetic images are there.
        seed: of weights and order; equal in all arms of a repeat.
    """

    arm: str
    fraction: float | None
    repeat: int
    patients: int
    real: Indices
    synthetic: bool
    seed: int


def split(real: Cases, holdout: float, seed: int) -> Split:
    """Holds out patients.

    Args:
        holdout: share of the patients to test with.

    Raises:
        InvalidInput: the patient of an image is not known, or there are too few.
    """
    unknown = next((case for case in real.cases if not case.patient), None)
    if unknown is not None:
        raise InvalidInput(
            f"{real.title}: the patient of {unknown.picture.name} is not known",
            f"give a column 'patient' in {TABLE}: images of a patient must not be trained and "
            "tested with",
        )
    patients = sorted({case.patient for case in real.cases})
    order = np.random.default_rng([seed, 0]).permutation(len(patients))
    n = round(holdout * len(patients))
    if min(n, len(patients) - n) < LEAST:
        raise InvalidInput(
            f"{real.title}: of {len(patients)} patients {n} would be held out",
            f"give real images of at least {LEAST} patients to train and {LEAST} to test with",
        )
    test = tuple(sorted(patients[i] for i in order[:n]))
    train = tuple(sorted(patients[i] for i in order[n:]))
    return Split(train, test, _images(real, test))


def trainings(
    real: Cases,
    found: Split,
    arms: Sequence[str],
    fractions: Sequence[float],
    repeats: int,
    seed: int,
) -> Iterator[Training]:
    """All trainings of a study; small fractions of a repeat are parts of its larger ones."""
    for repeat in range(repeats):
        random = np.random.default_rng([seed, 1, repeat])
        order = random.permutation(len(found.train))
        own = int(random.integers(1 << 31))
        for arm in ARMS:
            if arm not in arms:
                continue
            for fraction in [None] if arm == "synthetic" else fractions:
                n = 0 if fraction is None else max(1, round(fraction * len(order)))
                images = _images(real, [found.train[i] for i in order[:n]])
                yield Training(arm, fraction, repeat, n, images, arm != "real", own)


def _images(real: Cases, patients: Sequence[str]) -> Indices:
    wanted = set(patients)
    return np.array([i for i, case in enumerate(real.cases) if case.patient in wanted], np.int64)
