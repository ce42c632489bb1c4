"""What cards and entries of the catalogue say, for people."""

from __future__ import annotations

from collections.abc import Iterable

from galatea.card import ModelCard
from galatea.catalogue import Entry
from galatea.search import size
from galatea.ui._html import Html, joined, tag

__all__ = ["facts", "figures", "summary"]


def summary(item: ModelCard | Entry) -> str:
    """Task, size, modality, organ and licence in a line."""
    sides = "×".join(map(str, size(item) or ("any size",)))
    parts = (item.task, sides, item.modality, item.organ, item.licence or "no licence stated")
    return " · ".join(part for part in parts if part)


def figures(item: ModelCard | Entry) -> str:
    """The first metrics in a line."""
    return ", ".join(f"{metric.name} {metric.value:g}" for metric in item.metrics[:3])


def facts(card: ModelCard) -> Html:
    """The card as a list."""
    metrics = (
        (
            metric.name,
            f"{metric.value:g}, {'higher' if metric.higher_is_better else 'lower'} is better"
            + "".join(
                f", {part}"
                for part in (metric.extractor, f"n = {metric.n}" if metric.n else "", metric.source)
                if part
            ),
        )
        for metric in card.metrics
    )
    rows: Iterable[tuple[str, str]] = (
        ("description", card.description),
        ("generates", ", ".join(card.generates)),
        ("channels", ", ".join(card.image.channels)),
        ("training data", card.training_dataset),
        ("licence", card.licence),
        ("citation", card.citation),
        ("doi", card.doi),
        ("source", card.source),
        ("family", card.family),
        ("catalogue", card.catalogue_id),
        ("weights", f"sha256:{card.checkpoint_sha256}"),
        *metrics,
    )
    return tag("dl", *(joined(tag("dt", name), tag("dd", value)) for name, value in rows if value))
