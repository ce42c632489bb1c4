"""The ``galatea`` command.

Commands are found by name in :data:`COMMANDS` and imported only when they run or show their help,
so that every ``--help`` works in a base install and starts quickly.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import shell_complete

from galatea.cli._errors import report_errors
from galatea.cli._output import colour, output_options
from galatea.cli._settings import apply_settings

__all__ = ["main"]

COMPLETE = "_GALATEA_COMPLETE"  # the variable by which a shell asks

COMMANDS = {
    "models": "galatea.cli.discover:models",
    "show": "galatea.cli.discover:show",
    "sample": "galatea.cli.sample:sample",
    "translate": "galatea.cli.translate:translate",
    "interpolate": "galatea.cli.interpolate:interpolate",
    "ui": "galatea.cli.ui:ui",
    "generate": "galatea.cli.generate:generate",
    "dataset": "galatea.cli.dataset:dataset",
    "evaluate": "galatea.cli.evaluate:evaluate",
    "bench": "galatea.cli.bench:bench",
    "plan": "galatea.cli.plan:plan",
    "catalog": "galatea.cli.catalog:catalog",
    "import": "galatea_exporter.importing.cli:import_",
    "families": "galatea_exporter.cli:families",
    "export": "galatea_exporter.cli:export",
    "new-family": "galatea_exporter.cli:new_family",
    "extractor": "galatea_exporter.extractors.cli:extractor",
    "figures": "galatea_exporter.figures:figures",
    "publish": "galatea_exporter.publishing.cli:publish",
    "repo": "galatea.cli.repo:repo",
    "serve": "galatea_server.cli:serve",
    "tune": "galatea_server.tuning.cli:tune",
    "engine": "galatea_server.engines.cli:engine",
    "doctor": "galatea_server.cli:doctor",
    "deploy": "galatea_server.deploy.cli:deploy",
    "config": "galatea.cli.config:config",
    "demo": "galatea.cli.demo:demo",
    "completion": "galatea.cli.completion:completion",
}
MEMBERS = {"repo": {"pull": "galatea_exporter.publishing.cli:pull"}}  # of groups, from elsewhere


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = _imported(COMMANDS[cmd_name])
        for name, place in MEMBERS.get(cmd_name, {}).items():
            assert isinstance(command, click.Group)
            command.add_command(_imported(place), name)
        _name_variables(command, f"{ctx.auto_envvar_prefix}_{cmd_name.upper()}")
        return command

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        """Runs the command line, or completes it for a shell, and ends the process."""
        arguments = sys.argv[1:] if args is None else list(args)
        if asked := os.environ.get(COMPLETE):
            sys.exit(shell_complete(self, {}, "galatea", COMPLETE, asked))
        as_json = "--json" in arguments  # also where the arguments cannot be understood
        with report_errors(as_json=as_json), self.make_context("galatea", arguments) as ctx:
            self.invoke(ctx)
        sys.exit(0)


def _imported(place: str) -> click.Command:
    module, _, attribute = place.partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


def _name_variables(command: click.Command, prefix: str) -> None:
    """Has options set by variables that are called as they are.

    click would take the names of our functions' arguments, which differ where a name is taken.
    """
    if isinstance(command, click.Group):
        for name, member in command.commands.items():
            _name_variables(member, f"{prefix}_{name.upper()}")
    for option in command.params:
        if isinstance(option, click.Option) and option.allow_from_autoenv and not option.envvar:
            key = max(option.opts, key=len).lstrip("-").replace("-", "_")
            option.envvar = f"{prefix}_{key.upper()}"


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "GALATEA",
        "color": colour(),
    },
)
@click.option(
    "--config", envvar="GALATEA_CONFIG", type=click.Path(path_type=Path), metavar="FILE",
    is_eager=True, expose_value=False, callback=apply_settings,
    help="Settings file; default ~/.config/galatea/config.toml.",
)  # fmt: skip
@output_options
@click.version_option(package_name="galatea", allow_from_autoenv=False)
def main() -> None:
    """Synthetic medical images from a Triton server.

    Options can be set in a file and by environment variables too; galatea config shows them.

    Exit codes: 0 done, 1 failure, 2 usage, 3 server unreachable, 4 model missing or not ready,
    5 input refused, 6 deadline passed, 130 interrupted, 143 terminated.
    """
