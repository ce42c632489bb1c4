"""What the samples of a data set shall show: prompts with how many samples, labels and conditions.

A file of them is CSV with a header, or JSON Lines, one object a line. ``prompt`` is required, ``n``
is how many samples a row makes, ``label`` what the study calls them, and every other column is a
condition of the model.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea._conditions import GOLDEN, conditions, seeds
from galatea._requests import whole
from galatea.card import Input, ModelCard
from galatea.errors import InvalidInput

__all__ = ["Prompts", "Row", "deal", "differences", "make", "read_rows"]

Prompts = str | Path | Sequence[Mapping[str, Any]]
Entry = tuple[str, dict[str, Any]]  # where it stands, and what

COUNT, LABEL, PROMPT = "n", "label", "prompt"


@dataclass(frozen=True)
class Row:
    """Samples that have their conditions in common.

    Attributes:
        n: how many.
        conditions: by name, one value each; the same names in every row of a data set.
        label: what the study calls them, where the model has no classes.
    """

    n: int
    conditions: dict[str, Any]
    label: str | None = None

    @property
    def group(self) -> str:
        """The label or class; "" without."""
        return str(self.label or self.conditions.get(LABEL, ""))

    def told(self) -> dict[str, Any]:
        """What it says, by the names of the columns."""
        return {COUNT: self.n, LABEL: self.label, **self.conditions}


def read_rows(prompts: Prompts, card: ModelCard, given: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows of a file, or those of a list, checked against the card.

    A condition that only some rows have gets the model's default in the others.

    Args:
        given: conditions that all samples have in common, by name.

    Raises:
        InvalidInput: a row that is none, or that the card does not allow; says which. The file
            cannot be read, the model takes no prompts, or what is given varies by sample.
    """
    known = {entry.name: entry for entry in card.inputs}
    if PROMPT not in known:
        raise InvalidInput(f"{card.name} takes no prompt", "leave the prompts out, and give n")
    common = {name: value for name, value in given.items() if value is not None}
    for name, value in common.items():
        if isinstance(value, list | tuple | np.ndarray):
            raise InvalidInput(
                f"{name} is a list beside prompts", f"make {name} one of their columns"
            )
    if isinstance(prompts, str | Path):
        entries = list(_file(Path(prompts), known))
    else:
        entries = [(f"prompts[{k}]", dict(row)) for k, row in enumerate(prompts)]
    if not entries:
        where = f"{prompts}: " if isinstance(prompts, str | Path) else ""
        raise InvalidInput(f"{where}there are no prompts", "give at least one row")
    checked = [(place, _checked(place, row, card, common)) for place, row in entries]
    names = list(dict.fromkeys(name for _, row in checked for name in row.conditions))
    labelled = any(row.label is not None for _, row in checked)
    return tuple(_completed(place, row, names, labelled, known) for place, row in checked)


def deal(rows: Sequence[Row]) -> NDArray[np.int64]:
    """The number of the row that each sample is of: every row as often as it says, well mixed.

    Samples are put in the order of the fractional parts of i / φ, which fill an interval evenly at
    every length; rows are laid along it, those of a label next to each other. So every run of
    samples, and thus every shard, has each label in proportion, to a few samples.
    """
    order = sorted(range(len(rows)), key=lambda k: rows[k].group)
    laid = np.repeat(np.array(order, np.int64), [rows[k].n for k in order])
    dealt = np.empty_like(laid)
    dealt[np.argsort(np.arange(len(laid), dtype=np.uint64) * GOLDEN)] = laid
    return dealt


def make(rows: Sequence[Row], n: int) -> bool:
    """Whether rows are those of `n` samples, with the same conditions in each."""
    alike = {(tuple(sorted(row.conditions)), row.label is None) for row in rows}
    return len(alike) == 1 and min(row.n for row in rows) > 0 and sum(row.n for row in rows) == n


def differences(rows: Sequence[Row], others: Sequence[Row]) -> list[str]:
    """What is first otherwise in other rows; nothing where they are equal."""
    for k, (row, other) in enumerate(zip(rows, others, strict=False)):
        mine, its = row.told(), other.told()
        for name in {**mine, **its}:
            if mine.get(name) != its.get(name):
                return [f"{name} {its.get(name)!r} in row {k + 1}, not {mine.get(name)!r}"]
    if len(rows) != len(others):
        return [f"{len(others)} rows of prompts, not {len(rows)}"]
    return []


