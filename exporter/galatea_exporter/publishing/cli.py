"""``galatea publish`` and ``galatea repo pull``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from galatea.cli._complete import complete_release
from galatea.cli._output import emit, output_options, say, steps
from galatea.cli.repo import repository_option
from galatea.errors import RepositoryError
from galatea.extras import needs_extra

if TYPE_CHECKING:
    from galatea_exporter.publishing.gate import Verdict
    from galatea_exporter.publishing.publishing import Published


@click.command()
@click.argument("name", shell_complete=complete_release)
@click.option("--check", "check_only", is_flag=True, help="Only check, and publish nothing.")
@click.option(
    "--to", "targets", multiple=True, metavar="PLACE",
    help="A folder or a URL to publish to; may be given several times.",
)  # fmt: skip
@click.option("--sign", "key", type=click.Path(path_type=Path), metavar="KEY",
              help="Sign with this private key (PEM, elliptic curve).")  # fmt: skip
@click.option("--creator", "creators", multiple=True, metavar="'FAMILY, GIVEN'",
              help="Of the model, for a draft on Zenodo; may be given several times.")  # fmt: skip
@click.option("--version", "number", type=int, help="Default is the active one.")
@click.option(
    "--evaluation", type=click.Path(path_type=Path),
    help="What galatea evaluate run wrote of this release.",
)  # fmt: skip
@click.option("--steps", "golden_steps", type=int,
              help="Of a diffusion model's golden samples; default the card's.")  # fmt: skip
@click.option("--max-size", type=float, default=10_000, show_default=True, metavar="MB",
              help="Of all files.")  # fmt: skip
@click.option("--max-seconds", type=float, default=120, show_default=True, metavar="S",
              help="Of one sample on this CPU.")  # fmt: skip
@click.option("--max-memory", type=float, default=16_000, show_default=True, metavar="MB",
              help="That making samples takes.")  # fmt: skip
@repository_option
@output_options
def publish(
    name: str,
    check_only: bool,
    targets: tuple[str, ...],
    key: Path | None,
    creators: tuple[str, ...],
    number: int | None,
    evaluation: Path | None,
    golden_steps: int | None,
    max_size: float,
    max_seconds: float,
    max_memory: float,
    repository: Path,
) -> None:
    """Check the release NAME as others will need it, and publish it.

    The checks need no server. Exit code 5 if anything is to be mended: then nothing is published.
    """
    if check_only == bool(targets):
        raise click.UsageError("give either --check, or --to PLACE")
    with needs_extra("publish"):
        from galatea.evaluation import Report
        from galatea.repository import find
        from galatea_exporter.publishing.checks import Limits
        from galatea_exporter.publishing.gate import check
        from galatea_exporter.publishing.publishing import publish as run

    release = find(repository, name, number)
    report = None if evaluation is None else Report.read(evaluation)
    limits = Limits(int(max_size * 1e6), max_seconds, int(max_memory * 1e6))
    with steps() as step:
        verdict = check(release, report=report, limits=limits, steps=golden_steps, progress=step)
        published: list[Published] = []
        for target in targets if verdict.passed else ():
            step(f"publishing to {target}")
            published.append(run(verdict, target, key=key, creators=creators))
    emit(
        {**verdict.document(), "published": [vars(entry) for entry in published]},
        lambda: _print(verdict, published),
    )
    wrong = [problem for problems in verdict.problems.values() for problem in problems]
    if wrong:
        failed = sum(1 for problems in verdict.problems.values() if problems)
        raise RepositoryError(
            f"{name} version {release.version} fails {failed} of {len(verdict.problems)} checks, "
            f"with {len(wrong)} things to mend; nothing was published",
            wrong[0].mend,
        )
    for entry in published:
        draft = entry.place.startswith("http")
        say(
            f"next: {'look at the draft, and publish it' if draft else 'galatea repo pull'} "
            f"{entry.place}"
        )


@click.command()
@click.argument("source")
@click.option(
    "--verify-key", type=click.Path(path_type=Path), metavar="KEY",
    help="Take only what was signed with the counterpart of this public key (PEM).",
)  # fmt: skip
@click.option(
    "--any-sampler", is_flag=True,
    help="Take a diffusion model whose sampler is that of another galatea; servers execute it.",
)  # fmt: skip
@repository_option
@output_options
def pull(source: str, verify_key: Path | None, any_sampler: bool, repository: Path) -> None:
    """Take what was published at SOURCE into the repository, and make it active.

    SOURCE is a folder or a URL. Every file is compared with its digest before Triton sees any.
    """
    from galatea_exporter.publishing.pulling import pull as run

    with steps() as step:
        release, new = run(
            source, repository, key=verify_key, any_sampler=any_sampler, progress=step
        )
    data = {
        "name": release.name, "version": release.version, "written": new,
        "repository": str(repository), "bytes": release.size,
    }  # fmt: skip
    what = "pulled" if new else "already there:"
    emit(
        data,
        lambda: click.echo(f"{what} {release.name} version {release.version} in {repository}"),
    )
    say(f"next: galatea serve --repository {repository}")


def _print(verdict: Verdict, published: Sequence[Published]) -> None:
    for check, problems in verdict.problems.items():
        click.echo(f"{'no' if problems else 'ok':3} {check}")
        for problem in problems:
            click.echo(f"      {problem.what}")
            click.echo(f"      → {problem.mend}")
    document = verdict.document()
    click.echo(f"    memorisation of training images: {document['memorisation']}")
    name = f"{verdict.release.name} version {verdict.release.version}"
    for entry in published:
        click.echo(f"{'published' if entry.new else 'already there:'} {name} at {entry.place}")
