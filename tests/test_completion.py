"""What the shell completes, asked as the shell asks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from galatea.catalogue import entries
from galatea_exporter.family import families
from galatea_server.server import EmbeddedServer
from support import ROOT, served_names

GALATEA = Path(sys.executable).with_name("galatea")


@pytest.fixture(autouse=True)
def settings(home: None) -> Path:
    """Where the settings file is looked for."""
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "galatea" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


def complete(line: str, **environment: str) -> list[str]:
    """What bash would offer at the end of a line; a space at the end begins a new word."""
    words = line.split(" ")
    done = subprocess.run(
        [GALATEA],
        env={
            **os.environ, **environment, "_GALATEA_COMPLETE": "bash_complete",
            "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return [answer.partition(",")[2] for answer in done.stdout.split()]


def test_commands_and_options_are_completed() -> None:
    assert complete("galatea c") == ["catalog", "config", "completion"]
    assert complete("galatea repo v") == ["verify"]
    assert "--token-file" in complete("galatea sample --t")
    assert complete("galatea sample --transport s") == ["shm"]


def test_models_are_those_of_the_server_that_flag_variable_or_file_name(
    server: EmbeddedServer, settings: Path
) -> None:
    url = server.grpc_url
    assert complete(f"galatea sample --url {url} ma") == ["masses"]
    assert complete("galatea show ", GALATEA_URL=url) == served_names()
    settings.write_text(f'url = "{url}"\n')
    assert complete("galatea bench ph") == ["phantom"]


def test_labels_are_those_of_the_model(server: EmbeddedServer) -> None:
    line = f"galatea sample masses --url {server.grpc_url} --label "
    assert complete(line) == ["balanced", "benign", "malignant"]
    assert complete(f"{line}m") == ["malignant"]


def test_families_ids_and_releases_are_completed(repository: Path) -> None:
    assert complete("galatea export ") == sorted(families())
    assert complete("galatea export pix2pixh") == ["pix2pixhd"]
    assert complete("galatea catalog --family cyc") == ["cyclegan_aitorzip", "cyclegan_junyanz"]
    assert complete("galatea import 0001") == [id_ for id_ in entries() if id_.startswith("0001")]
    assert complete(f"galatea repo show --repository {repository} ph") == ["phantom"]


def test_a_prompt_stays_clean_whatever_is_wrong(settings: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert complete(f"galatea sample --url 127.0.0.1:{sock.getsockname()[1]} ") == []
    assert complete("galatea sample --url nonsense ") == []
    assert complete("galatea repo show --repository /nowhere ") == []
    settings.write_text("this is no TOML")
    assert complete("galatea mod") == ["models"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(shell: str) -> None:
    done = subprocess.run(
        [GALATEA, "completion", shell], capture_output=True, text=True, check=True
    )
    assert "_GALATEA_COMPLETE" in done.stdout


def test_overlays_and_components_are_completed() -> None:
    render = f"galatea deploy render --k8s {ROOT / 'k8s'}"
    assert complete(f"{render} gpu") == ["gpu", "gpu-autoscaled"]
    assert complete(f"{render} gpu --component mon") == ["monitoring"]
    assert complete(f"galatea deploy render --k8s {ROOT / 'docs'} gpu") == []