def _file(path: Path, known: Mapping[str, Input]) -> Iterator[Entry]:
    readers = {".csv": _csv, ".jsonl": _json_lines}
    if path.suffix.lower() not in readers:
        raise InvalidInput(
            f"{path}: no file of prompts is called so", "give a .csv with a header, or a .jsonl"
        )
    try:
        # A byte order mark is what spreadsheets begin UTF-8 with.
        with path.open(encoding="utf-8-sig", newline="") as lines:
            yield from readers[path.suffix.lower()](path, lines, known)
    except OSError as error:
        raise InvalidInput(
            f"{path}: cannot be read: {error.strerror or error}", "name a file of prompts"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: is no UTF-8: {error}", "save it as UTF-8") from error


def _csv(path: Path, lines: Iterator[str], known: Mapping[str, Input]) -> Iterator[Entry]:
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if PROMPT not in header or len(set(header)) < len(header):
            raise InvalidInput(
                f"{path}, line 1: the columns are {', '.join(map(repr, header)) or 'none'}",
                f"begin with a header of different names, {PROMPT!r} among them, with commas",
            )
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if cells and len(cells) != len(header):
                raise InvalidInput(
                    f"{place}: there are {len(cells)} cells, and {len(header)} in the header",
                    "put texts with commas into quotes",
                )
            named = zip(header, cells, strict=False)
            row = {name: _typed(place, name, cell, known) for name, cell in named if cell.strip()}
            if row:
                yield place, row
    except csv.Error as error:
        raise InvalidInput(
            f"{path}, line {reader.line_num}: {error}", "put texts into quotes, and double these"
        ) from error


def _typed(place: str, name: str, cell: str, known: Mapping[str, Input]) -> Any:
    """A cell as what its column holds."""
    entry = known.get(name)
    if name != COUNT and (entry is None or entry.labels or entry.dtype == "BYTES"):
        return cell if name == PROMPT else cell.strip()
    real = entry is not None and entry.dtype == "FP32"
    try:
        return float(cell) if real else int(cell)
    except ValueError:
        raise InvalidInput(
            f"{place}: {name} {cell!r} is no {'number' if real else 'whole number'}",
            "mend the line",
        ) from None


def _json_lines(path: Path, lines: Iterator[str], _: Mapping[str, Input]) -> Iterator[Entry]:
    for k, line in enumerate(lines, 1):
        if line.strip():
            place = f"{path}, line {k}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InvalidInput(f"{place}: no JSON: {error}", "mend the line") from error
            if not isinstance(row, dict):
                raise InvalidInput(f"{place}: no JSON object", 'write {"prompt": "…"} a line')
            yield place, row


def _checked(
    place: str, entry: Mapping[str, Any], card: ModelCard, common: Mapping[str, Any]
) -> Row:
    row = {name: value for name, value in entry.items() if value is not None}
    try:
        twice = next((name for name in row if name in common), None)
        if twice is not None:
            raise InvalidInput(f"{twice} is given for all samples too", "give it once")
        if PROMPT not in row:
            raise InvalidInput("there is no prompt", "give each row one")
        n = whole(row.pop(COUNT, 1))
        label = None if card.label else row.pop(LABEL, None)
        if label is not None and (not isinstance(label, str | int) or not str(label)):
            raise InvalidInput(f"the label {label!r} is no name", "give a text")
        # As lists, so that nothing which stands for several values passes.
        single = {name: [value] for name, value in row.items()}
        conditions(card, {**common, **single}, 1, seeds(0, 1))
    except InvalidInput as error:
        raise InvalidInput(f"{place}: {error.problem}", error.remedy) from error
    return Row(n, row, None if label is None else str(label))


def _completed(
    place: str, row: Row, names: Sequence[str], labelled: bool, known: Mapping[str, Input]
) -> Row:
    """A row with a value for each of these conditions, written in one way only."""
    values = {name: row.conditions.get(name, known[name].default) for name in names}
    missing = [name for name, value in values.items() if value is None]
    missing += [LABEL] if labelled and row.label is None else []
    if missing:
        raise InvalidInput(
            f"{place}: there is no {missing[0]}, which other rows have", "give it in all or in none"
        )
    plain = {name: _plain(known[name], value) for name, value in sorted(values.items())}
    return Row(row.n, plain, row.label)


def _plain(entry: Input, value: Any) -> str | int | float:
    """A valid value of an input as JSON has it; classes by their names."""
    if entry.labels:
        named = isinstance(value, str) and value in entry.labels
        return str(value) if named else entry.labels[int(value)]
    if entry.dtype == "BYTES":
        return str(value)
    return float(value) if entry.dtype == "FP32" else int(value)
