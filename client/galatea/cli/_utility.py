"""``galatea evaluate utility``: what synthetic images are worth in training."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
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
from galatea.cli._lists import Listed, Series
from galatea.cli._options import (
    Connection,
    Settings,
    complete_model,
    label_option,
    server_options,
    settings_option,
)
from galatea.cli._output import emit, output_options, progress, table
from galatea.extras import needs_extra

if TYPE_CHECKING:
    from galatea.client import Client
    from galatea.evaluation.utility import Cases, Design, Utility

Show = Callable[[str, int], None]


@click.command()
@click.argument("name", metavar="NAME|PATH", shell_complete=complete_model)
@click.option(
    "--real", type=path_type, required=True,
    help="cases.csv with the columns image, patient, label and mask, or the folder with it.",
)  # fmt: skip
@click.option(
    "--task", type=click.Choice(["classify", "segment"]), required=True,
    help="Balanced accuracy of classes, or Dice of masks.",
)  # fmt: skip
@click.option(
    "--intensity", required=True, metavar="RULE", help=f"How pixels become levels: {RULES}."
)
@click.option(
    "--arms", type=Listed(str), default="real,synthetic,both", show_default=True,
    help="What is trained with.",
)  # fmt: skip
@click.option(
    "--fractions", type=Series(float), default="0.1,1", show_default=True,
    help="Of the real patients to train with.",
)  # fmt: skip
@click.option(
    "--repeats", type=click.IntRange(1), default=3, show_default=True, help="Of each training."
)
@click.option(
    "--holdout", type=float, default=0.3, show_default=True,
    help="Share of the real patients to test with.",
)  # fmt: skip
@click.option(
    "-n", "n", type=click.IntRange(1), default=1000, show_default=True,
    help="Images of a served model.",
)  # fmt: skip
@click.option(
    "--seed", type=int, default=0, show_default=True,
    help="Seed of the first of these images, and of all that is drawn.",
)  # fmt: skip
@label_option
@settings_option
@click.option("--extractor", metavar="NAME", help="Served feature extractor, to classify by.")
@click.option(
    "--network", type=click.Choice(["unet", "swin"]), default="unet", show_default=True,
    help="To segment with.",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(1), default=300, show_default=True,
    help="Of the optimiser in each training of a network.",
)  # fmt: skip
@click.option(
    "--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Images a step."
)
@click.option(
    "--size", type=click.IntRange(8), metavar="PIXELS",
    help="Side that images are brought to; default is the size of the synthetic ones.",
)  # fmt: skip
@click.option(
    "--runner", metavar="COMMAND",
    help="Your own training, which is given a folder for each training of the study.",
)  # fmt: skip
@feature_options
@click.option(
    "-o", "--output", type=path_type, default=Path("utility"), show_default=True,
    help="Folder for report.json.",
)  # fmt: skip
@server_options
@output_options
def utility(
    name: str,
    real: Path,
    task: str,
    intensity: str,
    arms: tuple[str, ...],
    fractions: tuple[float, ...],
    repeats: int,
    holdout: float,
    n: int,
    seed: int,
    label: str | None,
    settings: Settings,
    extractor: str | None,
    network: str,
    steps: int,
    batch_size: int,
    size: int | None,
    runner: str | None,
    train: Path | None,
    heldout: Path | None,
    cache: Path | None,
    no_cache: bool,
    output: Path,
    connection: Connection,
) -> None:
    """Train with real images, with those of NAME or PATH, and with both; test with real patients.

    NAME is a served generator. What has a slash is a PATH: a data set of galatea generate, or a
    folder with cases.csv. The patients to test with are the same in all trainings and in none of
    them. Intervals of 95 % are over patients and repeats.
    """
    if runner is None:
        _check_extra(task)
    from galatea.evaluation import Extractor, Intensity, open_source
    from galatea.evaluation.utility import Design, from_table, study

    design = Design(
        task, Intensity.parse(intensity),
        arms=arms, fractions=fractions, repeats=repeats, holdout=holdout, seed=seed,
        network=network, steps=steps, batch_size=batch_size,
        size=None if size is None else (size, size), runner=runner,
    )  # fmt: skip
    conditions = {**settings, **({"label": label} if label is not None else {})}
    with connection.open() as client, progress(None, name) as bar:
        show = stepping(bar, lambda step: _trainings(design) if step == "trainings" else None)
        report = study(
            design,
            _synthetic(client, name, n, seed, conditions, show),
            from_table(real),
            extractor=Extractor(client, extractor) if extractor else None,
            train=open_source(train) if train else None,
            heldout=open_source(heldout) if heldout else None,
            cache=features(cache, no_cache),
            command=typed(),
            progress=show,
        )
        path = report.write(output)
    emit({**json.loads(report.to_json()), "files": [str(path)]}, lambda: _print(report, path))


def _check_extra(task: str) -> None:
    """Says that the extra is missing before hours of work, not after them."""
    with needs_extra("utility"):
        importlib.import_module("sklearn" if task == "classify" else "monai")


def _trainings(design: Design) -> int:
    arms = set(design.arms)
    fractions = len(set(design.fractions))
    return design.repeats * (("synthetic" in arms) + fractions * len(arms - {"synthetic"}))


def _synthetic(
    client: Client, place: str, n: int, seed: int, conditions: dict[str, Any], show: Show
) -> Cases:
    from galatea.evaluation.utility import from_data_set, from_model, from_table

    if is_path(place):
        path = Path(place)
        return from_data_set(path) if (path / "job.json").is_file() else from_table(path)
    return from_model(
        client, place, n, seed, progress=lambda done: show("synthetic images", done), **conditions
    )


def _print(report: Utility, path: Path) -> None:
    from galatea.evaluation.utility import COLUMNS, cells

    columns = tuple(report.measure.upper() if name == "SCORE" else name for name in COLUMNS)
    table(columns, cells(report))
    verdict = report.memorisation
    if verdict is not None:
        show_memorised(verdict)
    click.echo(f"report: {path}")
