"""``galatea models`` and ``galatea show``."""

from __future__ import annotations

from collections.abc import Iterable

import click

from galatea.card import Input, Metric, ModelCard, Output
from galatea.cli._options import Connection, complete_model, server_options
from galatea.cli._output import emit, output_options, say, table
from galatea.cli._search import rank_cells, rank_columns, search_options, warn_of_mixture

Row = tuple[str, str]


@click.command()
@search_options
@server_options
@output_options
def models(words: tuple[str, ...], rank: str, connection: Connection, **filters: str) -> None:
    """List the generators that a server has ready, or those that match WORDS and filters.

    A word matches the beginning of a word in a card's texts; all of them must match.
    """
    with connection.open() as client:
        cards = client.search(" ".join(words), rank=rank, **filters)

    def human() -> None:
        table(
            (*rank_columns(rank), "NAME", "VERSION", "TASK", "SIZE", "CLASSES", "MODALITY",
             "TITLE"),
            (
                (
                    *rank_cells(card, rank),
                    card.name,
                    card.version,
                    card.task,
                    "×".join(map(str, card.image.shape)),
                    ", ".join(card.label.labels) if card.label else "",
                    card.modality,
                    card.title,
                )
                for card in cards
            ),
        )  # fmt: skip
        if not cards and (words or any(filters.values())):
            say(f"nothing that {connection.url} serves matches; leave out a word or a filter")
        elif not cards:
            say(f"{connection.url} serves no generators; export one with: galatea export")

    warn_of_mixture(cards, rank)
    emit([card.to_dict() for card in cards], human)


@click.command()
@click.argument("name", shell_complete=complete_model)
@server_options
@output_options
def show(name: str, connection: Connection) -> None:
    """Show the card of a generator."""
    with connection.open() as client:
        card = client.model(name)
    emit(card.to_dict(), lambda: print_card(card))


def print_card(card: ModelCard) -> None:
    """A card for a person, on stdout."""
    lines = [
        ("name", f"{card.name} version {card.version}"),
        ("title", card.title),
        ("description", card.description),
        ("intended use", card.intended_use),
        ("limitations", card.limitations),
        ("family", f"{card.family} ({card.task})"),
        ("modality", card.modality),
        ("organ", card.organ),
        ("generates", ", ".join(card.generates)),
        ("tags", ", ".join(card.tags)),
        *map(output_row, card.outputs),
        *map(input_row, card.inputs),
        ("training data", card.training_dataset),
        ("licence", card.licence),
        ("doi", card.doi),
        ("citation", card.citation),
        ("year", str(card.year or "")),
        ("catalogue", card.catalogue_id),
        ("source", card.source),
        ("checkpoint", f"sha256:{card.checkpoint_sha256}"),
        *map(metric_row, card.metrics),
    ]
    if card.parity is not None:
        parity = card.parity
        lines.append(
            (
                "parity",
                f"{parity.max_abs:.2g} of {parity.tolerance:.0e} in float, {parity.max_levels} "
                f"levels on {parity.share_differing:.2%} of uint8 values ({parity.runtime})",
            )
        )
    lines.append(("exporter", card.exporter))
    print_rows(lines)


def print_rows(rows: Iterable[Row]) -> None:
    """Names and values for a person, on stdout; without a value a row is left out."""
    lines = [row for row in rows if row[1]]
    width = max(len(key) for key, _ in lines)
    for key, value in lines:
        click.echo(f"{click.style(key.ljust(width), dim=True)}  {value}")


def output_row(output: Output) -> Row:
    """An output in a line."""
    shape = ", ".join("?" if size < 0 else str(size) for size in output.shape)
    channels = f": {', '.join(output.channels)}" if output.channels else ""
    return f"output {output.name}", f"{output.dtype} [{shape}]{channels}"


def metric_row(metric: Metric) -> Row:
    """A figure in a line, with what it is comparable by."""
    measured = ", ".join(
        part
        for part in (
            metric.extractor,
            metric.normalisation,
            f"n = {metric.n}" if metric.n else "",
            metric.source,
        )
        if part
    )
    direction = "higher" if metric.higher_is_better else "lower"
    return f"metric {metric.name}", f"{metric.value:g}, {direction} is better" + (
        f" ({measured})" if measured else ""
    )


def input_row(entry: Input) -> Row:
    """An input in a line."""
    return f"input {entry.name}", _describe(entry)


def _describe(entry: Input) -> str:
    parts = [entry.dtype, entry.description]
    if entry.labels:
        parts.append(", ".join(f"{k} = {name}" for k, name in enumerate(entry.labels)))
    if entry.minimum is not None or entry.maximum is not None:
        parts.append(f"from {entry.minimum} to {entry.maximum}")
    if entry.default is not None:
        parts.append(f"default {entry.default}")
    return "; ".join(part for part in parts if part)
