"""Options that take several values in one text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import click

__all__ = ["Listed", "Series"]


class Listed(click.ParamType[tuple[Any, ...]]):
    """Values with commas between them, each once."""

    name = "list"
    example = "a,b"

    def __init__(self, kind: Callable[[str], Any]) -> None:
        self._kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """The values that the text means."""
        if isinstance(value, tuple):
            return value
        try:
            values = [one for part in str(value).split(",") for one in self._part(part.strip())]
        except ValueError:
            self.fail(f"{value!r} is no {self.name}: write {self.example}", param, ctx)
        return tuple(dict.fromkeys(values))

    def _part(self, text: str) -> Iterator[Any]:
        yield self._kind(text)


class Series(Listed):
    """``1,8,32``; ``1:16``, which doubles; or ``1:16:5``, in steps of 5."""

    name = "series"
    example = "1,8,32 or 1:16 or 1:16:5"

    def _part(self, text: str) -> Iterator[Any]:
        first, *rest = [self._kind(number) for number in text.split(":")]
        last, step = rest[0] if rest else first, rest[1] if rest[1:] else None
        if rest[2:] or (rest and not 0 < first <= last < math.inf):
            raise ValueError
        if step is not None and not step > 0:
            raise ValueError
        while first < last:
            yield first
            first = first * 2 if step is None else first + step
        if first == last or step is None:
            yield last
