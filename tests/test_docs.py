"""What the README and docs/ tell the reader to type works as it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from galatea.cli import COMMANDS
from support import ROOT

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Blocks that start make would start this test again.
SET_UP = "make demo\nmake test\n"


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the examples, where ``galatea serve`` runs once the README has said so."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "examples", folder / "examples")
    environment = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    server: subprocess.Popen[str] | None = None
    try:
        for block in blocks(ROOT / "README.md", "sh"):
            for line in block.splitlines() if block != SET_UP else []:
                if line == "galatea serve":
                    server = subprocess.Popen(
                        [*line.split(), "--json"], cwd=folder, env=environment,
                        stdout=subprocess.PIPE, text=True,
                    )  # fmt: skip
                    assert server.stdout is not None
                    assert json.loads(server.stdout.readline())["models"]
                    continue
                subprocess.run(["bash", "-ec", line], cwd=folder, env=environment, check=True)
        yield folder
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
            assert server.stdout is not None
            server.stdout.close()


def test_the_readmes_commands_do_what_it_says(checkout: Path) -> None:
    assert len(list((checkout / "masses").glob("*malignant.png"))) == 64
    assert len(list((checkout / "masses").glob("*malignant-mask.png"))) == 64
    answer = json.loads((checkout / "image.json").read_text())
    shapes = {output["name"]: output["shape"] for output in answer["outputs"]}
    assert shapes == {"image": [1, 128, 128, 1], "mask": [1, 128, 128, 1]}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_python_in_the_documentation_runs(checkout: Path, path: Path) -> None:
    for block in blocks(path, "python"):
        subprocess.run([sys.executable, "-W", "error", "-c", block], cwd=checkout, check=True)
    if path.name == "README.md":
        with Image.open(checkout / "grid.png") as grid:
            assert grid.size == (8 * 130 - 2, 8 * 130 - 2)


def test_the_readme_is_short_and_begins_with_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    assert blocks(ROOT / "README.md", "sh")[0] == SET_UP


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_to_files_that_are_there(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link


def test_every_command_is_documented() -> None:
    text = " ".join(path.read_text() for path in DOCS)
    for command in COMMANDS:
        assert re.search(rf"`?galatea {command}|`{command}", text), command
