"""``galatea dataset``: look into data sets, check them, join them, make them again."""

from __future__ import annotations

import time

import click

from galatea import datasets
from galatea.cli._options import Connection, server_options
from galatea.cli._output import emit, output_options, progress, say
from galatea.cli.discover import print_rows
from galatea.cli.generate import batch_size_option, output_option, report, shown_by
from galatea.datasets import Manifest, Status
from galatea.errors import InvalidInput

TOLD = 10  # problems in one message, prompts in a table


@click.group()
def dataset() -> None:
    """Show, verify, merge and regenerate data sets that galatea generate made."""


@dataset.command()
@click.argument("place", metavar="DIR|URL")
@output_options
def info(place: str) -> None:
    """Show what a data set is made of and how far it is."""
    status = datasets.info(place)
    card = status.job.card
    data = {
        **_facts(status),
        "licence": card.licence,
        "shards": status.job.shards,
        "missing": list(status.missing),
        "complete": status.manifest is not None,
        "classes": status.manifest.classes if status.manifest else None,
        "bytes": status.manifest.size if status.manifest else None,
        "encoders": status.job.encoders,
    }
    emit(data, lambda: _print(status))


@dataset.command()
@click.argument("place", metavar="DIR|URL")
@output_options
def verify(place: str) -> None:
    """Compare every file with what was written; exit code 5 if anything differs."""
    problems = datasets.verify(place)
    if problems:
        more = f"; and {len(problems) - TOLD} more" if problems[TOLD:] else ""
        raise InvalidInput(
            f"{place}: {'; '.join(problems[:TOLD])}{more}",
            "remove what was changed and run the same galatea generate again: it makes what is "
            "missing",
        )
    status = datasets.info(place)
    emit(
        {**_facts(status), "shards": status.job.shards, "problems": []},
        lambda: click.echo(
            f"{place}: {status.job.n} images in {status.job.shards} shards, all files as written"
        ),
    )


@dataset.command()
@click.argument("output", metavar="OUT")
@click.argument("parts", metavar="[IN]...", nargs=-1)
@output_options
def merge(output: str, parts: tuple[str, ...]) -> None:
    """Join the parts that workers made with galatea generate --shard.

    Where all of them wrote into OUT, name OUT alone; shards from other places are copied there.
    Exit code 5 if shards are missing.
    """
    manifest = datasets.merge(output, *parts)
    emit(_totals(manifest, output), lambda: _print_totals(manifest, output))


@dataset.command()
@click.argument("manifest", metavar="DATASET.JSON")
@output_option
@batch_size_option
@server_options
@output_options
def regenerate(manifest: str, output: str, batch_size: int | None, connection: Connection) -> None:
    """Make the identical data set from its manifest alone, and compare the two.

    Exit code 4 if another model is served, 5 if any image came out otherwise.
    """
    start = time.perf_counter()
    name = datasets.read_manifest(manifest).job.card.name
    with connection.open() as client, progress(None, name) as bar:
        done = datasets.regenerate(
            client, manifest, output, batch_size=batch_size, progress=shown_by(bar, name)
        )
    seconds = time.perf_counter() - start
    shards = done.outcome.job.shards
    others = f" ({', '.join(done.other_encoders)})" if done.other_encoders else ""
    if done.other_samples:
        raise InvalidInput(
            f"{output}: the images of {len(done.other_samples)} of {shards} shards are not those "
            f"of {manifest}, the first in shard {done.other_samples[0]}",
            "serve the model with the same build of the runtime on the same kind of processor",
        )
    if done.other_files:
        say(
            f"the images are the same, the files of {len(done.other_files)} of {shards} shards are "
            f"not: their encoders have other versions{others}"
        )
    data = {
        **report(done.outcome, output, seconds),
        "identical": done.identical,
        "other_files": list(done.other_files),
        "other_encoders": list(done.other_encoders),
    }
    what = "files" if done.identical else "images"
    emit(data, lambda: click.echo(f"{output}: the same {what} as in {manifest}, {shards} shards"))


def _facts(status: Status) -> dict[str, object]:
    job = status.job
    return {
        "dataset": job.digest,
        "model": job.card.name,
        "version": job.card.version,
        "weights": f"sha256:{job.card.checkpoint_sha256}",
        "n": job.n,
        "samples": status.samples,
        "seed": job.seed,
        "conditions": job.conditions,
        "prompts": [row.told() for row in job.prompts],
        "format": job.format,
    }


def _totals(manifest: Manifest, place: str) -> dict[str, object]:
    return {
        "dataset": manifest.job.digest,
        "output": place,
        "n": manifest.job.n,
        "shards": manifest.job.shards,
        "classes": manifest.classes,
        "bytes": manifest.size,
    }


def _print_totals(manifest: Manifest, place: str) -> None:
    click.echo(
        f"{place}: {manifest.job.n} images in {manifest.job.shards} shards, "
        f"{manifest.size / 1e6:.1f} MB"
    )


def _told(prompt: str, n: int, **conditions: object) -> str:
    more = ", ".join(f"{name} {value}" for name, value in conditions.items() if value is not None)
    return f"{n} × {prompt!r}{f' ({more})' if more else ''}"


def _print(status: Status) -> None:
    job, manifest = status.job, status.manifest
    classes = manifest.classes if manifest else {}
    missing = f"; {len(status.missing)} shards are missing" if status.missing else ""
    print_rows(
        [
            ("data set", job.digest),
            ("model", f"{job.card.name} version {job.card.version}"),
            ("weights", f"sha256:{job.card.checkpoint_sha256}"),
            ("licence", job.card.licence),
            ("seeds", f"{job.seed}–{job.seed + job.n - 1}"),
            *((name, str(value)[:200]) for name, value in job.conditions.items()),
            *(("prompt", _told(**row.told())) for row in job.prompts[:TOLD]),
            *(("", f"and {more} more prompts") for more in [len(job.prompts) - TOLD] if more > 0),
            ("format", f"{job.format}, {job.shards} shards of {job.shard_size}"),
            ("encoders", ", ".join(f"{name} {v}" for name, v in job.encoders.items())),
            ("images", f"{status.samples} of {job.n}{missing}"),
            ("classes", ", ".join(f"{n} {name}" for name, n in classes.items())),
            ("bytes", f"{manifest.size:,}" if manifest else ""),
            ("complete", "yes" if manifest else "no"),
        ]
    )  # fmt: skip
