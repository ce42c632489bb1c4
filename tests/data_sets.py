"""A small data set of the fixture ``server``, for the tests of data sets."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from galatea import Client, datasets

N, SEED, SHARD = 50, 7, 8  # six shards of eight, and one of two


def make(client: Client, folder: Path, **given: Any) -> datasets.Outcome:
    """Makes it; `given` are arguments of ``generate`` that shall be others."""
    arguments = {"seed": SEED, "shard_size": SHARD, "format": "npz", **given}
    return datasets.generate(client, "masses", arguments.pop("n", N), folder, **arguments)


def files(folder: Path) -> dict[str, str]:
    """sha256 of every file by its path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def change(path: Path, old: str, new: str) -> None:
    """Puts another text into a file."""
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def command_line(*arguments: object) -> list[str]:
    """What starts galatea as a process."""
    return [sys.executable, "-W", "error", "-m", "galatea", *map(str, arguments)]


def galatea(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A run of galatea."""
    return subprocess.run(command_line(*arguments), capture_output=True, text=True, check=False)
