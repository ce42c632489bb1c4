"""The settings file: a TOML file as click's ``default_map``.

Keys are the long options without their dashes. What all commands share stands at the top (the
options of ``galatea config``), what is meant for one command in a table of its name::

    url = ["a:8001", "b:8001"]

    [sample]
    output = "samples"

    [repo.verify]
    repository = "/srv/models"
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import click

from galatea.errors import InvalidInput

__all__ = ["FILE", "SHARED", "apply_settings", "default_path", "settable"]

SHARED = "config"  # the command whose options may stand at the top
FILE = "galatea.config"  # in a context's meta: the path of the file, where there is one
ONE_CALL = {"help", "json"}  # options that are meant for a single call


def default_path() -> Path:
    """Where the file is looked for when no other is named."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "galatea" / "config.toml"


def apply_settings(root: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Makes a file's settings the defaults of all commands.

    A callback of click, for the option that names the file; without it the one at
    :func:`default_path` is taken, if it is there.

    Raises:
        InvalidInput: the file cannot be read, is no TOML, or has a key or a value that no command
            would heed.
    """
    wanted = path or default_path()
    try:
        content = tomllib.loads(wanted.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{wanted}: no TOML: {error}", "mend the file") from error
    except OSError as error:
        if path is None and isinstance(error, FileNotFoundError | NotADirectoryError):
            return
        raise InvalidInput(
            f"{wanted}: cannot be read: {error.strerror or error}",
            "name a settings file that can be read: --config, GALATEA_CONFIG",
        ) from error
    root.meta[FILE] = wanted
    root.default_map = _Reader(wanted).all(root, content)


def settable(command: click.Command) -> dict[str, click.Option]:
    """The options of a command that settings may set, by their key."""
    options = [option for option in command.params if isinstance(option, click.Option)]
    keys = {max(option.opts, key=len).lstrip("-"): option for option in options}
    return {key: option for key, option in keys.items() if key not in ONE_CALL}


class _Reader:
    """Turns tables into defaults; `path` is named in every refusal."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self, root: click.Context, content: Mapping[str, Any]) -> dict[str, Any]:
        assert isinstance(root.command, click.Group)
        commands = {
            name: command
            for name in root.command.list_commands(root)
            if (command := root.command.get_command(root, name)) is not None
        }
        options = settable(commands[SHARED])
        self._check(content, [*options, *commands], "")
        top = {key: value for key, value in content.items() if key not in commands}
        shared = self._values(options, top, "")
        return {
            name: self._command(command, content.get(name, {}), shared, name)
            for name, command in commands.items()
        }

    def _command(
        self, command: click.Command, table: Any, shared: dict[str, Any], name: str
    ) -> dict[str, Any]:
        if not isinstance(table, dict):
            raise InvalidInput(f"{self._path}: {name!r} is a command", f"write a table: [{name}]")
        if isinstance(command, click.Group):
            self._check(table, command.commands, f"{name}.")
            return {
                sub: self._command(member, table.get(sub, {}), shared, f"{name}.{sub}")
                for sub, member in command.commands.items()
            }
        options = settable(command)
        self._check(table, options, f"{name}.")
        return shared | self._values(options, table, f"{name}.")

    def _values(
        self, options: Mapping[str, click.Option], table: Mapping[str, Any], prefix: str
    ) -> dict[str, Any]:
        """Values by the names of their parameters."""
        values: dict[str, Any] = {}
        for key, value in table.items():
            option = options[key]
            entries = value if isinstance(value, list) else [value]
            try:
                if (isinstance(value, list) and not option.multiple) or any(
                    isinstance(entry, dict | list) for entry in entries
                ):
                    raise click.BadParameter("a single value is wanted")
                given = [str(entry) for entry in entries]  # as it would be typed
                values[option.name] = given if option.multiple else given[0]
                option.type_cast_value(click.Context(click.Command(None)), values[option.name])
            except click.BadParameter as error:
                command = prefix.replace(".", " ") or f"{SHARED} "
                raise InvalidInput(
                    f"{self._path}: {prefix}{key}: {error.message.rstrip('.')}",
                    f"see {max(option.opts, key=len)} in: galatea {command}--help",
                ) from error
        return values

    def _check(self, table: Mapping[str, Any], valid: Collection[str], prefix: str) -> None:
        for key in table:
            if key not in valid:
                near = difflib.get_close_matches(key.replace("_", "-").lower(), valid, 1)
                raise InvalidInput(
                    f"{self._path}: no setting {prefix}{key}",
                    f"did you mean {prefix}{near[0]}?" if near
                    else f"valid are: {', '.join(sorted(valid))}",
                )  # fmt: skip
