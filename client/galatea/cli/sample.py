"""``galatea sample``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from galatea.cli._options import (
    Connection,
    complete_model,
    label_option,
    seed_option,
    server_options,
    settings_option,
)
from galatea.cli._output import emit, output_options, progress


@click.command()
@click.argument("name", shell_complete=complete_model)
@click.option("-n", "n", type=int, default=1, show_default=True, help="Number of images.")
@seed_option
@label_option
@settings_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("samples"), show_default=True,
    help="Folder for the files.",
)  # fmt: skip
@server_options
@output_options
def sample(
    name: str,
    n: int,
    seed: int | None,
    label: str | None,
    settings: dict[str, float],
    output: Path,
    connection: Connection,
) -> None:
    """Sample N images of the generator NAME into a folder of PNG files.

    Each file tells where it comes from in its text chunks. The same seed gives the same images.
    Where PNG cannot hold what the model makes, it is written as .npy with a .json beside it.
    """
    conditions: dict[str, Any] = {"label": label, **settings}
    start = time.perf_counter()
    first = last = None
    with connection.open() as client, progress(n, name) as bar:
        for batch in client.stream(name, n, seed=seed, **conditions):
            batch.save(output)
            first = int(batch.seeds[0]) if first is None else first
            last = int(batch.seeds[-1])
            bar.advance(bar.tasks[0].id, len(batch))
    seconds = time.perf_counter() - start
    report = {
        "model": batch.card.name,
        "version": batch.card.version,
        "n": n,
        "seeds": [first, last],
        "folder": str(output),
        "seconds": round(seconds, 3),
        "images_per_second": round(n / seconds, 1),
    }
    emit(
        report,
        lambda: click.echo(
            f"{n} images of {name} version {batch.card.version} in {output}, "
            f"seeds {first}–{last}, {n / seconds:.0f} images/s\n"
            f"again: galatea sample {name} -n {n} --seed {first}"
            + (f" --label {label}" if label else "")
        ),
    )
