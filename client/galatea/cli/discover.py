"""``galatea models`` and ``galatea show``."""

from __future__ import annotations

import click

from galatea.card import Input, ModelCard
from galatea.cli._options import complete_model, server_options
from galatea.cli._output import emit, json_option, say, table
from galatea.client import Client


@click.command()
@server_options
@json_option
def models(url: str, timeout: float) -> None:
    """List the generators that a server has ready."""
    with Client(url, timeout=timeout) as client:
        cards = client.models()

    def human() -> None:
        table(
            ("NAME", "VERSION", "TASK", "SIZE", "CLASSES", "MODALITY", "TITLE"),
            (
                (
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
        )
        if not cards:
            say(f"{url} serves no generators; export one with: galatea export")

    emit([card.to_dict() for card in cards], human)


@click.command()
@click.argument("name", shell_complete=complete_model)
@server_options
@json_option
def show(name: str, url: str, timeout: float) -> None:
    """Show the card of a generator."""
    with Client(url, timeout=timeout) as client:
        card = client.model(name)
    emit(card.to_dict(), lambda: print_card(card))


def print_card(card: ModelCard) -> None:
    """A card for a person, on stdout."""
    lines = [
        ("name", f"{card.name} version {card.version}"),
        ("title", card.title),
        ("description", card.description),
        ("family", f"{card.family} ({card.task})"),
        ("modality", card.modality),
        ("organ", card.organ),
        *[
            (f"output {output.name}",
             f"{output.dtype} {list(output.shape)}: {', '.join(output.channels)}")
            for output in card.outputs
        ],
        *[(f"input {entry.name}", _describe(entry)) for entry in card.inputs],
        ("training data", card.training_dataset),
        ("licence", card.licence),
        ("doi", card.doi),
        ("citation", card.citation),
        ("source", card.source),
        ("checkpoint", f"sha256:{card.checkpoint_sha256}"),
        *[
            (f"metric {metric.name}",
             f"{metric.value:g}"
             + (f" ({metric.extractor}, {metric.normalisation})" if metric.extractor else "")
             + (f", n = {metric.n}" if metric.n else ""))
            for metric in card.metrics
        ],
    ]  # fmt: skip
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
    width = max(len(key) for key, _ in lines)
    for key, value in lines:
        if value:
            click.echo(f"{click.style(key.ljust(width), dim=True)}  {value}")


def _describe(entry: Input) -> str:
    parts = [entry.dtype, entry.description]
    if entry.labels:
        parts.append(", ".join(f"{k} = {name}" for k, name in enumerate(entry.labels)))
    if entry.minimum is not None or entry.maximum is not None:
        parts.append(f"from {entry.minimum} to {entry.maximum}")
    if entry.default is not None:
        parts.append(f"default {entry.default}")
    return "; ".join(part for part in parts if part)
