"""``galatea evaluate``: compare synthetic images with real ones."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from galatea.cli._evaluating import (
    RULES,
    feature_options,
    features,
    is_path,
    path_type,
    show_memorised,
    stepping,
    typed,
)
from galatea.cli._options import (
    Connection,
    Settings,
    complete_model,
    label_option,
    server_options,
    settings_option,
)
from galatea.cli._output import emit, output_options, progress, table
from galatea.cli._utility import utility
from galatea.extras import needs_extra

if TYPE_CHECKING:
    from galatea.client import Client
    from galatea.evaluation import Report, Row, Source


@click.group()
def evaluate() -> None:
    """Compare synthetic images with real ones, and reports with each other."""


evaluate.add_command(utility)


@evaluate.command()
@click.argument("name", metavar="NAME|PATH", shell_complete=complete_model)
@click.option(
    "--real", type=path_type, required=True, help="Folder, file or data set with real images."
)
@click.option(
    "--extractor", "extractors", multiple=True, required=True, metavar="NAME",
    help="Served feature extractor; again for further ones.",
)  # fmt: skip
@click.option(
    "--intensity", "intensities", multiple=True, required=True, metavar="RULE",
    help=f"How pixels become levels: {RULES}; again for further ones.",
)  # fmt: skip
@click.option(
    "-n", "n", type=click.IntRange(1), default=1000, show_default=True,
    help="Images of a served model.",
)  # fmt: skip
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the first of these images."
)
@label_option
@settings_option
@feature_options
@click.option(
    "--axis", type=click.Choice(["axial", "coronal", "sagittal"]), default="axial",
    show_default=True, help="Of NIfTI volumes, the slices to take.",
)  # fmt: skip
@click.option(
    "--neighbours", type=int, default=5, show_default=True,
    help="Neighbours of precision, recall, density and coverage.",
)  # fmt: skip
@click.option(
    "--repeats", type=int, default=10, show_default=True,
    help="Halves of the images that errors are made of.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=path_type, default=Path("evaluation"), show_default=True,
    help="Folder for report.html and report.json.",
)  # fmt: skip
@server_options
@output_options
def run(
    name: str,
    real: Path,
    extractors: tuple[str, ...],
    intensities: tuple[str, ...],
    n: int,
    seed: int,
    label: str | None,
    settings: Settings,
    train: Path | None,
    heldout: Path | None,
    axis: str,
    neighbours: int,
    repeats: int,
    cache: Path | None,
    no_cache: bool,
    output: Path,
    connection: Connection,
) -> None:
    """Evaluate the served generator NAME, or the images of PATH, against real images.

    What has a slash is a PATH. Every distance is told with its error and its floor, which is real
    images against real ones. With --train and --heldout each image is judged for memorisation.
    """
    with needs_extra("eval"):
        importlib.import_module("matplotlib")  # told before hours of work, not after them
    from galatea.evaluation import Intensity, open_source, write
    from galatea.evaluation import evaluate as run_evaluation

    rules = [Intensity.parse(text) for text in intensities]  # so is a mistake in these
    conditions = {**settings, **({"label": label} if label is not None else {})}
    with connection.open() as client, progress(None, name) as bar:
        show = stepping(bar)
        done = run_evaluation(
            client,
            _synthetic(client, name, n, seed, conditions, axis),
            open_source(real, axis),
            extractors=extractors,
            intensities=rules,
            train=open_source(train, axis) if train else None,
            heldout=open_source(heldout, axis) if heldout else None,
            neighbours=neighbours,
            repeats=repeats,
            seed=seed,
            cache=features(cache, no_cache),
            command=typed(),
            progress=show,
        )
        show("writing the report", 0)
        paths = write(done, output)
    report = done.report

    def human() -> None:
        _print([(report, row) for row in report.rows])
        for verdict in report.memorisation:
            show_memorised(verdict)
        click.echo(f"report: {paths[0]}")

    emit({**_plain(report), "files": [str(path) for path in paths]}, human)


@evaluate.command()
@click.argument("reports", nargs=-1, required=True, type=path_type, metavar="REPORT...")
@output_options
def compare(reports: tuple[Path, ...]) -> None:
    """Show several reports in one table; exit code 5 if they cannot be compared.

    REPORT is report.json, or the folder with it. Reports that differ in the real images, the number
    of images, the extractors or the intensities say nothing about each other.
    """
    from galatea.evaluation import Report
    from galatea.evaluation import compare as run_comparison

    found = run_comparison([Report.read(path) for path in reports])
    rows = [pair for pairs in found.values() for pair in pairs]
    data = [{"title": report.title, **_row_plain(row)} for report, row in rows]
    emit(data, lambda: _print(rows))


def _synthetic(
    client: Client, place: str, n: int, seed: int, conditions: dict[str, Any], axis: str
) -> Source:
    from galatea.evaluation import Served, open_source

    if is_path(place):
        return open_source(place, axis)
    return Served(client, place, n, seed, **conditions)


def _print(rows: Sequence[tuple[Report, Row]]) -> None:
    names = ("KID", "FD", "precision", "recall", "density", "coverage", "IS")
    some = [name for name in names if any(row.figure(name) for _, row in rows)]
    table(
        ("IMAGES", "EXTRACTOR", "INTENSITY", "CLASS", "N", *(name.upper() for name in some),
         "FLOOR OF KID", "FLOOR OF FD", "FD THERE"),
        (
            (
                report.title, row.extractor, row.intensity, row.label or "all",
                f"{row.n_synthetic}/{row.n_real}",
                *(_cell(row, name) for name in some), *_floors(row),
            )
            for report, row in rows
        ),
    )  # fmt: skip


def _cell(row: Row, name: str) -> str:
    figure = row.figure(name)
    if figure is None:
        return ""
    error = "" if figure.error is None else f" ± {figure.error:.2g}"
    return f"{figure.value:.4g}{error}"


def _floors(row: Row) -> tuple[str, str, str]:
    kernel, frechet = row.figure("KID"), row.figure("FD")
    assert kernel is not None
    assert frechet is not None
    there = f"n = {row.floor_n}"
    return (
        f"{kernel.floor:.3g}", f"{frechet.floor:.4g} ({there})", f"{frechet.at_floor:.4g} ({there})"
    )  # fmt: skip


def _plain(report: Report) -> dict[str, Any]:
    """A report as JSON types, each row with its headline and its ratio."""
    plain: dict[str, Any] = json.loads(report.to_json())
    return {**plain, "rows": [_row_plain(row) for row in report.rows]}


def _row_plain(row: Row) -> dict[str, Any]:
    frechet = row.figure("FD")
    ratio = None if frechet is None else frechet.ratio
    return {**asdict(row), "headline": row.headline, "real_real_ratio": ratio}
