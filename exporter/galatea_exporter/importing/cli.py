"""``galatea import``."""

from __future__ import annotations

from pathlib import Path

import click

from galatea.catalogue import find
from galatea.cli._output import output_options, progress, say
from galatea.cli.catalog import complete_entry
from galatea.cli.repo import repository_option
from galatea.extras import needs_extra
from galatea_exporter.cli import pair, report


@click.command("import")
@click.argument("id_", metavar="ID", shell_complete=complete_entry)
@click.option(
    "--from", "source", default="", metavar="PATH",
    help="Package (zip file or folder) or checkpoint, or the address of a copy of the package; "
    "by default it is downloaded from its record.",
)  # fmt: skip
@click.option("--member", help="Which checkpoint of a package that holds several.")
@click.option("--name", default="", help="Public name of the model; default is the id.")
@repository_option
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A family option.")
@click.option("--accept-licence", is_flag=True, help="Accept terms that restrict use, once.")
@click.option("--max-batch", type=int, help="Largest batch; default the family's.")
@click.option("--dry-run", is_flag=True, help="Do everything but write into the repository.")
@output_options
def import_(
    id_: str,
    source: str,
    member: str | None,
    name: str,
    repository: Path,
    settings: tuple[str, ...],
    accept_licence: bool,
    max_batch: int | None,
    dry_run: bool,
) -> None:
    """Export the published weights of the catalogue's entry ID, with its configuration and facts.

    Only the weights are taken from the package; its code is neither unpacked nor executed.
    """
    entry = find(id_)
    with needs_extra("export"):
        from galatea_exporter.importing.run import differences, import_entry

    say(f"{entry.id}: {entry.title}; licence {entry.licence}")
    with progress(None, "", in_bytes=True) as bar:
        task = bar.tasks[0].id

        def step(news: str) -> None:
            if bar.disable:
                say(news)
            bar.update(task, description=news, total=None, completed=0)

        done = import_entry(
            entry,
            source,
            repository=repository,
            member=member,
            name=name,
            settings=dict(pair(setting) for setting in settings),
            accept_licence=accept_licence,
            max_batch=max_batch,
            dry_run=dry_run,
            progress=step,
            downloading=lambda there, total: bar.update(task, completed=there, total=total),
        )
    report(done, repository, dry_run=dry_run)
    for difference in differences(entry, done.card):
        say(f"note: {difference}")
