"""Reading what an address says after its question mark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlencode

from galatea.errors import InvalidInput

__all__ = ["Query", "address", "shortest"]

LARGEST = 2**63 - 1


class Query:
    """The keys and values of an address; a value without text is none.

    Every method raises InvalidInput where a value is not what it has to be.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {key: value for key, value in values.items() if value.strip()}

    def text(self, key: str, default: str = "") -> str:
        """A value as it is."""
        return self._values.get(key, default)

    def choice(self, key: str, choices: Iterable[str]) -> str:
        """One of several words; without a value the first one."""
        allowed = list(choices)
        value = self._values.get(key, allowed[0])
        if value not in allowed:
            raise _wrong(key, value, f"choose one of: {', '.join(allowed)}")
        return value

    def whole(self, key: str, default: int, low: int = -LARGEST - 1, high: int = LARGEST) -> int:
        """A whole number between two others, both included."""
        value = self._values.get(key)
        return default if value is None else _whole(key, value, low, high)

    def wholes(self, key: str, default: tuple[int, ...], most: int) -> tuple[int, ...]:
        """Whole numbers with commas between them."""
        value = self._values.get(key)
        return default if value is None else wholes(key, value, most)

    def number(
        self, key: str, default: float, low: float = -math.inf, high: float = math.inf
    ) -> float:
        """A finite number between two others, both included."""
        value = self._values.get(key)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and low <= number <= high):
            ends = "" if math.isinf(high) else f" from {low:g} to {high:g}"
            raise _wrong(key, value, f"give a number{ends}")
        return number


def wholes(key: str, value: str, most: int) -> tuple[int, ...]:
    """Whole numbers with commas between them, at most so many of them.

    Raises:
        InvalidInput: they are none.
    """
    parts = [part for part in value.replace(" ", ",").split(",") if part]
    if not 1 <= len(parts) <= most:
        raise _wrong(key, value, f"give 1 to {most} whole numbers with commas between them")
    return tuple(_whole(key, part, -LARGEST - 1, LARGEST) for part in parts)


def _whole(key: str, value: str, low: int, high: int) -> int:
    try:
        number = int(value)
    except ValueError:
        raise _wrong(key, value, "give a whole number") from None
    if not low <= number <= high:
        raise _wrong(key, value, f"give a whole number from {low} to {high}")
    return number


def _wrong(key: str, value: str, remedy: str) -> InvalidInput:
    return InvalidInput(f"{key} is {value[:80]!r}", remedy)


def shortest(number: float) -> str:
    """A number with as few characters as mean it."""
    return str(int(number)) if number == int(number) else repr(float(number))


def address(path: Iterable[str | int], pairs: Iterable[tuple[str, str]]) -> str:
    """A path of these parts, and what comes after the question mark, in the order given."""
    joined = "".join(f"/{quote(str(part), safe=',')}" for part in path)
    query = urlencode(list(pairs), safe=",")
    return f"{joined}?{query}" if query else joined
