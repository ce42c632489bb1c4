"""What the commands of ``galatea evaluate`` share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from galatea.evaluation import Cache, Memorisation

__all__ = [
    "RULES",
    "feature_options",
    "features",
    "is_path",
    "path_type",
    "show_memorised",
    "stepping",
    "typed",
]

F = TypeVar("F", bound=Callable[..., Any])

RULES = "levels, display, minmax, percentile:LOW:HIGH or window:LOW:HIGH"

path_type = click.Path(path_type=Path)


def feature_options(command: F) -> F:
    """``--train`` and ``--heldout`` to judge memorisation by, ``--cache`` and ``--no-cache``."""
    for option in (
        click.option(
            "--no-cache", is_flag=True, help="Neither keep features nor take kept ones."
        ),
        click.option(
            "--cache", type=path_type, help="Folder for features; default is the user's cache."
        ),
        click.option(
            "--heldout", type=path_type, help="Images of the same kind that it was not."
        ),
        click.option(
            "--train", type=path_type, help="Images that the generator was trained on."
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def features(cache: Path | None, no_cache: bool) -> Cache:
    """Where features are kept."""
    from galatea.evaluation import Cache, default_cache

    return Cache(None if no_cache else cache or default_cache())


def is_path(place: str) -> bool:
    """Whether it is a path and not the name of a served model."""
    return "/" in place or place in (".", "..")


def stepping(
    bar: Any, total: Callable[[str], int | None] = lambda step: None
) -> Callable[[str, int], None]:
    """What is told (step, newly done) and shows it in a progress bar that begins with each step.

    Args:
        bar: of :func:`galatea.cli._output.progress`.
        total: what a step has to do; None is not known.
    """
    task = bar.tasks[0]

    def show(step: str, fresh: int) -> None:
        done = fresh if task.description != step else task.completed + fresh
        bar.update(task.id, description=step, completed=done, total=total(step))

    return show


def show_memorised(verdict: Memorisation) -> None:
    """A line about memorised images."""
    click.echo(
        f"memorised, by {verdict.extractor}, {verdict.intensity}: {verdict.memorised} of "
        f"{verdict.n_synthetic}"
    )


def typed() -> str:
    """What was typed."""
    return shlex.join(["galatea", *sys.argv[1:]])
