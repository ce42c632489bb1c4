"""``galatea generate``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from galatea import datasets
from galatea.cli._complete import complete_label
from galatea.cli._options import (
    Connection,
    Settings,
    complete_model,
    seed_option,
    server_options,
    settings_option,
)
from galatea.cli._output import emit, output_options, progress
from galatea.datasets import Outcome

Labels = str | list[str] | dict[str, float]

output_option = click.option(
    "-o", "--output", required=True, metavar="DIR|URL",
    help="Folder or object store, such as s3://bucket/prefix.",
)  # fmt: skip
batch_size_option = click.option(
    "--batch-size", type=int, help="Images a request; default is what suits the model."
)


class LabelPlan(click.ParamType[Labels]):
    """``CLASS``, ``balanced``, ``CLASS=WEIGHT,…`` or ``@FILE`` with a class a line."""

    name = "labels"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> Labels:
        """The labels that the text means."""
        if value.startswith("@"):
            try:
                lines = Path(value[1:]).read_text("utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                self.fail(f"{value[1:]} cannot be read: {error}", param, ctx)
            return [line.strip() for line in lines if line.strip()]
        if "=" not in value:
            return value
        weights: dict[str, float] = {}
        for entry in value.split(","):
            label, _, weight = entry.rpartition("=")
            try:
                weights[label.strip()] = int(weight) if weight.isdecimal() else float(weight)
            except ValueError:
                self.fail(f"{entry!r} is no CLASS=WEIGHT", param, ctx)
        return weights


class ShardPart(click.ParamType[tuple[int, int]]):
    """``i/N``, counted from 0."""

    name = "shard"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """The part that the text means."""
        if isinstance(value, tuple):
            return value
        part, _, parts = value.partition("/")
        if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
            self.fail(f"{value!r} is no part: write i/N, with i from 0 to N - 1", param, ctx)
        return int(part), int(parts)


@click.command()
@click.argument("name", shell_complete=complete_model)
@click.option("-n", "n", type=int, help="Number of images; not needed with --prompts.")
@click.option(
    "--prompts", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="CSV with a header, or JSON Lines: prompt, and where wanted n, label and conditions.",
)  # fmt: skip
@seed_option
@click.option(
    "--labels", type=LabelPlan(), metavar="PLAN", shell_complete=complete_label,
    help="A class, 'balanced' (the default), CLASS=WEIGHT,CLASS=WEIGHT…, or @FILE with a class for "
    "each image.",
)  # fmt: skip
@settings_option
@click.option(
    "--format", "form", type=click.Choice(list(datasets.FORMATS)), default="png",
    show_default=True, help="What the images are written as.",
)  # fmt: skip
@output_option
@click.option(
    "--shard", type=ShardPart(), default=(0, 1), metavar="i/N",
    help="Make only part i of N, counted from 0; then run: galatea dataset merge.",
)  # fmt: skip
@click.option(
    "--shard-size", type=int,
    help="Images that are written together; default 1000, or 16 MiB of pixels if that is less.",
)  # fmt: skip
@batch_size_option
@server_options
@output_options
def generate(
    name: str,
    n: int | None,
    prompts: Path | None,
    seed: int | None,
    labels: Labels | None,
    settings: Settings,
    form: str,
    output: str,
    shard: tuple[int, int],
    shard_size: int | None,
    batch_size: int | None,
    connection: Connection,
) -> None:
    """Make a data set of N images of the generator NAME, or of the images of a file of prompts.

    Interrupted at any moment, the same command goes on where it stopped, and the files become the
    same as if nothing had happened. A folder that holds something else is refused. Several workers
    share a data set with --shard, in one folder or in one each.
    """
    if n is None and prompts is None:
        raise click.UsageError("Give -n, or --prompts.")
    start = time.perf_counter()
    with connection.open() as client, progress(None, name) as bar:
        outcome = datasets.generate(
            client, name, n, output,
            prompts=prompts, seed=seed, labels=labels, format=form, shard=shard,
            shard_size=shard_size, batch_size=batch_size, progress=shown_by(bar, name), **settings,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    emit(report(outcome, output, seconds), lambda: tell(outcome, output, shard, seconds))


def shown_by(bar: Any, name: str) -> Callable[[int, int], None]:
    """Shows on a progress bar how many images there are and how many come each second."""
    start, first = time.perf_counter(), None

    def show(done: int, total: int) -> None:
        nonlocal start, first
        if first is None:
            start, first = time.perf_counter(), done
        seconds = time.perf_counter() - start
        rate = f" {(done - first) / seconds:.0f} images/s" if done > first else ""
        bar.update(bar.tasks[0].id, completed=done, total=total, description=name + rate)

    return show


def report(outcome: Outcome, output: str, seconds: float) -> dict[str, Any]:
    """What was done, for programs."""
    job = outcome.job
    return {
        "dataset": job.digest,
        "model": job.card.name,
        "version": job.card.version,
        "n": job.n,
        "seeds": [job.seed, job.seed + job.n - 1],
        "format": job.format,
        "shards": job.shards,
        "output": output,
        "made": outcome.made,
        "found": outcome.found,
        "complete": outcome.manifest is not None,
        "bytes": outcome.manifest.size if outcome.manifest else None,
        "seconds": round(seconds, 3),
        "images_per_second": round(outcome.made / seconds, 1),
    }


def tell(outcome: Outcome, output: str, shard: tuple[int, int], seconds: float) -> None:
    """What was done, for a person."""
    job = outcome.job
    there = f"; {outcome.found} were there already" if outcome.found else ""
    click.echo(
        f"{outcome.made} images of {job.card.name} version {job.card.version} made in {output}, "
        f"{outcome.made / seconds:.0f} images/s{there}"
    )
    if outcome.manifest is None:
        click.echo(
            f"this is part {shard[0]} of {shard[1]}, counted from 0; when all are there: "
            f"galatea dataset merge {output}"
        )
        return
    click.echo(
        f"complete: {job.n} images, seeds {job.seed}–{job.seed + job.n - 1}, {job.shards} shards, "
        f"{outcome.manifest.size / 1e6:.1f} MB\ncheck: galatea dataset verify {output}"
    )
