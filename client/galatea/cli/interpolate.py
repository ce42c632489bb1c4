"""``galatea interpolate``."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from galatea import _png
from galatea._files import write_atomically
from galatea.cli._complete import complete_label
from galatea.cli._drawing import Pixels, animation, headed, shared_facts, tiles
from galatea.cli._options import Connection, complete_model, server_options, settings_option
from galatea.cli._output import emit, output_options, progress
from galatea.errors import MachineError
from galatea.latents import Space, style_mixing, truncation_sweep, walk
from galatea.latents._latents import ranges
from galatea.samples import Samples

FRAMES, FPS = 24, 12.0
WALKS = {".gif", ".webp", ".png", ""}


class Numbers(click.ParamType[list[Any]]):
    """Numbers with commas between them, ``1,2,3``."""

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind, self.name = kind, "numbers"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Any]:
        """The numbers that the text means."""
        try:
            return [self.kind(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r}: write numbers with commas between them", param, ctx)


class Layers(click.ParamType[list[int]]):
    """Numbers and ranges, both ends included: ``4-9,12``."""

    name = "layers"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """The layers that the text means."""
        layers: list[int] = []
        try:
            for part in value.split(","):
                first, dash, last = part.partition("-")
                found = range(int(first), int(last if dash else first) + 1)
                layers += found if found else self.fail(f"{part!r} is empty", param, ctx)
        except ValueError:
            self.fail(f"{value!r} is no range of layers: write K or FROM-TO", param, ctx)
        return layers


@click.command()
@click.argument("name", shell_complete=complete_model)
@click.option(
    "--seeds", type=Numbers(int), required=True, metavar="A,B,…", help="The seeds, in their order."
)
@click.option(
    "--frames", type=click.IntRange(2), help=f"Images of the whole walk; default {FRAMES}."
)
@click.option("--closed", is_flag=True, help="Lead back to the first seed.")
@click.option(
    "--space", type=click.Choice(["z", "w"]),
    help="Go along arcs between latents (z, the default), or straight between styles (w).",
)  # fmt: skip
@click.option(
    "--fps", type=click.FloatRange(0, 100, min_open=True),
    help=f"Frames a second of an animation; default {FPS:g}.",
)  # fmt: skip
@click.option(
    "--truncation", "truncations", type=Numbers(float), metavar="X,Y,…",
    help="Instead of a walk: a sheet of each seed under these truncations.",
)  # fmt: skip
@click.option(
    "--mix-layers", "layers", type=Layers(), metavar="FROM-TO",
    help="Instead of a walk: a sheet of each seed with these layers' styles from each other.",
)  # fmt: skip
@click.option(
    "--label", shell_complete=complete_label,
    help="Class by name or number, with --space w also one for each seed, by commas; default: of a "
    "walk the first class, of a sheet the classes in turn.",
)  # fmt: skip
@settings_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="A .gif or .webp animation, a .png sheet, or a folder for PNG files; default walk.gif, of "
    "a sheet sheet.png.",
)  # fmt: skip
@server_options
@output_options
def interpolate(
    name: str,
    seeds: list[int],
    frames: int | None,
    closed: bool,
    space: Space | None,
    fps: float | None,
    truncations: list[float] | None,
    layers: list[int] | None,
    label: str | None,
    settings: dict[str, float],
    output: Path | None,
    connection: Connection,
) -> None:
    """Walk from seed to seed through the latents of the generator NAME.

    The walk becomes an animation, a sheet or a folder. With --truncation or --mix-layers there is
    none, but a sheet with headings.
    """
    sheet = bool(truncations or layers)
    if truncations and layers:
        raise click.UsageError("give --truncation or --mix-layers, not both")
    if sheet and (frames or closed or space or fps):
        raise click.UsageError(
            "--frames, --closed, --space and --fps are of a walk, not of a sheet"
        )
    output = output or Path("sheet.png" if sheet else "walk.gif")
    allowed = {".png"} if sheet else WALKS
    if output.suffix not in allowed:
        raise click.UsageError(
            f"--output {output}: write a name that ends in {', '.join(sorted(allowed - {''}))}"
            + ("" if sheet else ", or that of a folder")
        )
    in_turn = label.split(",") if label and "," in label and (layers or space == "w") else label
    conditions: dict[str, Any] = {"label": in_turn, **settings}
    start = time.perf_counter()
    with connection.open() as client, progress(None, name):
        if truncations:
            samples = truncation_sweep(client, name, seeds, truncations, **conditions)
        elif layers:
            samples = style_mixing(client, name, seeds, layers, **conditions)
        else:
            samples = walk(
                client, name, seeds, frames or FRAMES, closed=closed, space=space or "z",
                **conditions,
            )  # fmt: skip
    if output.suffix:
        _write(output, _drawn(samples, output.suffix, seeds, truncations, layers, fps or FPS))
    else:
        samples.save(output)
    seconds = time.perf_counter() - start
    report = {
        "model": samples.card.name,
        "version": samples.card.version,
        "n": len(samples),
        "seeds": seeds,
        "output": str(output),
        "seconds": round(seconds, 3),
    }
    emit(
        report,
        lambda: click.echo(
            f"{output}: {len(samples)} images of {name} version {samples.card.version}, "
            f"seeds {', '.join(map(str, seeds))}"
        ),
    )


def _drawn(
    samples: Samples,
    suffix: str,
    seeds: list[int],
    truncations: list[float] | None,
    layers: list[int] | None,
    fps: float,
) -> bytes:
    """The file that the samples become."""
    facts = {**shared_facts(samples), "galatea:seeds": ", ".join(map(str, seeds))}
    if suffix != ".png":
        return animation(samples, suffix, fps, facts)
    pictures, names = tiles(samples), [f"seed {seed}" for seed in seeds]
    if truncations:
        pixels = headed(pictures, names, [f"{value:g}" for value in truncations], "truncation")
    elif layers:
        heads = ["", *names]
        pixels = headed(_with_sources(pictures), heads, heads, f"layers {ranges(layers)} of")
    else:
        pixels = np.asarray(samples.grid())
    return _png.encode(pixels, facts)


def _with_sources(pictures: list[Pixels]) -> list[Pixels]:
    """A square of mixed images with the images of their seeds above it and to its left."""
    n = math.isqrt(len(pictures))
    own = pictures[:: n + 1]  # the diagonal, where a seed is mixed with itself
    rows = [[own[k], *pictures[k * n : (k + 1) * n]] for k in range(n)]
    return [np.zeros_like(own[0]), *own, *itertools.chain(*rows)]


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data, durable=False)
    except OSError as error:
        raise MachineError(
            f"{path}: cannot be written: {error.strerror or error}", "choose another --output"
        ) from error
