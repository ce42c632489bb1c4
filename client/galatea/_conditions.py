"""From what a caller asks for to the values of each sample, checked against the card."""

from __future__ import annotations

import difflib
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea import _draws
from galatea.card import Input, ModelCard
from galatea.errors import InvalidInput

# The values of the samples with these indices, as an array [n, 1].
Values = Callable[[NDArray[np.int64]], NDArray[Any]]

BALANCED = "balanced"
DTYPE: Mapping[str, type[Any]] = {
    "INT64": np.int64,
    "INT32": np.int32,
    "FP32": np.float32,
    "BYTES": object,  # holds str
}
LONGEST = 10_000  # characters of a text
GOLDEN = np.uint64(11400714819323198485)  # 2⁶⁴ / φ; products wrap round
SMALLEST, LARGEST = -(2**63), 2**63 - 1


def seeds(seed: int | None, n: int | None) -> Values:
    """Consecutive seeds from `seed`, or from a random 32-bit one, for up to `n` samples.

    Raises:
        InvalidInput: not a whole number, or the last seed would not fit into 64 bits.
    """
    first = secrets.randbits(32) if seed is None else seed
    if not isinstance(first, Integral) or isinstance(first, bool):
        raise InvalidInput(f"seed {seed!r} is no whole number", "give a 64-bit integer")
    start = int(first)
    if not SMALLEST <= start <= LARGEST - ((n or 1) - 1):
        raise InvalidInput(
            f"seed {start} with {n or 1} samples leaves the 64-bit integers",
            f"give a seed from {SMALLEST} to {LARGEST - ((n or 1) - 1)}",
        )
    return lambda index: (index + np.int64(start))[:, None]


def count(given: Mapping[str, Any]) -> int | None:
    """How many samples are asked for by a condition that has one value for each of them."""
    return next((len(value) for value in given.values() if _is_listed(value)), None)


def conditions(
    card: ModelCard, given: Mapping[str, Any], n: int | None, seeds: Values
) -> dict[str, Values]:
    """Values for every input of the model but the seed and the source.

    A condition is one value for all samples, or a sequence with one value for each. A class label
    may be given by name; ``"balanced"`` (the default) deals the classes out in turn, and a mapping
    from classes to weights deals them out in these proportions. Of a condition without a default
    but with a range, what is not given is drawn by each sample's seed.

    Texts are arrays of str.

    Raises:
        InvalidInput: an unknown condition, one that is missing, a value out of its range, or no
            text that can be sent.
    """
    known = {entry.name: entry for entry in _free(card)}
    values = {name: value for name, value in given.items() if value is not None}
    for name in values:
        if name not in known:
            raise InvalidInput(
                f"{card.name} has no condition {name!r}",
                f"it has: {', '.join(known)}" if known else "it is unconditional",
            )
    return {name: _values(card, entry, values.get(name), n, seeds) for name, entry in known.items()}


def needs_seed(card: ModelCard, given: Mapping[str, Any]) -> bool:
    """Whether a seed plays a part: as an input, or to draw a condition that is not given."""
    return any(entry.name == "seed" for entry in card.inputs) or any(
        _is_drawn(entry, given.get(entry.name)) for entry in _free(card)
    )


def _free(card: ModelCard) -> list[Input]:
    """The inputs that a caller chooses by name."""
    return [entry for entry in card.inputs if entry.name not in ("seed", "source")]


def _is_drawn(entry: Input, value: Any) -> bool:
    missing = value is None and entry.default is None and not entry.labels
    return missing and entry.minimum is not None and entry.maximum is not None


def _values(card: ModelCard, entry: Input, value: Any, n: int | None, seeds: Values) -> Values:
    if _is_drawn(entry, value):
        return _draws_of(entry, seeds)
    if value is None:
        value = BALANCED if entry.labels else entry.default
    if value is None:
        raise InvalidInput(f"{card.name} needs the condition {entry.name!r}", _allowed(entry))
    if entry.labels and isinstance(value, str) and value == BALANCED:
        count = len(entry.labels)
        return lambda index: (index % count).astype(np.int64)[:, None]
    if entry.labels and isinstance(value, Mapping):
        return _weighted(card, entry, value)
    dtype = DTYPE[entry.dtype]
    if _is_listed(value):
        if n is None or len(value) != n:
            raise InvalidInput(
                f"{len(value)} values of {entry.name!r} for {n or 'any number of'} samples",
                "give one value for all, or one for each sample",
            )
        listed = np.array([_one(card, entry, item) for item in value], dtype)[:, None]
        return lambda index: listed[index]
    single = _one(card, entry, value)
    return lambda index: np.full((len(index), 1), single, dtype)


