"""``galatea translate``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from galatea import pictures, shapes
from galatea.card import ModelCard, Preparation
from galatea.cli._options import (
    Connection,
    complete_model,
    label_option,
    server_options,
    settings_option,
)
from galatea.cli._output import emit, output_options, progress
from galatea.errors import InvalidInput
from galatea.pictures import Picture

CANVAS = 256  # pixels of a side of a shape, where the model takes any size

path_type = click.Path(path_type=Path)


class Slices(click.ParamType[slice]):
    """``K`` or ``FROM:TO`` as a slice."""

    name = "slices"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> slice:
        """The slice that the text means."""
        first, colon, last = value.partition(":")
        try:
            start = int(first) if first or not colon else 0
            stop = (int(last) if last else None) if colon else start + 1
        except ValueError:
            self.fail(f"{value!r} is no slice: write K or FROM:TO", param, ctx)
        if start < 0 or (stop is not None and stop <= start):
            self.fail(f"{value!r} holds no slice: they count from 0", param, ctx)
        return slice(start, stop)


@click.command()
@click.argument("name", shell_complete=complete_model)
@click.argument("inputs", nargs=-1, type=path_type)
@click.option(
    "--channel", "channels", multiple=True, metavar="CHANNEL=PATH",
    help="File or folder with one channel, for models that take several; one for each of them.",
)  # fmt: skip
@click.option(
    "--axis", type=click.Choice(["axial", "coronal", "sagittal"]), default="axial",
    show_default=True, help="Of NIfTI volumes, the slices to take.",
)  # fmt: skip
@click.option(
    "--slice", "slices", type=Slices(), metavar="K|FROM:TO",
    help="Slice K, or slices FROM to TO - 1, counted from 0; default all.",
)  # fmt: skip
@click.option(
    "--shapes", "kind", type=click.Choice(shapes.KINDS),
    help="Translate seeded masks of this shape instead of files.",
)  # fmt: skip
@click.option("-n", "n", type=click.IntRange(1), help="Number of shapes; default 1.")
@click.option(
    "--texture-inside", "inside", type=path_type,
    help="Picture of a lesion, to fill shapes with.",
)  # fmt: skip
@click.option(
    "--texture-outside", "outside", type=path_type,
    help="Picture of its surroundings, to fill the rest with.",
)  # fmt: skip
@click.option(
    "--seed", type=int,
    help="Seed of the first picture, for shapes and conditions that are drawn; default random.",
)  # fmt: skip
@label_option
@settings_option
@click.option(
    "-o", "--output", type=path_type, default=Path("translated"), show_default=True,
    help="Folder for the results.",
)  # fmt: skip
@click.option(
    "--skip-existing", is_flag=True,
    help="Leave out pictures whose result an earlier run has written.",
)  # fmt: skip
@server_options
@output_options
def translate(
    name: str,
    inputs: tuple[Path, ...],
    channels: tuple[str, ...],
    axis: str,
    slices: slice | None,
    kind: shapes.Kind | None,
    n: int | None,
    inside: Path | None,
    outside: Path | None,
    seed: int | None,
    label: str | None,
    settings: dict[str, float],
    output: Path,
    skip_existing: bool,
    connection: Connection,
) -> None:
    """Translate pictures with the image-to-image model NAME.

    INPUTS are PNG, JPEG, TIFF, NumPy, DICOM and NIfTI files, or folders with them. Results keep the
    names of their pictures, and the folders below the one given. Where PNG cannot hold what the
    model makes, it is written as .npy with a .json beside it.
    """
    if sum(map(bool, (inputs, channels, kind))) != 1:
        raise click.UsageError("give INPUTS, or --channel, or --shapes")
    if not kind and (n is not None or inside or outside):
        raise click.UsageError("-n, --texture-inside and --texture-outside go with --shapes")
    if bool(inside) != bool(outside):
        raise click.UsageError("--texture-inside and --texture-outside go together")
    conditions: dict[str, Any] = {"label": label, **settings}
    start = time.perf_counter()
    done = skipped = 0
    seeds: list[int] = []
    with connection.open() as client:
        card = client.model(name)
        total: int | None = None
        if kind:
            total, seed = n or 1, secrets.randbits(32) if seed is None else seed
            seeds = [seed, seed + total - 1]
            texture = (_single(inside), _single(outside)) if inside and outside else None
            source = shapes.pictures(total, _canvas(card), kind, seed, texture)
        elif channels:
            source = _aligned(card, channels, axis, slices)
        else:
            files = pictures.find(inputs)
            total = len(files) if all(file.single for file in files) else None
            source = pictures.read_files(files, axis=axis, slices=slices)

        with progress(total, name) as bar:

            def skip(picture: str) -> bool:
                nonlocal skipped
                there = skip_existing and _is_there(output, card, picture)
                skipped += there
                bar.advance(bar.tasks[0].id, int(there))
                return there

            for batch in client.translate_stream(name, source, seed=seed, skip=skip, **conditions):
                batch.save(output)
                done += len(batch)
                seeds += [*map(int, batch.seeds[[0, -1]])] if len(batch.seeds) else []
                bar.advance(bar.tasks[0].id, len(batch))
    seconds = time.perf_counter() - start
    report = {
        "model": card.name,
        "version": card.version,
        "n": done,
        "skipped": skipped,
        "seeds": [seeds[0], seeds[-1]] if seeds else None,
        "folder": str(output),
        "seconds": round(seconds, 3),
        "images_per_second": round(done / seconds, 1),
    }

    def human() -> None:
        told = f", seeds {seeds[0]}–{seeds[-1]}" if seeds else ""
        left = f"; {skipped} were there already" if skipped else ""
        click.echo(
            f"{done} pictures translated by {card.name} version {card.version} in {output}{told}, "
            f"{done / seconds:.1f} images/s{left}"
        )

    emit(report, human)


def _is_there(output: Path, card: ModelCard, picture: str) -> bool:
    result = f"{picture}-{card.name}-v{card.version}"
    return any((output / f"{result}{suffix}").exists() for suffix in (".png", ".npy"))


def _single(path: Path) -> Picture:
    return next(pictures.read([path]))


def _canvas(card: ModelCard) -> tuple[int, int]:
    """The size of shapes that the model takes as they are."""
    rules, source = card.preparation or Preparation(), card.source_picture
    wanted = rules.size or (source.shape[:2] if source else (-1, -1))
    height, width = (side if side > 0 else CANVAS for side in wanted)
    return height - height % rules.multiple, width - width % rules.multiple


def _aligned(
    card: ModelCard, channels: tuple[str, ...], axis: str, slices: slice | None
) -> Iterator[Picture]:
    """The pictures of several files or folders, one for each channel of the model."""
    wanted = card.source_picture.channels if card.source_picture else ()
    spelling = {channel.lower(): channel for channel in wanted}
    paths: dict[str, list[str]] = {channel: [] for channel in wanted}
    for entry in channels:
        channel, _, path = entry.partition("=")
        if not path or channel.lower() not in spelling:
            raise InvalidInput(
                f"--channel {entry!r}: {'no such channel' if path else 'no path'}",
                f"write CHANNEL=PATH; the channels of {card.name} are: {', '.join(wanted)}",
            )
        paths[spelling[channel.lower()]].append(path)
    missing = [channel for channel in wanted if not paths[channel]]
    if missing:
        raise InvalidInput(
            f"{card.name} takes the channel {missing[0]!r} too",
            f"give --channel CHANNEL=PATH for each of: {', '.join(wanted)}",
        )
    return pictures.join_channels(
        {channel: pictures.read(paths[channel], axis=axis, slices=slices) for channel in wanted}
    )
