"""What an evaluation found, with everything that another one needs to find the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from galatea.card import from_plain
from galatea.errors import InvalidInput

__all__ = ["KID_BELOW", "Figure", "Memorisation", "Pair", "Report", "Row"]

SCHEMA = 1
KID_BELOW = 5000  # images; with fewer, the Fréchet distance mostly tells how many there were


@dataclass(frozen=True)
class Figure:
    """A figure of merit.

    Attributes:
        name: "FD", "KID", "precision", "recall", "density", "coverage" or "IS".
        value: over all images.
        error: standard error of that, for IS the spread over its splits.
        floor: the same figure of real images against other real ones, `Row.floor_n` of each.
        at_floor: of real against synthetic images at that n, to be held against the floor.
    """

    name: str
    value: float
    higher_is_better: bool
    error: float | None = None
    floor: float | None = None
    at_floor: float | None = None

    @property
    def ratio(self) -> float | None:
        """Of the Fréchet distance, real–real to real–synthetic at one n: 1 at best."""
        if self.name != "FD" or self.floor is None or not self.at_floor:
            return None
        return self.floor / self.at_floor


@dataclass(frozen=True)
class Row:
    """The figures of one extractor with one rule for intensities.

    Attributes:
        label: the class that they are of; "" for all images.
        n_real, n_synthetic: images of each kind.
        floor_n: images of each kind in what the floor is made of.
    """

    extractor: str
    intensity: str
    label: str
    n_real: int
    n_synthetic: int
    floor_n: int
    figures: tuple[Figure, ...]

    @property
    def headline(self) -> str:
        """Name of the figure to quote."""
        return "KID" if min(self.n_real, self.n_synthetic) < KID_BELOW else "FD"

    def figure(self, name: str) -> Figure | None:
        """The figure of this name."""
        return next((figure for figure in self.figures if figure.name == name), None)


@dataclass(frozen=True)
class Pair:
    """A synthetic image and the training image nearest to it.

    Attributes:
        ratio: distance to that at which held-out images begin; below the gate's factor the image
            counts as memorised.
    """

    synthetic: str
    training: str
    distance: float
    ratio: float
    memorised: bool


@dataclass(frozen=True)
class Memorisation:
    """Which synthetic images are nearer to training images than any held-out one would be.

    Attributes:
        nearest_heldout: the low quantile of the distances of held-out to training images.
        threshold: below it an image counts as memorised.
        memorised: how many do.
        pairs: the closest ones, all memorised ones first among them.
    """

    extractor: str
    intensity: str
    n_train: int
    n_heldout: int
    n_synthetic: int
    nearest_heldout: float
    threshold: float
    memorised: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Report:
    """An evaluation.

    Attributes:
        title: what was evaluated.
        command: what makes the report again.
        real, synthetic, train, heldout: where the images came from, with digests and seeds.
        extractors: what made the features.
        settings: neighbours, repeats and the seed of what is drawn.
        rows: all images first, then each class that both kinds have.
        memorisation: one for each extractor and rule; empty without training images.
    """

    title: str
    galatea: str
    command: str
    real: dict[str, Any]
    synthetic: dict[str, Any]
    train: dict[str, Any] | None
    heldout: dict[str, Any] | None
    extractors: tuple[dict[str, Any], ...]
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    memorisation: tuple[Memorisation, ...]
    schema: int = SCHEMA

    def to_json(self) -> bytes:
        """The content of ``report.json``; equal bytes for equal reports."""
        return (json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> Report:
        """Reads ``report.json``, or that of a folder.

        Raises:
            InvalidInput: there is none, or it is damaged or of another schema.
        """
        file = path / "report.json" if path.is_dir() else path
        try:
            report = from_plain(cls, json.loads(file.read_text("utf-8")))
            if report.schema != SCHEMA:
                raise ValueError(f"it has schema {report.schema}, not {SCHEMA}")
        except (OSError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"{file}: no report can be read from it: {getattr(error, 'strerror', '') or error}",
                "name what galatea evaluate run wrote",
            ) from error
        return report