def _is_listed(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def _weighted(card: ModelCard, entry: Input, weights: Mapping[Any, Any]) -> Values:
    """Deals classes out in given proportions, every run of samples alike.

    Sample i gets the class in whose share of [0, 1) the fractional part of i / φ lies: a sequence
    that fills the interval evenly at every length, so that counts are exact to a few samples.
    """
    shares = np.zeros(len(entry.labels))
    for label, weight in weights.items():
        if not isinstance(weight, int | float | np.number) or not 0 <= weight < math.inf:
            raise InvalidInput(
                f"the class {label!r} has the weight {weight!r}", "give a number of at least 0"
            )
        shares[int(_one(card, entry, label))] += float(weight)
    if not shares.sum() > 0:
        raise InvalidInput("no class has a weight", "give a class a weight above 0")
    ends = np.cumsum(shares) / shares.sum()
    last = int(np.flatnonzero(shares)[-1])

    def deal(index: NDArray[np.int64]) -> NDArray[Any]:
        place = (index.astype(np.uint64) * GOLDEN) / 2.0**64
        classes = np.searchsorted(ends, place, side="right")
        return np.minimum(classes, last).astype(np.int64)[:, None]

    return deal


def _draws_of(entry: Input, seeds: Values) -> Values:
    low, high = entry.minimum, entry.maximum
    assert low is not None
    assert high is not None

    def draw(seed: int) -> int | float:
        if entry.dtype == "FP32":
            return _draws.real(seed, entry.name, low, high)
        return _draws.whole(seed, entry.name, int(low), int(high))

    dtype = DTYPE[entry.dtype]
    return lambda index: np.array([[draw(int(seed))] for seed in seeds(index)[:, 0]], dtype)


def _one(card: ModelCard, entry: Input, value: Any) -> int | float | str:
    if entry.dtype == "BYTES":
        return _text(card, entry, value)
    if entry.labels and isinstance(value, str) and value in entry.labels:
        return entry.labels.index(value)
    if isinstance(value, str) and entry.labels and value.isdecimal():
        value = int(value)
    whole = entry.dtype != "FP32"
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if fits and (whole or math.isfinite(value)):
        low = 0 if entry.labels else entry.minimum
        high = len(entry.labels) - 1 if entry.labels else entry.maximum
        if (low is None or value >= low) and (high is None or value <= high):
            return int(value) if whole else float(value)
    raise InvalidInput(f"{card.name} has no {entry.name} {value!r}", _allowed(entry))


def _text(card: ModelCard, entry: Input, value: Any) -> str:
    problem = _problem(value)
    if problem:
        raise InvalidInput(f"the {entry.name} of {card.name} {problem}", _allowed(entry))
    if entry.choices and value not in entry.choices:
        near = difflib.get_close_matches(value, entry.choices, 1)
        raise InvalidInput(
            f"{card.name} has no {entry.name} {value!r}" + (f", but {near[0]!r}" if near else ""),
            _allowed(entry),
        )
    return str(value)


def _problem(value: Any) -> str:
    """Why a value cannot be sent as a text; nothing where it can."""
    if not isinstance(value, str):
        return f"is {value!r} and no text"
    if len(value) > LONGEST:
        return f"has {len(value)} characters, and at most {LONGEST} are sent"
    if "\0" in value:
        return "has a character of value 0"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"has {value[error.start]!r}, which is no character of Unicode"
    return ""


def _allowed(entry: Input) -> str:
    if entry.choices:
        return f"choose one of: {', '.join(entry.choices)}"
    if entry.dtype == "BYTES":
        return f"give a text: {entry.name}='…', or --{entry.name.replace('_', '-')} TEXT"
    if entry.labels:
        names = ", ".join(f"{name} ({k})" for k, name in enumerate(entry.labels))
        return f"choose one of: {names}, or {BALANCED!r}"
    kind = "number" if entry.dtype == "FP32" else "whole number"
    ends = [
        f"{word} {bound:g}"
        for word, bound in (("at least", entry.minimum), ("at most", entry.maximum))
        if bound is not None
    ]
    return f"give a {kind}{' ' + ' and '.join(ends) if ends else ''}"
