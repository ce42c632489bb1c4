"""``galatea families``, ``galatea export`` and ``galatea new-family``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from galatea.cli._complete import complete_family
from galatea.cli._output import emit, output_options, say, steps, table
from galatea.errors import InvalidInput
from galatea.extras import needs_extra

if TYPE_CHECKING:
    from galatea_exporter.export import Exported


@click.command()
@output_options
def families() -> None:
    """List the generator families and their options."""
    with needs_extra("export"):
        from galatea_exporter.family import describe, families

    entries = [describe(family) for family in families().values()]

    def human() -> None:
        columns = ("FAMILY", "ALIASES", "WHAT", "OPTIONS")
        table(
            columns,
            (
                (
                    entry["name"],
                    ", ".join(entry["aliases"]),
                    entry["title"],
                    " ".join(f"{key}={value}" for key, value in entry["options"].items()),
                )
                for entry in entries
            ),
        )

    emit(entries, human)


@click.command()
@click.argument("family", shell_complete=complete_family)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Public name of the model.")
@click.option(
    "--repository", type=click.Path(path_type=Path), default=Path("model_repository"),
    show_default=True, help="Triton model repository to release into.",
)  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A family option.")
@click.option("--card", type=click.Path(path_type=Path), help="TOML file with what the card says.")
@click.option("--version", "number", type=int, help="Version to release; default the next one.")
@click.option("--max-batch", type=int, help="Largest batch; default the family's.")
@click.option(
    "--fp16", is_flag=True,
    help="Also make graphs in float16 of what makes images, for the variant cuda-fp16.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@output_options
def export(
    family: str,
    checkpoint: Path,
    name: str,
    repository: Path,
    settings: tuple[str, ...],
    card: Path | None,
    number: int | None,
    max_batch: int | None,
    fp16: bool,
    dry_run: bool,
) -> None:
    """Export CHECKPOINT of FAMILY as ONNX into a Triton model repository.

    CHECKPOINT is a file, or the folder with the files of a family that has several.
    Nothing in the checkpoint is executed. PyTorch and ONNX Runtime are compared first; beyond the
    tolerance nothing is written.
    """
    with needs_extra("export"):
        from galatea_exporter.export import Facts
        from galatea_exporter.export import export as run

    with steps() as step:
        done = run(
            family,
            checkpoint,
            name=name,
            repository=repository,
            facts=Facts.read(card) if card else None,
            settings=dict(pair(setting) for setting in settings),
            version=number,
            max_batch=max_batch,
            fp16=fp16,
            dry_run=dry_run,
            progress=step,
        )
    report(done, repository, dry_run=dry_run)


@click.command(name="new-family")
@click.argument("name")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--translates", is_flag=True, help="It makes a picture of a picture, not of a seed.")
@click.option(
    "--tree", type=click.Path(path_type=Path, file_okay=False), default=Path(),
    show_default="here", help="galatea's source tree.",
)  # fmt: skip
@output_options
def new_family(name: str, checkpoint: Path, translates: bool, tree: Path) -> None:
    """Begin a family NAME for a CHECKPOINT that none of galatea's families reads.

    The checkpoint is only read; nothing in it is executed.
    """
    with needs_extra("export"):
        from galatea_exporter.scaffold import scaffold

    written = scaffold(name, checkpoint, tree, translates=translates)
    emit([str(path) for path in written], lambda: click.echo("\n".join(map(str, written))))
    say("next: fill in what says TODO, see docs/contributing.md")


def report(done: Exported, repository: Path, *, dry_run: bool) -> None:
    """Prints what an export did."""
    name = done.card.name
    data = {
        "name": name,
        "version": done.card.version,
        "written": done.written,
        "repository": str(repository),
        "ignored": list(done.ignored),
        "bytes": done.release.size,
        "card": done.card.to_dict(),
    }

    def human() -> None:
        parity = done.card.parity
        assert parity is not None
        what = "released" if done.written else "would release" if dry_run else "already there:"
        click.echo(f"{what} {name} version {done.card.version} in {repository}")
        click.echo(
            f"parity with PyTorch: {parity.max_abs:.2g} in float (allowed {parity.tolerance:.0e}), "
            f"{parity.max_levels} uint8 levels on {parity.share_differing:.2%} of values"
        )
        if (half := done.card.parity_fp16) is not None:
            click.echo(
                f"in float16: {half.max_abs:.2g} in float (allowed {half.tolerance:.0e}), "
                f"{half.max_levels} uint8 levels on {half.share_differing:.2%} of values"
                + ("" if half.psnr is None else f", PSNR {half.psnr:g} dB")
            )
        if done.ignored:
            say(f"ignored in the checkpoint: {summary(done.ignored)}")
        if not dry_run:
            say(f"next: galatea serve --repository {repository}")

    emit(data, human)


def summary(ignored: Sequence[str]) -> str:
    """Entries ``name: reason`` in one line; those that begin alike are counted."""
    groups: dict[str, Counter[str]] = {}
    for entry in ignored:
        name, _, reason = entry.partition(": ")
        start, dot, _ = name.partition(".")
        groups.setdefault(reason, Counter())[f"{start}.*" if dot else start] += 1
    return "; ".join(
        ", ".join(f"{name} ({n})" if n > 1 else name for name, n in names.items())
        + (f": {reason}" if reason else "")
        for reason, names in groups.items()
    )


def pair(setting: str) -> tuple[str, str]:
    """``KEY=VALUE`` of ``--set``."""
    key, equals, value = setting.partition("=")
    if not equals:
        raise InvalidInput(f"--set {setting!r} has no value", "write --set KEY=VALUE")
    return key.strip(), value.strip()
