"""``galatea bench``: load a server, and report what it gives and where the time goes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click

from galatea import pictures
from galatea.cli import _load_report
from galatea.cli._lists import Series
from galatea.cli._options import (
    Connection,
    Settings,
    complete_model,
    label_option,
    server_options,
    settings_option,
)
from galatea.cli._output import emit, output_options, say, steps
from galatea.errors import GalateaError
from galatea.load import Arrivals, Load, Timing, closed_loop, open_loop
from galatea.pictures import Picture

PICTURES = 256  # of a folder, that are translated in turn


@click.command()
@click.argument("name", shell_complete=complete_model)
@click.option(
    "--batch", type=Series(int), metavar="N|LIST",
    help="Images a request; a list such as 1,8,32 or a range such as 1:32, which doubles, measures "
    "each. Default is what the server takes, at most 32.",
)  # fmt: skip
@click.option(
    "--callers", type=Series(int), metavar="N|LIST", show_default="2",
    help="Concurrent callers, each with its next request when it has the answer; also a list.",
)  # fmt: skip
@click.option(
    "--rate", "rates", type=Series(float), metavar="R|LIST",
    help="Requests a second that arrive whatever the server does, in place of callers; also a "
    "list.",
)  # fmt: skip
@click.option(
    "--arrivals", type=click.Choice(["poisson", "constant"]), default="poisson", show_default=True,
    help="How requests of a rate arrive: by chance, or evenly.",
)  # fmt: skip
@click.option("--seconds", type=float, help="Measure so long, in place of windows.")
@click.option("--warmup", type=float, default=1.0, show_default=True, help="Seconds before that.")
@click.option(
    "--window", type=float, default=2.0, show_default=True,
    help="Seconds of a window; windows go on until the last three agree.",
)  # fmt: skip
@click.option("--windows", type=int, default=10, show_default=True, help="Windows at most.")
@click.option(
    "--stability", type=float, default=10.0, show_default=True, metavar="PERCENT",
    help="How far three windows that agree are from their mean.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the first image.")
@label_option
@click.option("--prompt", metavar="TEXT", help="What the images show, for models that take texts.")
@click.option("--negative-prompt", metavar="TEXT", help="What they do not show.")
@click.option("--steps", "denoising", type=int, help="Denoising steps of a diffusion model.")
@settings_option
@click.option(
    "--source", type=click.Path(path_type=Path), metavar="PATH",
    help="Picture or folder to translate, for image-to-image models; default is noise.",
)  # fmt: skip
@click.option(
    "--metrics-url", metavar="URL",
    help="Of the server's metrics, for its GPUs; default is port 8002 of its host.",
)  # fmt: skip
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write all figures there too, a line for each load.",
)  # fmt: skip
@server_options
@output_options
def bench(
    name: str,
    batch: tuple[int, ...] | None,
    callers: tuple[int, ...] | None,
    rates: tuple[float, ...] | None,
    arrivals: Arrivals,
    seconds: float | None,
    warmup: float,
    window: float,
    windows: int,
    stability: float,
    seed: int,
    label: str | None,
    prompt: str | None,
    negative_prompt: str | None,
    denoising: int | None,
    settings: Settings,
    source: Path | None,
    metrics_url: str | None,
    csv_file: Path | None,
    connection: Connection,
) -> None:
    """Measure throughput, latency, and where the time goes, of the generator NAME.

    Callers in a closed loop find what a server can give; a rate finds how long users wait who do
    not wait for each other. Interrupted, it prints what was measured until then.
    """
    if callers and rates:
        raise click.UsageError("give --callers or --rate")
    named = {"label": label, "prompt": prompt, "negative_prompt": negative_prompt,
             "steps": denoising}  # fmt: skip
    given = {key: value for key, value in named.items() if value is not None}
    conditions: dict[str, Any] = {**settings, **given}
    common: dict[str, Any] = {
        **conditions,
        "timing": Timing(seconds, warmup, window, stability / 100, windows),
        "seed": seed,
        "pictures": None if source is None else _pictures(source),
        "metrics_url": metrics_url,
    }
    loads: list[Load] = []
    kinds: list[tuple[str, Callable[..., Load]]] = [
        (f"rate {rate:g}/s", partial(open_loop, rate=rate, arrivals=arrivals))
        for rate in rates or ()
    ] or [(f"callers {count}", partial(closed_loop, callers=count)) for count in callers or (2,)]
    measures = [
        (
            what if images is None else f"{what}, batch {images}",
            partial(measure, connection.open, name, batch=images, **common),
        )
        for (what, measure), images in itertools.product(kinds, batch or (None,))
    ]

    def finish() -> None:
        if csv_file is not None:
            _load_report.write_csv(csv_file, loads)
            say(f"all figures are in {csv_file}")
        report = _load_report.to_dict(connection, loads, conditions)
        emit(report, partial(_load_report.show, loads))

    try:
        _sweep(measures, loads)
    except (KeyboardInterrupt, GalateaError):
        if loads:
            finish()
        raise
    finish()


class _Running:
    """A load that is measured now, as far as it is known, and what is told of it."""

    def __init__(self, what: str, show: Callable[[str], None]) -> None:
        self._what, self._show = what, show
        self.load: Load | None = None
        show(f"{what} …")

    def __call__(self, load: Load) -> None:
        """Takes in the newest figures, and tells them after each window."""
        if load.windows > (0 if self.load is None else self.load.windows):
            told = f"{load.images_per_second:g} images/s, p95 {load.p95_ms:g} ms"
            self._show(f"{self._what}, window {load.windows}: {told}")
        self.load = load


def _sweep(measures: Iterable[tuple[str, Callable[..., Load]]], loads: list[Load]) -> None:
    """Measures one load after the other; when it is interrupted, `loads` has what there is."""
    with steps() as show:
        for what, measure in measures:
            running = _Running(what, show)
            try:
                loads.append(measure(report=running))
            except (KeyboardInterrupt, GalateaError):
                loads += [running.load] if running.load is not None else []
                raise


def _pictures(source: Path) -> list[Picture]:
    return list(itertools.islice(pictures.read([source]), PICTURES))
