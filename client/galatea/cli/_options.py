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
    "Settings",
    "complete_model",
    "label_option",
    "seed_option",
    "server_options",
    "settings_option",
]

F = TypeVar("F", bound=Callable[..., Any])
Settings = dict[str, float | str]

seed_option = click.option("--seed", type=int, help="Seed of the first image; default random.")
label_option = click.option(
    "--label", shell_complete=complete_label,
    help="Class by name or number, or 'balanced' (the default) to deal them out in turn.",
)  # fmt: skip


def settings_option(command: F) -> F:
    """Adds ``--set``, given as a dictionary ``settings`` of numbers and texts."""

    def parse(_: click.Context, __: click.Parameter, entries: tuple[str, ...]) -> Settings:
        return dict(_pair(entry) for entry in entries)

    option = click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", callback=parse,
        help="Another condition, a number or a text.",
    )  # fmt: skip
    return option(command)


def _pair(setting: str) -> tuple[str, float | str]:
    key, equals, value = setting.partition("=")
    if not equals or not value:
        raise InvalidInput(f"--set {setting!r} has no value", "write --set KEY=VALUE")
    try:
        return key.strip(), int(value) if value.lstrip("+-").isdecimal() else float(value)
    except ValueError:
        return key.strip(), value
