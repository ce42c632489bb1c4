"""From an exception to a sentence, a next step and an exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from galatea.errors import GalateaError

INTERRUPTED = 130


@contextmanager
def report_errors(ctx: click.Context) -> Iterator[None]:
    """Ends the process with the error's exit code; the sentence goes to stderr."""
    try:
        yield
    except GalateaError as error:
        if ctx.meta.get("galatea.json"):
            fields = {
                "error": type(error).__name__,
                "problem": error.problem,
                "remedy": error.remedy,
            }
            click.echo(json.dumps(fields), err=True)
        else:
            click.secho("error: ", fg="red", bold=True, nl=False, err=True)
            click.echo(error.problem, err=True)
            click.secho("  try: ", fg="cyan", nl=False, err=True)
            click.echo(error.remedy, err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        # The reader of our output has gone (… | head): not a failure, and nothing more to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
