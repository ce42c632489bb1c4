"""The first page: what is served, and what is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from galatea.card import ModelCard
from galatea.catalogue import Entry, entries
from galatea.search import Query as Search
from galatea.ui import _settings
from galatea.ui._facts import figures, summary
from galatea.ui._html import Html, joined, page, tag
from galatea.ui._query import Query
from galatea.ui._tile import Tile

__all__ = ["home_page"]

SAMPLES = 4  # tiles of each model
FIELDS = ("modality", "organ", "licence", "size")


def home_page(cards: Sequence[ModelCard], query: Query, version: str) -> str:
    """HTML of what a search finds, the served models first.

    Raises:
        InvalidInput: no such size or metric.
    """
    given = {name: query.text(name) for name in FIELDS}
    search = Search(words=query.text("words"), **given)
    served = search.search(cards)
    imported = {card.catalogue_id for card in cards}
    known = [entry for entry in search.search(entries().values()) if entry.id not in imported]
    nothing = "nothing that is served matches" if cards else "the server has no models yet"
    return page(
        "galatea",
        tag("h1", "Generators"),
        _form(query.text("words"), given),
        tag("h2", f"Served ({len(served)})"),
        tag("div", *map(_served, served), class_="cards") if served else tag("p", nothing),
        tag("h2", f"In the catalogue ({len(known)})"),
        tag("ul", *map(_known, known), class_="known") if known else tag("p", "nothing matches"),
        version=version,
    )


def _form(words: str, given: Mapping[str, str]) -> Html:
    search = tag("label", tag("span", "Search"),
                 tag("input", type="search", name="words", value=words))  # fmt: skip
    fields = [
        tag("label", tag("span", name.capitalize()),
            tag("input", type="text", name=name, value=value,
                placeholder=">=256" if name == "size" else None))
        for name, value in given.items()
    ]  # fmt: skip
    return tag("form", search, *fields, tag("button", "Find"), method="get", action="/",
               class_="search", role="search")  # fmt: skip


def _served(card: ModelCard) -> Html:
    address = f"/models/{card.name}/{card.version}"
    measured = figures(card)
    return tag(
        "article",
        tag("h3", tag("a", card.title or card.name, href=address)),
        tag("p", card.name, " · ", summary(card), class_="note"),
        tag("p", measured, class_="note") if measured else None,
        tag("p", *_samples(card), class_="samples"),
    )


def _samples(card: ModelCard) -> list[Html]:
    """A few images, of models that make them at once and need nothing else."""
    slow = card.source_picture is not None or card.steps is not None
    if slow or _settings.missing(card, {}):
        return []
    tiles = [Tile(card, (k,), _settings.of_place(card, {}, k)) for k in range(SAMPLES)]
    return [
        tag("img", src=tile.address(), alt=f"synthetic image of {card.name}, seed {k}",
            loading="lazy")
        for k, tile in enumerate(tiles)
    ]  # fmt: skip


def _known(entry: Entry) -> Html:
    measured = figures(entry)
    how = (
        joined("cannot be served: ", entry.unsupported)
        if entry.unsupported
        else tag("code", f"galatea import {entry.id}")
    )
    return tag(
        "li",
        tag("b", entry.title),
        tag("p", summary(entry), f" · {measured}" if measured else "", class_="note"),
        tag("p", how, class_="note"),
    )
