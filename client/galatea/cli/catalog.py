"""``galatea catalog``: look through the known generators."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from typing import Any

import click

from galatea.catalogue import Entry, entries, find
from galatea.cli._output import emit, output_options, say, table
from galatea.cli._search import rank_cells, rank_columns, search_options, warn_of_mixture
from galatea.cli.discover import input_row, metric_row, output_row, print_rows
from galatea.search import Query, size

FAMILIES = "galatea_exporter.families"  # a family is a file of its name in there


def complete_entry(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the catalogue for shell completion."""
    return [name for name in entries() if name.casefold().startswith(incomplete.casefold())]


@click.command()
@search_options
@click.option("--show", metavar="ID", shell_complete=complete_entry,
              help="Show all of one entry; the beginning of its id is enough.")  # fmt: skip
@output_options
def catalog(words: tuple[str, ...], show: str | None, rank: str, **filters: str) -> None:
    """List known generators, or those that match WORDS and filters.

    A word matches the beginning of a word in an entry's texts; all of them must match.
    """
    if show is not None:
        entry = find(show)
        emit(_plain(entry), lambda: _print(entry))
        return
    found = Query(words=" ".join(words), **filters).search(entries().values(), rank)

    def human() -> None:
        table(
            (*rank_columns(rank), "ID", "TASK", "SIZE", "MODALITY", "ORGAN", "LICENCE", "EXPORT",
             "TITLE"),
            (
                (*rank_cells(entry, rank), entry.id, entry.task, _size(entry), entry.modality,
                 entry.organ, entry.licence, _status(entry)[0], entry.title)
                for entry in found
            ),
        )  # fmt: skip
        if not found:
            say("nothing in the catalogue matches; leave out a word or a filter")

    warn_of_mixture(found, rank)
    emit([_plain(entry) for entry in found], human)


def _status(entry: Entry) -> tuple[str, str]:
    """Whether this galatea can export an entry, in one word and in a sentence."""
    if entry.unsupported:
        return "no", f"cannot be exported: {entry.unsupported}; {entry.instead}"
    if importlib.util.find_spec(f"{FAMILIES}.{entry.family}") is None:
        return "not yet", f"this galatea has no family {entry.family}"
    if entry.weights.url:
        return "yes", f"run: galatea import {entry.id}"
    return "yes", f"get the weights from {entry.weights.page}, then: " + (
        f"galatea import {entry.id} --from FILE"
    )


def _plain(entry: Entry) -> dict[str, Any]:
    short, sentence = _status(entry)
    return {**asdict(entry), "export": short, "export_how": sentence}


def _size(entry: Entry) -> str:
    return "×".join(map(str, size(entry) or ("?",)))


def _print(entry: Entry) -> None:
    weights = entry.weights
    members = weights.member_names()
    span = f"{members[0]} … {members[-1]}" if len(members) > 9 else ", ".join(members)
    print_rows(
        [
            ("id", entry.id),
            ("title", entry.title),
            ("description", entry.description),
            ("family", f"{entry.family or 'none'} ({entry.task})"),
            ("configuration", ", ".join(f"{k} = {v}" for k, v in entry.configuration.items())),
            ("modality", entry.modality),
            ("organ", entry.organ),
            ("generates", ", ".join(entry.generates)),
            ("tags", ", ".join(entry.tags)),
            *map(output_row, entry.outputs),
            *map(input_row, entry.conditions),
            ("training data", entry.training_dataset),
            ("licence", entry.licence),
            ("terms", entry.terms),
            ("doi", entry.doi),
            ("citation", entry.citation),
            ("year", str(entry.year or "")),
            ("source", entry.source),
            ("weights", weights.url or weights.page),
            ("files", ", ".join(weights.files)),
            ("members", span),
            *map(metric_row, entry.metrics),
            *[("note", note) for note in entry.notes],
            ("export", _status(entry)[1]),
        ]
    )
