"""The ``galatea`` command.

Commands are found by name in :data:`COMMANDS` and imported only when they run or show their help,
so that every ``--help`` works in a base install and starts quickly.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from galatea.cli._errors import report_errors

__all__ = ["main"]

COMMANDS = {
    "models": "galatea.cli.discover:models",
    "show": "galatea.cli.discover:show",
    "sample": "galatea.cli.sample:sample",
    "translate": "galatea.cli.translate:translate",
    "bench": "galatea.cli.bench:bench",
    "catalog": "galatea.cli.catalog:catalog",
    "import": "galatea_exporter.importing.cli:import_",
    "families": "galatea_exporter.cli:families",
    "export": "galatea_exporter.cli:export",
    "repo": "galatea.cli.repo:repo",
    "serve": "galatea_server.cli:serve",
    "doctor": "galatea_server.cli:doctor",
    "demo": "galatea.cli.demo:demo",
    "completion": "galatea.cli.completion:completion",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        with report_errors(ctx):
            return super().invoke(ctx)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="galatea")
def main() -> None:
    """Synthetic medical images from a Triton server.

    Exit codes: 0 done, 1 failure, 2 usage, 3 server unreachable, 4 model missing or not ready,
    5 input refused, 6 deadline passed, 130 interrupted.
    """
