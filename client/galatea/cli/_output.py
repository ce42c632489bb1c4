"""The one sink of every command: data on stdout; progress, hints and errors on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Adds ``--json``; :func:`emit` and the error report look it up in the context."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta["galatea.json"] = value

    option = click.option(
        "--json", is_flag=True, expose_value=False, callback=remember, is_eager=True,
        help="Print JSON on stdout.",
    )  # fmt: skip
    return option(command)


def wants_json() -> bool:
    """Whether the running command was given ``--json``."""
    return bool(click.get_current_context().meta.get("galatea.json"))


def emit(data: Any, human: Callable[[], None]) -> None:
    """Prints `data` as JSON under ``--json``, and calls `human` to print it otherwise."""
    if wants_json():
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        human()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; plain, tab-separated lines when stdout is no terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        for row in rows:
            click.echo("\t".join(str(cell) for cell in row))
        return
    grid = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        grid.add_row(*[str(cell) for cell in row])
    console.print(grid)


def say(message: str) -> None:
    """A line of news on stderr, silent under ``--json``."""
    if not wants_json():
        click.echo(message, err=True)


def progress(total: int | None, description: str, *, in_bytes: bool = False) -> Any:
    """A rich progress bar on stderr; invisible when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(),
        DownloadColumn() if in_bytes else MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal or wants_json(), transient=True,
    )  # fmt: skip
    bar.add_task(description, total=total)
    return bar


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows what is being done now, with a spinner on a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal or wants_json():
        yield say
        return
    with console.status("") as status:
        yield status.update
