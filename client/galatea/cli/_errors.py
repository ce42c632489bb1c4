"""From an exception to a sentence, a next step and an exit code."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from galatea.cli._output import colour
from galatea.errors import GalateaError

# What ends a command from outside: the word for it, and the handler that Python starts with. The
# first process of a container would not even notice SIGTERM without a handler of its own.
ENDINGS = {
    signal.SIGINT: ("interrupted", signal.default_int_handler),
    signal.SIGTERM: ("terminated", signal.SIG_DFL),
}
GRACE = 5.0  # seconds that an interrupted command gets to leave things in order


@contextmanager
def report_errors(*, as_json: bool) -> Iterator[None]:
    """Ends the process with the error's exit code; the sentence goes to stderr.

    Args:
        as_json: as an object with error, problem, remedy and exit_code, in a line.
    """

    by = signal.SIGINT

    def interrupt(number: int, _: object) -> NoReturn:
        nonlocal by
        by = signal.Signals(number)
        last = threading.Timer(GRACE, _end_interrupted, (by, as_json))
        last.daemon = True
        last.start()
        raise KeyboardInterrupt

    for number, (_, default) in ENDINGS.items():
        if signal.getsignal(number) is default:
            signal.signal(number, interrupt)
    try:
        yield
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except GalateaError as error:
        if as_json:
            _print(type(error).__name__, error.problem, error.remedy, error.exit_code)
        else:
            click.secho("error: ", fg="red", bold=True, nl=False, err=True, color=colour())
            click.echo(error.problem, err=True)
            click.secho("  try: ", fg="cyan", nl=False, err=True, color=colour())
            click.echo(error.remedy, err=True)
        sys.exit(error.exit_code)
    except click.UsageError as error:
        if as_json:
            command = error.ctx.command_path if error.ctx else "galatea"
            remedy = f"run: {command} --help"
            _print("UsageError", error.format_message(), remedy, error.exit_code)
        else:
            error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _end_interrupted(by, as_json)
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        # The reader of our output has gone (… | head): not a failure, and nothing more to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _end_interrupted(by: signal.Signals, as_json: bool) -> NoReturn:
    """Ends the process at once, with the exit code that shells give to a signal.

    gRPC waits for ever when it closes a channel, or forgets one, on which it was interrupted while
    it began a call.
    """
    word, _ = ENDINGS[by]
    code = 128 + by
    if as_json:
        _print(word.capitalize(), word, "run it again", code)
    else:
        click.echo(word, err=True)
    sys.stdout.flush()
    os._exit(code)


def _print(error: str, problem: str, remedy: str, code: int) -> None:
    fields = {"error": error, "problem": problem, "remedy": remedy, "exit_code": code}
    click.echo(json.dumps(fields, ensure_ascii=False), err=True)
