"""The command line: data on stdout, news on stderr, an exit code for every failure."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from galatea_server.server import EmbeddedServer
from support import served_names


def galatea(*arguments: object, url: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "galatea", *map(str, arguments)]
    if url is not None:
        command += ["--url", url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_models_are_listed_for_people_and_for_programs(server: EmbeddedServer) -> None:
    people = galatea("models", url=server.grpc_url)
    assert people.returncode == 0
    rows = [line.split("\t")[:3] for line in people.stdout.splitlines()]
    assert ["masses", "1", "class-conditional"] in rows
    programs = json.loads(galatea("models", "--json", url=server.grpc_url).stdout)
    assert [card["name"] for card in programs] == served_names()


def test_a_card_is_shown(server: EmbeddedServer) -> None:
    done = galatea("show", "masses", url=server.grpc_url)
    assert done.returncode == 0
    for fact in ("masses version 1", "0 = benign, 1 = malignant", "CC0-1.0", "parity"):
        assert fact in done.stdout


def test_sampling_writes_the_images_and_says_how_to_get_them_again(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    done = galatea("sample", "masses", "-n", 20, "--seed", 7, "--label", "malignant", "-o", folder,
                   url=server.grpc_url)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--seed 7 --label malignant" in done.stdout
    images = sorted(path for path in folder.iterdir() if "mask" not in path.name)
    assert len(images) == 20
    before = images[3].read_bytes()
    shutil.rmtree(folder)
    report = galatea("sample", "masses", "-n", 20, "--seed", 7, "--label", 1, "-o", folder,
                     "--json", url=server.grpc_url)  # fmt: skip
    assert json.loads(report.stdout)["seeds"] == [7, 26]
    assert images[3].read_bytes() == before
    with Image.open(images[3]) as image:
        assert image.size == (64, 64)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["sample", "mases"], 4, "did you mean 'masses'?"),
        (["sample", "masses", "--label", "7"], 5, "benign (0), malignant (1)"),
        (["sample", "masses", "-n", "0"], 5, "n is 0"),
        (["sample", "masses", "--set", "truncation=1"], 5, "no condition 'truncation'"),
        (["sample", "masses", "--set", "truncation"], 5, "has no value"),
        (["sample", "masses", "--previews", "way"], 5, "not in steps"),
        (["sample", "masses", "--timeout", "0.00001"], 6, "no answer within"),
        (["sample", "masses", "-o", "/proc/nowhere"], 1, "cannot be written"),
        (["sample", "masses", "-n", "many"], 2, "not a valid integer"),
        (["show", "xyz"], 4, "no model 'xyz'"),
        (["dance"], 2, "No such command 'dance'"),
    ],
)
def test_a_failure_has_its_exit_code_and_a_sentence(
    server: EmbeddedServer, arguments: list[str], code: int, words: str
) -> None:
    done = galatea(*arguments, url=None if arguments == ["dance"] else server.grpc_url)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_unreachable_server_has_exit_code_3() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        done = galatea("models", url=f"127.0.0.1:{sock.getsockname()[1]}")
    assert done.returncode == 3
    assert "galatea serve" in done.stderr


def test_errors_are_json_where_json_was_asked_for(server: EmbeddedServer) -> None:
    done = galatea("show", "xyz", "--json", url=server.grpc_url)
    error = json.loads(done.stderr)
    assert error["error"] == "ModelUnavailable"
    assert error["remedy"].startswith("served are: ")


def test_export_repo_and_families(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    repository = tmp_path / "models"
    arguments = ["export", "cdcgan", checkpoints["dcgan_mammo"], "--name", "masses",
                 "--set", "mask_channel=1", "--repository", repository]  # fmt: skip
    dry = galatea(*arguments, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "would release masses version 1" in dry.stdout
    assert not repository.exists()
    done = json.loads(galatea(*arguments, "--json").stdout)
    assert done["written"]
    assert "first_layers.0.weight: repeats main" in done["ignored"]
    assert galatea("repo", "verify", "--repository", repository).returncode == 0
    listed = json.loads(galatea("repo", "ls", "--repository", repository, "--json").stdout)
    assert [(entry["name"], entry["version"], entry["active"]) for entry in listed] == [
        ("masses", 1, True)
    ]
    shown = galatea("repo", "show", "masses", "--repository", repository)
    assert "UINT8 [64, 64, 1]: mask" in shown.stdout
    assert galatea("repo", "activate", "masses", 1, "--repository", repository).returncode == 0
    (repository / "masses.noise" / "1" / "model.onnx").unlink()
    broken = galatea("repo", "verify", "--repository", repository)
    assert broken.returncode == 5
    assert "masses.noise/1/model.onnx: is missing" in broken.stderr
    refused = galatea("serve", "--repository", repository)
    assert refused.returncode == 5
    assert "masses.noise/1/model.onnx: is missing" in refused.stderr
    names = [entry["name"] for entry in json.loads(galatea("families", "--json").stdout)]
    assert names == sorted(checkpoints)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["export", "nofamily", "x.pt", "--name", "x"], 5, "no family 'nofamily'"),
        (["export", "dcgan_mammo", "x.pt", "--name", "x"], 5, "x.pt: No such file"),
        (["export", "dcgan_mammo", "x.pt", "--name", "x", "--set", "low"], 5, "has no value"),
        (["export", "dcgan_mammo", "x.pt", "--name", "x", "--card", "no.toml"], 5, "no.toml: No"),
        (["repo", "ls", "--repository", "/nowhere"], 5, "/nowhere: no such folder"),
        (["serve", "--repository", "/nowhere"], 5, "/nowhere: no such folder"),
        (["models", "--url", "a:1,a:1"], 5, "a:1, a:1: not a list of different servers"),
        (["models", "--transport", "udp"], 2, "is not one of 'auto', 'grpc', 'shm'"),
        (["models", "--hedge", "0.5"], 5, "a hedge of 0.5 is too early"),
        (["models", "--patience", "-1"], 5, "a patience of -1.0 s is none"),
        (["models", "--ca", "/no.pem"], 1, "/no.pem: cannot be read"),
        (["models", "--cert", "/no.pem"], 5, "a client certificate without its key"),
        (["models", "--token-file", "x", "--url", "a:1"], 5, "a:1: a token would travel in clear"),
        (["demo", "--examples", "/nowhere"], 1, "the demo's checkpoint is not here"),
    ],
)
def test_a_failure_without_a_server_has_its_exit_code(
    arguments: list[str], code: int, words: str
) -> None:
    done = galatea(*arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_told() -> None:
    assert galatea("--version").stdout.startswith("galatea, version 0.")
