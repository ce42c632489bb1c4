"""The search that ``galatea catalog`` and ``galatea models`` share: options and ranked tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from galatea.card import ModelCard
from galatea.catalogue import Entry, entries
from galatea.cli._output import say
from galatea.search import TASKS, figure, incomparable

F = TypeVar("F", bound=Callable[..., Any])


def _complete_family(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Families of the catalogue for shell completion."""
    families = {entry.family for entry in entries().values()}
    return sorted(family for family in families if family and family.startswith(incomplete))


def search_options(command: F) -> F:
    """Adds the argument WORDS, the filters and ``--rank``; names are those of ``Query``."""
    for decorate in (
        click.argument("words", nargs=-1),
        click.option("--modality", default="", help="Words of the modality, e.g. MRI."),
        click.option("--organ", default="", help="Words of the organ, e.g. brain."),
        click.option("--task", type=click.Choice(TASKS), callback=lambda _, __, task: task or "",
                     help="What the generator starts from."),
        click.option("--family", default="", shell_complete=_complete_family,
                     help="Words of the family, e.g. cyclegan."),
        click.option("--licence", default="", help="Words of the licence, e.g. MIT."),
        click.option("--size", default="", help="256, 256x192 or a comparison, e.g. '>=512'."),
        click.option("--rank", default="", metavar="METRIC",
                     help="Sort by a metric, the best first, e.g. FID."),
    )[::-1]:  # fmt: skip
        command = decorate(command)
    return command


def rank_columns(by: str) -> tuple[str, ...]:
    """Headings of what :func:`rank_cells` gives; none without a ranking."""
    return (by.upper(), "EXTRACTOR", "NORMALISATION", "N") if by else ()


def rank_cells(item: Entry | ModelCard, by: str) -> tuple[object, ...]:
    """The figure that an item is ranked by, and what it is comparable by."""
    if not by:
        return ()
    metric = figure(item, by)
    if metric is None:
        return ("–", "", "", "")
    unknown = "unknown"
    return (
        f"{metric.value:g}",
        metric.extractor or unknown,
        metric.normalisation or unknown,
        metric.n or unknown,
    )


def warn_of_mixture(items: Sequence[Entry | ModelCard], by: str) -> None:
    """Says on stderr when a ranking compares what is not comparable."""
    why = incomparable(figure(item, by) for item in items) if by else ""
    if why:
        say(f"warning: these figures of {by} are not strictly comparable: {why}")
