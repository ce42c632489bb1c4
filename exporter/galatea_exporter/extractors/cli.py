"""``galatea extractor``."""

from __future__ import annotations

from pathlib import Path

import click

from galatea.cli._output import emit, output_options, steps, table
from galatea.cli.repo import repository_option
from galatea.extras import needs_extra
from galatea_exporter.cli import report


@click.group()
def extractor() -> None:
    """Feature extractors that images are compared by; see galatea evaluate."""


@extractor.command("list")
@output_options
def list_() -> None:
    """List the architectures that weights can be imported of."""
    with needs_extra("export"):
        from galatea_exporter.extractors.archs import ARCHS
    data = [
        {"name": arch.name, "title": arch.title, "source": arch.source, "resize": arch.resize}
        for arch in ARCHS.values()
    ]
    columns = ("ARCH", "WHAT", "SOURCE", "RESIZE")
    emit(data, lambda: table(columns, (tuple(row.values()) for row in data)))


@extractor.command("import")
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--arch", required=True, help="Architecture; see galatea extractor list.")
@click.option("--sha256", required=True, help="Checksum that the weights must have.")
@click.option("--name", default="", help="Public name of the model; default ARCH-RESIZE.")
@click.option(
    "--resize", type=click.Choice(["tf1", "clean"]),
    help="How pictures of other sizes are resized; default is that of the published figures.",
)  # fmt: skip
@repository_option
@click.option("--card", type=click.Path(path_type=Path), help="TOML file with what the card says.")
@click.option("--max-batch", type=int, default=16, show_default=True, help="Largest batch.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@output_options
def import_(
    weights: Path,
    arch: str,
    sha256: str,
    name: str,
    resize: str | None,
    repository: Path,
    card: Path | None,
    max_batch: int,
    dry_run: bool,
) -> None:
    """Export WEIGHTS of a feature extractor as ONNX into a Triton model repository.

    Nothing in the file is executed. The served model takes images of any size and resizes them
    itself.
    """
    with needs_extra("export"):
        from galatea_exporter.export import Facts
        from galatea_exporter.extractors.archs import find_arch
        from galatea_exporter.extractors.release import import_extractor
    with steps() as step:
        done = import_extractor(
            weights,
            arch=arch,
            sha256=sha256,
            name=name or f"{arch}-{resize or find_arch(arch).resize}",
            repository=repository,
            resize=resize or "",
            facts=Facts.read(card) if card else None,
            max_batch=max_batch,
            dry_run=dry_run,
            progress=step,
        )
    report(done, repository, dry_run=dry_run)
