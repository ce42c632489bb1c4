"""``galatea repo``: look into a model repository and check it, without a server."""

from __future__ import annotations

from pathlib import Path

import click

from galatea.cli._complete import complete_release
from galatea.cli._output import emit, output_options, table
from galatea.cli.discover import print_card
from galatea.errors import InvalidInput, MachineError, RepositoryError

repository_option = click.option(
    "--repository", type=click.Path(path_type=Path), default=Path("model_repository"),
    show_default=True, help="Triton model repository.",
)  # fmt: skip


@click.group()
def repo() -> None:
    """List, show, verify and activate releases in a model repository."""


@repo.command()
@repository_option
@output_options
def ls(repository: Path) -> None:
    """List all releases."""
    from galatea.repository import releases

    found = [(release, release.card()) for release in releases(repository)]
    data = [
        {
            "name": release.name,
            "version": release.version,
            "active": release.active,
            "local": [added.variant for added in release.local()],
            "family": card.family,
            "task": card.task,
            "bytes": release.size,
        }
        for release, card in found
    ]

    def human() -> None:
        table(
            ("NAME", "VERSION", "ACTIVE", "FAMILY", "TASK", "MB", "LOCAL"),
            (
                (r.name, r.version, "yes" if r.active else "", c.family, c.task,
                 f"{r.size / 1e6:.1f}", ", ".join(added.variant for added in r.local()))
                for r, c in found
            ),
        )  # fmt: skip

    emit(data, human)


@repo.command()
@click.argument("name", shell_complete=complete_release)
@click.option("--version", type=int, help="Default is the active one.")
@repository_option
@output_options
def show(name: str, version: int | None, repository: Path) -> None:
    """Show the model card of a release."""
    from galatea.repository import find

    card = find(repository, name, version).card()
    emit(card.to_dict(), lambda: print_card(card))


@repo.command()
@click.argument("name", required=False, shell_complete=complete_release)
@repository_option
@output_options
def verify(name: str | None, repository: Path) -> None:
    """Compare every file with its manifest; exit code 5 if anything differs.

    Variants that this machine has added are compared with theirs, and TensorRT engines with the
    GPU, where there is one.
    """
    from galatea.repository import releases
    from galatea.repository import verify as check

    problems = check(repository, name)
    if problems:
        more = f", and {len(problems) - 1} more: {'; '.join(problems[1:])}" if problems[1:] else ""
        raise RepositoryError(
            f"{repository}: {problems[0]}{more}", "export the model again, or restore the files"
        )
    count = sum(1 for release in releases(repository) if name in (None, release.name))
    emit(
        {"repository": str(repository), "releases": count, "problems": []},
        lambda: click.echo(f"{repository}: {count} releases, all files as released"),
    )


@repo.command()
@click.argument("name", shell_complete=complete_release)
@click.argument("variant")
@click.option("--version", type=int, help="Default is the active one.")
@repository_option
@output_options
def forget(name: str, variant: str, version: int | None, repository: Path) -> None:
    """Remove VARIANT, which tune or engine build has added to NAME."""
    from galatea.local_variants import remove
    from galatea.repository import find

    release = find(repository, name, version)
    added = {entry.variant: entry for entry in release.local()}
    if variant not in added:
        raise InvalidInput(
            f"{name} version {release.version} has no local variant {variant!r}",
            f"it has: {', '.join(added) or 'none'}",
        )
    remove(added[variant], active=release.active)
    emit(
        {"name": name, "version": release.version, "removed": variant},
        lambda: click.echo(f"{name} version {release.version}: {variant} is removed"),
    )


@repo.command()
@click.argument("name", shell_complete=complete_release)
@click.argument("version", type=int)
@repository_option
@output_options
def activate(name: str, version: int, repository: Path) -> None:
    """Make VERSION of NAME the one that is served from the next start on."""
    from galatea.repository import activate as run
    from galatea.repository import find

    release = find(repository, name, version)
    try:
        run(release)
    except OSError as error:
        raise MachineError(
            f"{repository}: cannot be written: {error.strerror or error}",
            "check the permissions of the repository",
        ) from error
    emit(
        {"name": name, "version": version, "active": True, "repository": str(repository)},
        lambda: click.echo(f"{name} version {version} is active; restart the server to serve it"),
    )
