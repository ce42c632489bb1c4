"""``galatea tune``."""

from __future__ import annotations

import re
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from galatea.cli._complete import complete_release
from galatea.cli._options import Settings as Conditions
from galatea.cli._options import label_option, settings_option
from galatea.cli._output import emit, output_options, say, table
from galatea.cli.repo import repository_option
from galatea.errors import MachineError, RepositoryError
from galatea.local_variants import check_name, check_writable
from galatea.repository import find, verify

if TYPE_CHECKING:
    from galatea_server.tuning.result import Target, Tuned

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType[float]):
    """``90``, ``90s``, ``10m`` or ``1h`` as seconds."""

    name = "duration"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The seconds that the text means."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value)
        if found is None or not float(found[1]):
            self.fail(f"{value!r} is no time: write 90s, 10m or 1h", param, ctx)
        return float(found[1]) * UNITS[found[2]]


@click.command()
@click.argument("name", shell_complete=complete_release)
@repository_option
@click.option(
    "--target", type=click.Choice(["throughput", "latency"]), default="throughput",
    show_default=True, help="Images a second, or the p95 latency of one caller's one image.",
)  # fmt: skip
@click.option(
    "--budget", type=Duration(), default="10m", show_default=True, help="Time to take, about."
)
@click.option(
    "--variant", "variants", multiple=True,
    help="Variant to try; the first one is compared with. Default: all that this machine can run.",
)  # fmt: skip
@click.option("--batch", type=int, help="Images a request, in place of the target's.")
@click.option("--callers", type=int, help="Callers, in place of the target's.")
@label_option
@settings_option
@click.option(
    "--as", "called", default="tuned", show_default=True, help="Name of the variant to write."
)
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the points."
)
@click.option("--force", is_flag=True, help="Write the best even if it is no better.")
@click.option("--dry-run", is_flag=True, help="Measure and write nothing.")
@output_options
def tune(
    name: str,
    repository: Path,
    target: Target,
    budget: float,
    variants: tuple[str, ...],
    batch: int | None,
    callers: int | None,
    label: str | None,
    settings: Conditions,
    called: str,
    plot: Path | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Measure how the generator NAME is served best on this machine.

    Instances, threads, queue delay and variants are tried on the real server, each beside the
    configuration as it is released. What is better by more than the noise is written as a variant:
    galatea serve --model-config tuned.
    """
    from galatea_server.installation import locate
    from galatea_server.tuning import machine, search, writing

    locate()  # without a Triton there is nothing to measure
    if plot is not None and find_spec("matplotlib") is None:
        raise MachineError(
            "--plot needs the package 'matplotlib', which is not installed",
            "run: pip install 'galatea[eval]'",
        )
    release = find(repository, name)
    check_name(called, release.variants())
    if not dry_run:
        check_writable(repository, name, release.version)
    problems = verify(repository, name)
    if problems:
        raise RepositoryError(
            f"{repository}: {problems[0]}", f"see: galatea repo verify --repository {repository}"
        )
    conditions = {**settings, **({"label": label} if label else {})}
    begin = time.monotonic()

    def report(line: str) -> None:
        say(f"{time.monotonic() - begin:5.0f} s  {line}")

    tuning = search.Search(
        release, machine.runnable(release, variants),
        target=target, budget=budget, batch=batch, callers=callers, conditions=conditions,
        report=report,
    )  # fmt: skip
    try:
        tuning.run()
    except KeyboardInterrupt:
        _print(tuning.result(interrupted=True), called)
        raise
    outcome = tuning.result()
    try:
        if outcome.best is not None and (outcome.better or force) and not dry_run:
            outcome = writing.write(release, outcome, called)
    finally:  # what was measured is told even if it cannot be written
        _print(outcome, called)
    if plot is not None:
        from galatea_server.tuning.plot import draw

        draw(outcome, plot)


def _print(outcome: Tuned, called: str) -> None:
    def human() -> None:
        table(
            ("SETTINGS", "BATCH", "CALLERS", "IMAGES/S", "P50 MS", "P95 MS", "FRONTIER"),
            (
                (p.settings, p.batch, p.callers, p.images_per_second, p.p50_ms, p.p95_ms,
                 "*" if p.best else "")
                for p in outcome.points
            ),
        )  # fmt: skip
        for settings, reason in outcome.discarded:
            click.echo(f"discarded {settings}: {reason}")
        if outcome.untried:
            click.echo(f"not tried for want of time: {len(outcome.untried)} of the candidates")
        click.echo(_verdict(outcome))
        if outcome.written:
            click.echo(f"written: {', '.join(outcome.written)}")
            click.echo(f"try: galatea serve --model-config {called}")

    emit(outcome.to_dict(), human)


def _verdict(outcome: Tuned) -> str:
    if outcome.best is None:
        return "interrupted, nothing was written" if outcome.interrupted else (
            "no candidate can be used, nothing was written"
        )  # fmt: skip
    what = "images a second" if outcome.target == "throughput" else "1 / p95 latency"
    gain = f"{outcome.gain:.2f} ± {outcome.noise:.2f} × the baseline in {what}"
    if outcome.better:
        return f"best: {outcome.best}, {gain}"
    wrote = "" if outcome.written else "; nothing was written (--force writes it all the same)"
    return f"nothing beats the baseline by more than the noise: {outcome.best}, {gain}{wrote}"
