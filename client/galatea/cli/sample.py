"""``galatea sample``."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from galatea.cli._options import (
    Connection,
    Settings,
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
@click.option("--prompt", metavar="TEXT", help="What the images show, for models that take texts.")
@click.option("--negative-prompt", metavar="TEXT", help="What they do not show.")
@click.option("--steps", type=int, help="Denoising steps of a diffusion model.")
@settings_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("samples"), show_default=True,
    help="Folder for the files.",
)  # fmt: skip
@click.option(
    "--previews", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Show there the images of a diffusion model on their way, each in its last state.",
)  # fmt: skip
@server_options
@output_options
def sample(
    name: str,
    n: int,
    seed: int | None,
    label: str | None,
    prompt: str | None,
    negative_prompt: str | None,
    steps: int | None,
    settings: Settings,
    output: Path,
    previews: Path | None,
    connection: Connection,
) -> None:
    """Sample N images of the generator NAME into a folder of PNG files.

    Each file tells where it comes from in its text chunks. The same seed gives the same images.
    Where PNG cannot hold what the model makes, it is written as .npy with a .json beside it.
    """
    named = {"label": label, "prompt": prompt, "negative_prompt": negative_prompt, "steps": steps}
    given = {key: value for key, value in named.items() if value is not None}
    conditions: dict[str, Any] = {**settings, **given}
    start = time.perf_counter()
    first = last = None
    with connection.open() as client, progress(n, name) as bar:
        stepwise = client.model(name).steps is not None
        batches = client.stream(
            name, n, seed=seed, previews=previews is not None,
            on_step=_shown_by(bar, name) if stepwise else None, **conditions,
        )  # fmt: skip
        for batch in batches:
            if batch.progress is not None and previews is not None:
                batch.save(previews)
                continue
            batch.save(output)
            first = int(batch.seeds[0]) if first is None else first
            last = int(batch.seeds[-1])
            if not stepwise:
                bar.advance(bar.tasks[0].id, len(batch))
    seconds = time.perf_counter() - start
    card = batch.card
    report = {
        "model": card.name,
        "version": card.version,
        "n": n,
        "seeds": [first, last],
        "folder": str(output),
        "seconds": round(seconds, 3),
        "images_per_second": round(n / seconds, 1),
    }
    options = [f"--{key.replace('_', '-')} {shlex.quote(str(given[key]))}" for key in given]
    options += [f"--set {shlex.quote(f'{key}={value}')}" for key, value in settings.items()]
    again = " ".join([f"galatea sample {name} -n {n} --seed {first}", *options])
    emit(
        report,
        lambda: click.echo(
            f"{n} images of {name} version {card.version} in {output}, seeds {first}–{last}, "
            f"in {seconds:.1f} s\nagain: {again}"
        ),
    )


def _shown_by(bar: Any, name: str) -> Callable[[int, int], None]:
    """Shows on a progress bar how many calls of the network were made."""

    def show(calls: int, of: int) -> None:
        bar.update(bar.tasks[0].id, completed=calls, total=of, description=f"{name}, model calls")

    return show
