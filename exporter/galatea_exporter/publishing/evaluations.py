"""What is told to others of an evaluation, and whether it is of this very release."""

from __future__ import annotations

from typing import Any, cast

from galatea.card import ModelCard
from galatea.client import Client
from galatea.evaluation import Report, Served

__all__ = ["NOT_ASSESSED", "can_be_evaluated", "is_of", "memorisation", "summary"]

NOT_ASSESSED = "not assessed"


def can_be_evaluated(card: ModelCard) -> bool:
    """Whether ``galatea evaluate`` makes images of the model: of seeds, and no volumes."""
    return card.source_picture is None and len(card.image.shape) == 3


def is_of(report: Report, card: ModelCard) -> bool:
    """Whether the report's images came from the graphs, weights and settings of this card."""
    told = report.synthetic
    try:
        first, last = told["seeds"]
        client = cast("Client", _Shelf(card))
        images = Served(client, card.name, last - first + 1, first, **told["conditions"])
        return bool(images.digest == told["digest"])
    except (KeyError, TypeError, ValueError):  # of other images than a model's
        return False


def memorisation(report: Report | None) -> str:
    """In a few words, how many images were found to be copies of training images."""
    if report is None or not report.memorisation:
        return NOT_ASSESSED
    worst = max(report.memorisation, key=lambda verdict: verdict.memorised)
    return (
        f"{worst.memorised} of {worst.n_synthetic} images are memorised "
        f"({worst.n_train} training and {worst.n_heldout} held-out images, {worst.extractor})"
    )


def summary(report: Report) -> dict[str, Any]:
    """The figures with what they depend on, as plain JSON types.

    Names of files and folders are left out: those of training images may name patients.
    """
    return {
        "galatea": report.galatea,
        "real": _without_places(report.real),
        "synthetic": _without_places(report.synthetic),
        "extractors": list(report.extractors),
        "settings": report.settings,
        "rows": [
            {
                "extractor": row.extractor, "intensity": row.intensity, "label": row.label,
                "n_real": row.n_real, "n_synthetic": row.n_synthetic, "floor_n": row.floor_n,
                "headline": row.headline,
                "figures": {
                    figure.name: {
                        "value": figure.value, "error": figure.error, "floor": figure.floor,
                        "at_floor": figure.at_floor,
                    }
                    for figure in row.figures
                },
            }
            for row in report.rows
        ],
        "memorisation": [
            {
                "extractor": verdict.extractor, "intensity": verdict.intensity,
                "n_train": verdict.n_train, "n_heldout": verdict.n_heldout,
                "n_synthetic": verdict.n_synthetic, "memorised": verdict.memorised,
            }
            for verdict in report.memorisation
        ] or NOT_ASSESSED,
    }  # fmt: skip


def _without_places(source: dict[str, Any]) -> dict[str, Any]:
    told = ("kind", "model", "version", "weights", "n", "seeds", "conditions", "digest")
    return {key: source[key] for key in told if key in source}


class _Shelf:
    """As much of a client as tells a model's card."""

    def __init__(self, card: ModelCard) -> None:
        self._card = card

    def model(self, name: str) -> ModelCard:
        return self._card
