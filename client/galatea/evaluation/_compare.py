"""Several reports in one table, of which every row may be compared with every other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from galatea.errors import InvalidInput
from galatea.evaluation._report import Report, Row

__all__ = ["compare"]

Setting = tuple[str, str, str]  # extractor, intensity, label


def compare(reports: Sequence[Report]) -> dict[Setting, list[tuple[Report, Row]]]:
    """The rows of reports, by what they were measured with.

    Raises:
        InvalidInput: the reports differ in the number of images, the extractors, the intensities
            or the real images: their figures say nothing about each other.
    """
    if len(reports) < 2:
        raise InvalidInput("there is nothing to compare", "give at least two reports")
    first, *others = reports
    for other in others:
        for what, one, another in _differences(first, other):
            raise InvalidInput(
                f"{first.title} and {other.title} cannot be compared: they differ in {what}: "
                f"{one} and {another}",
                "evaluate both with the same real images, extractors, intensities and numbers",
            )
    return {
        _setting(row): [
            (report, next(own for own in report.rows if _setting(own) == _setting(row)))
            for report in reports
        ]
        for row in first.rows
    }


def _differences(first: Report, other: Report) -> list[tuple[str, Any, Any]]:
    facts = [(_facts(report)) for report in (first, other)]
    return [
        (what, facts[0].get(what), facts[1].get(what))
        for what in dict.fromkeys((*facts[0], *facts[1]))
        if facts[0].get(what) != facts[1].get(what)
    ]


def _facts(report: Report) -> dict[str, Any]:
    """What must be equal, by what it is called."""
    facts: dict[str, Any] = {
        "the extractors": [entry["name"] for entry in report.extractors],
        "the weights of the extractors": [entry["weights"] for entry in report.extractors],
        "the graphs of the extractors": [entry["graphs"] for entry in report.extractors],
        "the intensities": list(dict.fromkeys(row.intensity for row in report.rows)),
        "the classes": list(dict.fromkeys(row.label for row in report.rows)),
        "the real images": report.real["digest"],
        "the neighbours": report.settings["neighbours"],
    }
    for row in report.rows:
        where = f" of {row.label}" if row.label else ""
        facts[f"the number of real images{where}"] = row.n_real
        facts[f"the number of synthetic images{where}"] = row.n_synthetic
    return facts


def _setting(row: Row) -> Setting:
    return row.extractor, row.intensity, row.label
