"""What the commands of ``galatea evaluate`` share."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

__all__ = ["RULES", "path_type", "typed"]

RULES = "levels, display, minmax, percentile:LOW:HIGH or window:LOW:HIGH"

path_type = click.Path(path_type=Path)


def typed() -> str:
    """What was typed."""
    return shlex.join(["galatea", *sys.argv[1:]])
