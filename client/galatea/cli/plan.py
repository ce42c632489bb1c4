"""``galatea plan``: what a large number of images takes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from galatea import datasets
from galatea.card import ModelCard
from galatea.cli import _load_report
from galatea.cli._options import (
    Connection,
    Settings,
    complete_model,
    label_option,
    server_options,
    settings_option,
)
from galatea.cli._output import emit, output_options, steps
from galatea.cli.discover import print_rows
from galatea.datasets.formats import Format, find_format
from galatea.errors import InvalidInput, MachineError
from galatea.load import closed_loop
from galatea.measured import Measured
from galatea.planning import Plan
from galatea.planning import plan as count
from galatea.samples import Samples

CALLERS, SECONDS = 4, 5.0  # of a measurement in passing
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@click.command()
@click.argument("name", shell_complete=complete_model)
@click.option("-n", "n", type=int, required=True, help="Number of images.")
@click.option("--gpus", type=int, help="GPUs to make them on.")
@click.option("--replicas", type=int, help="Servers to make them on; default 1.")
@click.option(
    "--rate", type=float, metavar="IMAGES/S",
    help="Images a second that are wanted; says how many servers that takes.",
)  # fmt: skip
@click.option(
    "--utilisation", type=float, default=1.0, show_default=True,
    help="Part of the time in which servers compute.",
)  # fmt: skip
@click.option("--price-per-hour", type=float, metavar="PRICE", help="Of one server.")
@click.option(
    "--format", "formats", multiple=True, type=click.Choice(list(datasets.FORMATS)),
    help="Of the data set; again for further ones. Default is png, or npz where that cannot hold "
    "the images.",
)  # fmt: skip
@click.option(
    "--sample", "sampled", type=click.IntRange(0), default=16, show_default=True,
    help="Images to encode, for the bytes on disk; 0 leaves these out.",
)  # fmt: skip
@click.option(
    "--bench", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Count with a report of galatea bench NAME --json.",
)  # fmt: skip
@click.option("--measure", is_flag=True, help=f"Count with {SECONDS:g} s of measuring now.")
@label_option
@click.option("--prompt", metavar="TEXT", help="What the images show, for models that take texts.")
@click.option("--steps", "denoising", type=int, help="Denoising steps of a diffusion model.")
@settings_option
@server_options
@output_options
def plan(
    name: str,
    n: int,
    gpus: int | None,
    replicas: int | None,
    rate: float | None,
    utilisation: float,
    price_per_hour: float | None,
    formats: tuple[str, ...],
    sampled: int,
    file: Path | None,
    measure: bool,
    label: str | None,
    prompt: str | None,
    denoising: int | None,
    settings: Settings,
    connection: Connection,
) -> None:
    """Count what N images of the generator NAME take: hours, bytes, money.

    The speed is what galatea tune has measured and left in the server's configuration, or that of
    --bench or --measure. Everything that the figures take for granted is printed with them.
    """
    if sum(given is not None for given in (gpus, replicas, rate)) > 1:
        raise click.UsageError("give one of --gpus, --replicas and --rate")
    if file is not None and measure:
        raise click.UsageError("give --bench or --measure")
    named = {"label": label, "prompt": prompt, "steps": denoising}
    given = {key: value for key, value in named.items() if value is not None}
    conditions: dict[str, Any] = {**settings, **given}
    with connection.open() as client, steps() as show:
        card = client.model(name)
        chosen = _formats(card, formats) if sampled else []
        if measure:
            show(f"measuring {name} for {SECONDS:g} s …")
            load = closed_loop(
                connection.open, name, callers=CALLERS, seconds=SECONDS, **conditions
            )
            figures = _load_report.measured(connection, [load])
        else:
            figures = client.measured(name) if file is None else _read(file)
        if figures is None:
            raise InvalidInput(
                f"nothing was measured of {name} as {connection.url} serves it",
                f"run: galatea tune {name}; or give --bench FILE, a report of "
                f"galatea bench {name} --json; or --measure",
            )
        samples: Samples | None = None
        if chosen:
            show(f"encoding {sampled} images …")
            samples = client.sample(name, sampled, seed=0, **conditions)
        made = count(
            card, figures, n, servers=replicas, gpus=gpus, rate=rate, utilisation=utilisation,
            price_per_hour=price_per_hour, samples=samples, formats=chosen,
        )  # fmt: skip
    emit(asdict(made), lambda: _show(made))


def _formats(card: ModelCard, names: tuple[str, ...]) -> list[Format]:
    """The formats to count; none of an image-to-image model, which makes no data sets.

    Raises:
        InvalidInput: one that cannot hold the images.
        MachineError: an extra is missing.
    """
    if card.source_picture is not None:
        if names:
            raise InvalidInput(
                f"{card.name} translates pictures, and a data set holds none of these",
                "leave --format out",
            )
        return []
    if names:
        chosen = [find_format(name) for name in names]
        for form in chosen:
            form.check(card)
        return chosen
    png, npz = find_format("png"), find_format("npz")
    try:
        png.check(card)
    except InvalidInput:
        return [npz]
    return [png]


def _read(path: Path) -> Measured:
    """The figures in a report of ``galatea bench --json``.

    Raises:
        InvalidInput: there are none.
        MachineError: the file cannot be read.
    """
    try:
        report = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise MachineError(
            f"{path}: cannot be read: {error.strerror}", "name a file that can be read"
        ) from error
    except ValueError as error:
        raise InvalidInput(
            f"{path}: no JSON: {error}", "write it with: galatea bench NAME --json > FILE"
        ) from error
    found = report.get("measured") if isinstance(report, dict) else None
    if found is None:
        raise InvalidInput(
            f"{path}: no figures of callers in a closed loop",
            "write it with: galatea bench NAME --callers 1:16 --json > FILE",
        )
    return Measured.from_dict(found)


def _show(made: Plan) -> None:
    measured = made.measured
    servers = f"{made.servers} server{'s' * (made.servers > 1)}"
    if measured.gpus:
        gpus = made.servers * measured.gpus
        servers += f" with {gpus} GPU{'s' * (gpus > 1)}"
    print_rows(
        [
            ("images", f"{made.n} of {made.model} version {made.version}"),
            ("servers", f"{servers}, {made.images_per_second:.5g} images/s"),
            ("time", _time(made.hours)),
            ("GPU-hours", _short(made.gpu_hours)),
            ("core-hours", _short(made.core_hours)),
            ("network", _size(made.wire_bytes)),
            *((f"disk, {name}", _size(size)) for name, size in made.disk_bytes.items()),
            ("cost", _short(made.cost)),
            *(("assumed", sentence) for sentence in made.assumptions),
        ]
    )


def _time(hours: float) -> str:
    return f"{hours:.3g} hours" if hours >= 1 else f"{hours * 60:.3g} minutes"


def _short(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.3g}" if figure < 100 else f"{figure:.0f}"


def _size(size: float) -> str:
    for unit in UNITS[:-1]:
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} {UNITS[-1]}"
