"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from galatea.client import DEFAULT_URL, Client
from galatea.errors import InvalidInput

F = TypeVar("F", bound=Callable[..., Any])

seed_option = click.option("--seed", type=int, help="Seed of the first image; default random.")
label_option = click.option(
    "--label", help="Class by name or number, or 'balanced' (the default) to deal them out in turn."
)


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


def server_options(command: F) -> F:
    """Adds ``--url`` and ``--timeout``."""
    url = click.option(
        "--url", default=DEFAULT_URL, envvar="GALATEA_URL", show_default=True, show_envvar=True,
        help="host:port of the server's gRPC port.",
    )  # fmt: skip
    timeout = click.option(
        "--timeout", type=float, default=60.0, show_default=True,
        help="Seconds that one request may take.",
    )  # fmt: skip
    return url(timeout(command))


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of served models for shell completion; none when no server answers at once."""
    try:
        with Client(ctx.params.get("url") or DEFAULT_URL, timeout=0.5) as client:
            return [card.name for card in client.models() if card.name.startswith(incomplete)]
    except Exception:  # completion must never print a traceback into the prompt
        return []
