"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from galatea.cli._complete import complete_label, complete_model
from galatea.cli._connection import Connection, server_options
from galatea.errors import InvalidInput

__all__ = [
    "Connection",
    "complete_model",
    "label_option",
    "seed_option",
    "server_options",
    "settings_option",
]

F = TypeVar("F", bound=Callable[..., Any])

seed_option = click.option("--seed", type=int, help="Seed of the first image; default random.")
label_option = click.option(
    "--label", shell_complete=complete_label,
    help="Class by name or number, or 'balanced' (the default) to deal them out in turn.",
)  # fmt: skip


def settings_option(command: F) -> F:
    """Adds ``--set``, given as a dictionary ``settings`` of numbers."""

    def parse(_: click.Context, __: click.Parameter, entries: tuple[str, ...]) -> dict[str, float]:
        return dict(_pair(entry) for entry in entries)

    option = click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", callback=parse,
        help="Another condition.",
    )  # fmt: skip
    return option(command)


def _pair(setting: str) -> tuple[str, float]:
    key, equals, value = setting.partition("=")
    try:
        return key.strip(), int(value) if value.lstrip("+-").isdecimal() else float(value)
    except ValueError:
        what = "is no number" if equals else "has no value"
        raise InvalidInput(f"--set {setting!r} {what}", "write --set KEY=NUMBER") from None
