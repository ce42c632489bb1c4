"""What a study of utility found, with everything that another one needs to find the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from galatea._files import write_atomically
from galatea.errors import MachineError
from galatea.evaluation._report import Memorisation
from galatea.evaluation.utility._scores import Estimate

__all__ = ["COLUMNS", "Result", "Utility", "cells"]

SCHEMA = 1
COLUMNS = (
    "ARM", "FRACTION", "PATIENTS", "REAL", "SYNTHETIC", "SCORE", "OF ALL REAL", "OF SAME REAL",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What one arm came to with one fraction of the real patients.

    Attributes:
        arm: "real", "synthetic" or "both".
        fraction: of the patients to train with; None where there are no real images.
        patients: how many of them.
        n_real, n_synthetic: images to train with; of real ones the mean over repeats.
        repeats: the score of each.
        score: their mean over patients.
        of_all_real: as a share of the score of real images alone, of the largest fraction; None
            where it is that itself, or that may be 0.
        of_same_real: the same of this fraction; None as well where there is none.
    """

    arm: str
    fraction: float | None
    patients: int
    n_real: float
    n_synthetic: int
    repeats: tuple[float, ...]
    score: Estimate
    of_all_real: Estimate | None
    of_same_real: Estimate | None


@dataclass(frozen=True)
class Utility:
    """A study of what synthetic images are worth in training.

    Attributes:
        title: what was evaluated.
        command: what makes the report again.
        task: "classify" or "segment".
        measure: "balanced accuracy" or "Dice".
        learner: what was trained, and how.
        real, synthetic, train, heldout: where the images came from, with digests and seeds.
        settings: the design, and what extracted features.
        train_patients, test_patients: the real images' patients.
        n_test: real images to test with.
        results: in the order real, synthetic, both, of each by fraction.
        memorisation: of the synthetic images, where training and held-out images were given.
    """

    title: str
    galatea: str
    command: str
    task: str
    measure: str
    learner: dict[str, Any]
    real: dict[str, Any]
    synthetic: dict[str, Any]
    train: dict[str, Any] | None
    heldout: dict[str, Any] | None
    settings: dict[str, Any]
    train_patients: tuple[str, ...]
    test_patients: tuple[str, ...]
    n_test: int
    results: tuple[Result, ...]
    memorisation: Memorisation | None
    schema: int = SCHEMA

    def to_json(self) -> bytes:
        """The content of ``report.json``; equal bytes for equal reports."""
        return (json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode()

    def write(self, folder: Path) -> Path:
        """Writes ``report.json`` into a folder, which is made.

        Raises:
            MachineError: it cannot be written.
        """
        path = folder / "report.json"
        try:
            write_atomically(path, self.to_json())
        except OSError as error:
            raise MachineError(
                f"{path}: cannot be written: {error.strerror or error}", "name another folder"
            ) from error
        return path


def cells(report: Utility) -> Iterator[tuple[str, ...]]:
    """The rows of the report's table, for :data:`COLUMNS`."""
    for result in report.results:
        yield (
            result.arm,
            "" if result.fraction is None else f"{result.fraction:g}",
            str(result.patients),
            f"{result.n_real:g}",
            str(result.n_synthetic),
            _estimate(result.score, 3),
            _estimate(result.of_all_real, 2),
            _estimate(result.of_same_real, 2),
        )


def _estimate(found: Estimate | None, digits: int) -> str:
    if found is None:
        return ""
    return f"{found.value:.{digits}f} ({found.low:.{digits}f}–{found.high:.{digits}f})"
