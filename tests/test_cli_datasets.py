"""Data sets on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_sets import SEED, SHARD, N, files, galatea, make
from galatea import Client
from galatea_server.server import EmbeddedServer


@pytest.fixture
def made(client: Client, tmp_path: Path) -> Path:
    """A data set."""
    make(client, tmp_path / "made")
    return tmp_path / "made"


@pytest.fixture
def command(server: EmbeddedServer) -> list[object]:
    """A data set on the command line, but for where it goes."""
    return ["generate", "masses", "-n", N, "--seed", SEED, "--shard-size", SHARD, "--format", "npz",
           "--url", server.grpc_url]  # fmt: skip


def test_the_command_line_makes_the_same(
    server: EmbeddedServer, command: list[object], made: Path, tmp_path: Path
) -> None:
    parts = [tmp_path / "one", tmp_path / "two"]
    for k, part in enumerate(parts):
        done = galatea(*command, "--shard", f"{k}/2", "-o", part)
        assert done.returncode == 0, done.stderr
        assert f"part {k} of 2, counted from 0" in done.stdout
    incomplete = galatea("dataset", "verify", parts[0])
    assert incomplete.returncode == 5
    assert "dataset.json: is missing; 3 of 7 shards are there" in incomplete.stderr
    merged = galatea("dataset", "merge", *parts, "--json")
    assert json.loads(merged.stdout)["classes"] == {"benign": 25, "malignant": 25}
    assert files(parts[0]) == files(made)
    again = galatea("dataset", "regenerate", parts[0] / "dataset.json", "-o", tmp_path / "again",
                    "--json", "--url", server.grpc_url)  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["identical"] is True
    report = json.loads(galatea(*command, "--json", "-o", tmp_path / "again").stdout)
    assert (report["found"], report["made"], report["complete"]) == (N, 0, True)
    assert "50 of 50" in galatea("dataset", "info", tmp_path / "again").stdout
    assert galatea("dataset", "verify", tmp_path / "again").returncode == 0


def test_labels_on_the_command_line(command: list[object], tmp_path: Path) -> None:
    listed = tmp_path / "labels.txt"
    listed.write_text("benign\n" * 20 + "1\n" * 30)
    for k, (plan, counts) in enumerate({
        "benign=1,malignant=4": {"benign": 10, "malignant": 40},
        f"@{listed}": {"benign": 20, "malignant": 30},
    }.items()):  # fmt: skip
        assert galatea(*command, "--labels", plan, "-o", tmp_path / str(k)).returncode == 0
        told = json.loads(galatea("dataset", "info", "--json", tmp_path / str(k)).stdout)
        assert told["classes"]["benign"] == pytest.approx(counts["benign"], abs=1)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--shard", "3/3"], 2, "write i/N"),
        (["--shard", "-1/3"], 2, "write i/N"),
        (["--labels", "benign=x"], 2, "no CLASS=WEIGHT"),
        (["--labels", "@nowhere.txt"], 2, "cannot be read"),
        (["--format", "jpeg"], 2, "'jpeg' is not one of"),
        (["--labels", "vague"], 5, "no label 'vague'"),
    ],
)
def test_wrong_options_are_refused(
    command: list[object], tmp_path: Path, options: list[str], code: int, words: str
) -> None:
    done = galatea(*command, "-o", tmp_path / "out", *options)
    assert done.returncode == code
    assert words in done.stderr
    assert not (tmp_path / "out").exists()
