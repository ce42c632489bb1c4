"""The conditions of a model in an address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from galatea import _conditions
from galatea.card import Input, ModelCard
from galatea.ui._query import Query, shortest

__all__ = ["Settings", "check", "choosable", "key", "of_place", "pairs", "read", "suited"]

Settings = Mapping[str, int | float | str]

# What the address of a page or a picture says beside the conditions.
RESERVED = {
    "mode", "seed", "n", "seeds", "columns", "frames", "frame", "space", "layers", "with", "moves",
    "source", "show", "channel", "level", "window", "mask", "token",
}  # fmt: skip


def key(name: str) -> str:
    """What a condition is called in an address."""
    return f"set.{name}" if name in RESERVED else name


def choosable(card: ModelCard) -> list[Input]:
    """The inputs that a person chooses."""
    return [entry for entry in card.inputs if entry.name not in ("seed", "source")]


def read(query: Query, card: ModelCard) -> dict[str, int | float | str]:
    """The conditions that an address names, but those that are the default.

    Raises:
        InvalidInput: a value is not what the card allows.
    """
    found: dict[str, int | float | str] = {}
    for entry in choosable(card):
        name = key(entry.name)
        text = query.text(name)
        if not text or (entry.labels and text == _conditions.BALANCED):
            continue
        value: int | float | str = text
        if entry.labels:
            value = entry.labels[int(text)] if _is_place(text, entry) else text
        elif entry.dtype == "FP32":
            value = query.number(name, 0.0)
        elif entry.dtype != "BYTES":
            value = query.whole(name, 0)
        if value != entry.default:
            found[entry.name] = value
    check(card, found)
    return found


def check(card: ModelCard, settings: Settings) -> None:
    """Makes sure that the card allows the conditions; one that is missing is not complained of.

    Raises:
        InvalidInput: it does not.
    """
    given = dict(settings)
    for entry in missing(card, settings):
        given[entry.name] = "" if entry.dtype == "BYTES" else (entry.minimum or 0)
    _conditions.conditions(card, given, 1, lambda index: np.zeros((len(index), 1), np.int64))


def missing(card: ModelCard, settings: Settings) -> list[Input]:
    """Inputs that a person must choose and has not."""
    return [
        entry
        for entry in choosable(card)
        if entry.name not in settings
        and entry.default is None
        and not entry.labels
        and (entry.minimum is None or entry.maximum is None)
    ]


def pairs(card: ModelCard, settings: Settings) -> list[tuple[str, str]]:
    """Conditions for an address, in the order of the card."""
    return [
        (key(entry.name), written(settings[entry.name]))
        for entry in choosable(card)
        if entry.name in settings
    ]


def written(value: Any) -> str:
    """A value as a text."""
    return value if isinstance(value, str) else shortest(value)


def of_place(card: ModelCard, settings: Settings, place: int) -> dict[str, int | float | str]:
    """The conditions of the image with this place in a sheet: a class, where they are in turn."""
    label = card.label
    if label is None or not label.labels or "label" in settings:
        return dict(settings)
    return {**settings, "label": label.labels[place % len(label.labels)]}


def suited(card: ModelCard, settings: Settings) -> dict[str, int | float | str]:
    """Those conditions of another model that this one has and allows."""
    found: dict[str, int | float | str] = {}
    for entry in choosable(card):
        if entry.name in settings:
            value = settings[entry.name]
            fits = value in (entry.labels or entry.choices or (value,))
            if fits and (entry.dtype == "BYTES" or bool(entry.labels) or _in_range(entry, value)):
                found[entry.name] = value
    return found


def _in_range(entry: Input, value: Any) -> bool:
    if isinstance(value, str):
        return False
    low, high = entry.minimum, entry.maximum
    return (low is None or value >= low) and (high is None or value <= high)


def _is_place(text: str, entry: Input) -> bool:
    return text not in entry.labels and text.isdecimal() and int(text) < len(entry.labels)
