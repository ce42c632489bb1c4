"""``galatea config``: each setting, what it is, and where that comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from galatea.cli._connection import Connection, server_options
from galatea.cli._output import emit, output_options, table
from galatea.cli._settings import FILE, SHARED, settable


@dataclass(frozen=True)
class Setting:
    """An option of all commands, or one of a single command that is no default.

    Attributes:
        name: as in the settings file; of a single command's option with the command before it.
        origin: a flag, an environment variable, the settings file, or "default".
    """

    name: str
    value: Any
    origin: str


@click.command()
@server_options
@output_options
@click.pass_context
def config(ctx: click.Context, connection: Connection) -> None:
    """Show each setting, its value, and where that comes from.

    A flag beats an environment variable, that beats the settings file, and that the default. An
    option listed here is set by a variable such as GALATEA_URL, or at the top of the file; another
    option of a command by one such as GALATEA_SAMPLE_OUTPUT, or in a table [sample].
    """
    settings = settings_in_force(ctx)
    emit([asdict(setting) for setting in settings], lambda: print_settings(settings))


def settings_in_force(ctx: click.Context) -> list[Setting]:
    """All settings, as a running command with the options of ``galatea config`` has them."""
    root = ctx.find_root()
    assert isinstance(root.command, click.Group)
    shared = root.command.get_command(root, SHARED)
    assert shared is not None
    options = {"config": settable(root.command)["config"], **settable(shared)}
    settings = [_setting(ctx, key, option) for key, option in options.items()]
    common = (root.default_map or {}).get(SHARED, {})
    for name in root.command.list_commands(root):
        command = root.command.get_command(root, name)
        assert command is not None
        settings += _changed(click.Context(command, info_name=name, parent=root), common)
    return settings


def print_settings(settings: Sequence[Setting]) -> None:
    """Settings for a person, on stdout."""
    table(
        ("SETTING", "VALUE", "ORIGIN"),
        ((setting.name, _text(setting.value), setting.origin) for setting in settings),
    )


def _setting(ctx: click.Context, key: str, option: click.Option) -> Setting:
    """What an option is in a running command; one before the command's name counts too."""
    where, source = ctx, ParameterSource.DEFAULT
    for level in (ctx.find_root(), ctx):
        found = level.get_parameter_source(option.name)
        if found not in (None, ParameterSource.DEFAULT):
            where, source = level, found
    value = _plain(where.params.get(option.name, where.meta.get(f"galatea.{option.name}")))
    match source:
        case ParameterSource.DEFAULT:
            return Setting(key, value, "default")
        case ParameterSource.DEFAULT_MAP:
            return Setting(key, value, _file(ctx))
        case ParameterSource.ENVIRONMENT:
            return Setting(key, value, _variable(option) or "environment")
        case _:
            return Setting(key, value, f"--{key}")


def _changed(ctx: click.Context, common: Mapping[str, Any], prefix: str = "") -> Iterator[Setting]:
    """What a variable or the settings file says for a single command alone."""
    prefix = f"{prefix}{ctx.info_name}."
    if isinstance(ctx.command, click.Group):
        for name, member in ctx.command.commands.items():
            yield from _changed(click.Context(member, info_name=name, parent=ctx), common, prefix)
        return
    for key, option in settable(ctx.command).items():
        variable = _variable(option)
        value = ctx.lookup_default(option.name)
        if variable is not None and option.allow_from_autoenv:
            yield Setting(prefix + key, os.environ[variable], variable)
        elif variable is None and value is not None and value != common.get(option.name):
            yield Setting(prefix + key, _plain(value), _file(ctx))


def _variable(option: click.Option) -> str | None:
    """The environment variable that sets an option, if one does."""
    name = option.envvar
    return name if isinstance(name, str) and os.environ.get(name) else None


def _file(ctx: click.Context) -> str:
    return str(ctx.meta[FILE])


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return str(value)
