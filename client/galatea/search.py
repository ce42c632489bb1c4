"""Finding generators: one vocabulary for the catalogue and for what a server has.

Words, filters and rankings read the same fields of a catalogue's entry and of a model card.
"""

from __future__ import annotations

import operator
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from galatea.card import Metric, ModelCard, Task
from galatea.catalogue import Entry
from galatea.errors import InvalidInput

__all__ = ["Query", "figure", "incomparable", "rank", "size"]

Found = TypeVar("Found", Entry, ModelCard)

TASKS: tuple[str, ...] = typing.get_args(Task)

SIZE = re.compile(r"(>=|<=|>|<|=|)\s*(\d+)(?:\s*[x×]\s*(\d+))?")
COMPARE: dict[str, Callable[[int, int], bool]] = {
    "": operator.eq, "=": operator.eq, ">=": operator.ge, "<=": operator.le,
    ">": operator.gt, "<": operator.lt,
}  # fmt: skip


@dataclass(frozen=True)
class Query:
    """What to look for; "" leaves a thing open. Everything that is given must match.

    A word matches where some word of the text begins with it, in any case: "mass" finds "masses".

    Attributes:
        words: in any of title, description, id or name, modality, organ, what is generated, tags,
            training data, family.
        modality, organ, family, licence: words of that field.
        task: one of the tasks of a model card.
        size: of the image: "256" (square), "256x192" (height x width), or with a comparison that
            both sides meet, as in ">=512".

    Raises:
        InvalidInput: no such task, or a size of another form.
    """

    words: str = ""
    modality: str = ""
    organ: str = ""
    task: str = ""
    family: str = ""
    licence: str = ""
    size: str = ""

    def __post_init__(self) -> None:
        if self.task and self.task not in TASKS:
            raise InvalidInput(f"no task {self.task!r}", f"choose one of: {', '.join(TASKS)}")
        if self.size and not SIZE.fullmatch(self.size.strip()):
            raise InvalidInput(
                f"{self.size!r} is no size", "write 256, 256x192 or a comparison such as '>=512'"
            )

    def matches(self, item: Entry | ModelCard) -> bool:
        """Whether an entry or a card is what is looked for."""
        return (
            self.task in ("", item.task)
            and all(
                _has(wanted, text)
                for wanted, text in (
                    (self.words, _text(item)),
                    (self.modality, item.modality),
                    (self.organ, item.organ),
                    (self.family, item.family),
                    (self.licence, item.licence),
                )
            )
            and _fits(self.size, size(item))
        )

    def search(self, items: Iterable[Found], by: str = "") -> list[Found]:
        """What matches, by name, or with the name of a metric the best first.

        Raises:
            InvalidInput: nothing that matches has a figure of this metric.
        """
        found = sorted((item for item in items if self.matches(item)), key=_name)
        return rank(found, by) if by else found


def rank(items: list[Found], by: str) -> list[Found]:
    """Sorts by a metric, the best first, equal figures by name, those without one last.

    Raises:
        InvalidInput: no item has such a figure, or they disagree about which end is the better.
    """
    figures = {_name(item): figure(item, by) for item in items}
    known = [metric for metric in figures.values() if metric is not None]
    if items and not known:
        names = sorted({metric.name for item in items for metric in item.metrics})
        raise InvalidInput(
            f"nothing that was found has the metric {by!r}",
            f"rank by one of: {', '.join(names)}" if names else "leave out the ranking",
        )
    directions = {metric.higher_is_better for metric in known}
    if len(directions) > 1:
        raise InvalidInput(
            f"for some models a higher {by} is better, for others a lower one",
            "compare them one by one; a card is probably wrong",
        )
    sign = -1 if True in directions else 1

    def key(item: Found) -> tuple[bool, float, str]:
        metric = figures[_name(item)]
        return metric is None, sign * metric.value if metric else 0.0, _name(item)

    return sorted(items, key=key)


def figure(item: Entry | ModelCard, by: str) -> Metric | None:
    """The figure of a metric; the first one, where there are several of this name."""
    return next((m for m in item.metrics if m.name.casefold() == by.casefold()), None)


def incomparable(figures: Iterable[Metric | None]) -> str:
    """Why figures of one metric must not be compared, as in "extractor differs"; "" if they may."""
    known = [metric for metric in figures if metric is not None]
    if len(known) < 2:
        return ""
    compared: dict[str, set[str | int | None]] = {
        "extractor": {metric.extractor for metric in known},
        "normalisation": {metric.normalisation for metric in known},
        "n": {metric.n for metric in known},
    }
    reasons = [
        f"{name} differs" if len(values) > 1 else f"{name} is not known"
        for name, values in compared.items()
        if len(values) > 1 or not any(values)
    ]
    return ", ".join(reasons)


def size(item: Entry | ModelCard) -> tuple[int, int] | None:
    """Height and width of the image; of a free size that which sources are resized to, if any."""
    height, width = next(o.shape[:2] for o in item.outputs if o.name == "image")
    if height > 0 and width > 0:
        return height, width
    preparation = getattr(item, "preparation", None)
    return preparation.size if preparation is not None and preparation.size else None


def _name(item: Entry | ModelCard) -> str:
    return item.id if isinstance(item, Entry) else item.name


def _text(item: Entry | ModelCard) -> str:
    origin = "" if isinstance(item, Entry) else item.catalogue_id
    return " ".join(
        (_name(item), origin, item.title, item.description, item.modality, item.organ,
         *item.generates, *item.tags, item.training_dataset, item.family)
    )  # fmt: skip


def _has(wanted: str, text: str) -> bool:
    words = _words(text) | _words(text.replace("-", ""))  # "x-ray" is also found as "xray"
    return all(any(word.startswith(start) for word in words) for start in _words(wanted))


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", text.casefold()))


def _fits(wanted: str, there: tuple[int, int] | None) -> bool:
    match = SIZE.fullmatch(wanted.strip())
    if match is None:
        return True
    if there is None:
        return False
    sign, height, width = match.groups()
    bounds = (int(height), int(width or height))
    return all(COMPARE[sign](side, bound) for side, bound in zip(there, bounds, strict=True))
