"""What a shell may complete; nothing here ever prints into the prompt.

Functions for click's ``shell_complete``: they get what was typed before, as the context's
parameters, and give the values that begin like the word under the cursor.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import click

from galatea.cli._connection import Connection
from galatea.client import Client
from galatea.repository import releases

FAMILIES = "galatea_exporter.families"  # a family is a file of its name in there
PATIENCE = 0.5  # seconds that a prompt may wait for a server


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of served models; none when no server answers at once."""
    with suppress(Exception), _client(ctx) as client:
        return _beginning(incomplete, (card.name for card in client.models()))
    return []


def complete_label(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Classes of the model that was named before."""
    with suppress(Exception), _client(ctx) as client:
        # Before an option that has no value yet, click leaves arguments where they are.
        label = client.model(ctx.params.get("name") or ctx.args[0]).label
        return _beginning(incomplete, ["balanced", *label.labels] if label else [])
    return []


def complete_family(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Families that checkpoints can be exported with."""
    spec = importlib.util.find_spec(FAMILIES)
    folders = spec.submodule_search_locations if spec else None
    return _beginning(incomplete, (module.name for module in pkgutil.iter_modules(folders or [])))


def complete_release(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the generators in a model repository."""
    with suppress(Exception):
        return _beginning(incomplete, {entry.name for entry in releases(ctx.params["repository"])})
    return []


def _client(ctx: click.Context) -> Client:
    connection = Connection.of(dict(ctx.params))
    return replace(connection, timeout=PATIENCE, patience=0.0, hedge=None).open()


def _beginning(incomplete: str, values: Iterable[str]) -> list[str]:
    return sorted(value for value in values if value.startswith(incomplete))
