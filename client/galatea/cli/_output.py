"""The one sink of every command: data on stdout; progress, hints and errors on stderr."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

JSON, QUIET, VERBOSE = "galatea.json", "galatea.quiet", "galatea.verbose"  # in a context's meta


def output_options(command: F) -> F:
    """Adds ``--json``, ``--quiet`` and ``--verbose``, before and behind a command's name.

    The functions of this module and the error report heed them; a command gets no argument.
    """

    def remember(key: str) -> Callable[[click.Context, click.Parameter, Any], None]:
        def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
            # A command does not take back what was said before its name.
            ctx.meta[key] = value or ctx.meta.get(key)
            _set_log_level(ctx)

        return callback

    for option in (
        click.option("-v", "--verbose", count=True, expose_value=False, callback=remember(VERBOSE),
                     envvar="GALATEA_VERBOSE", allow_from_autoenv=False,
                     help="Tell on stderr what the client does; twice: in detail."),
        click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=remember(QUIET),
                     envvar="GALATEA_QUIET", allow_from_autoenv=False,
                     help="No progress and no news on stderr, only errors."),
        click.option("--json", is_flag=True, expose_value=False, callback=remember(JSON),
                     allow_from_autoenv=False, help="Print JSON, errors included."),
    ):  # fmt: skip
        command = option(command)
    return command


def wants_json() -> bool:
    """Whether the running command was given ``--json``."""
    return bool(click.get_current_context().meta.get(JSON))


def wants_news() -> bool:
    """Whether progress and news are wanted on stderr."""
    return not wants_json() and not click.get_current_context().meta.get(QUIET)


def colour() -> bool | None:
    """False where the terminal must stay without colours; None leaves it to the terminal."""
    return False if os.environ.get("NO_COLOR") or _is_dumb() else None


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
    """A line of news on stderr, silent under ``--json`` and ``--quiet``."""
    if wants_news():
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
        console=console, disable=not _is_lively(console), transient=True,
    )  # fmt: skip
    bar.add_task(description, total=total)
    return bar


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows what is being done now, with a spinner on a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not _is_lively(console):
        yield say
        return
    with console.status("") as status:
        yield status.update


def _is_lively(console: Any) -> bool:
    """Whether something may move on a console."""
    return bool(console.is_terminal) and wants_news() and not _is_dumb()


def _is_dumb() -> bool:
    return os.environ.get("TERM") == "dumb"


def _set_log_level(ctx: click.Context) -> None:
    """Lets the log of galatea through to stderr as far as it was asked for."""
    log = logging.getLogger("galatea")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        log.addHandler(handler)
    if ctx.meta.get(QUIET):
        log.setLevel(logging.ERROR)
    elif ctx.meta.get(VERBOSE):
        log.setLevel(logging.INFO if ctx.meta[VERBOSE] == 1 else logging.DEBUG)
    else:
        log.setLevel(logging.ERROR if ctx.meta.get(JSON) else logging.WARNING)
