"""Flags, environment variables, the settings file and defaults, and which of them wins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from galatea.cli import main
from galatea.errors import InvalidInput
from galatea_server.server import EmbeddedServer


@pytest.fixture(autouse=True)
def settings(home: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings file is looked for; nothing else sets anything."""
    for variable in [name for name in os.environ if name.startswith("GALATEA_")]:
        monkeypatch.delenv(variable)
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "galatea" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


def galatea(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "galatea", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def in_force(*arguments: object) -> dict[str, tuple[Any, str]]:
    """Value and origin of each setting."""
    done = galatea(*arguments, "config", "--json")
    assert done.returncode == 0, done.stderr
    return {entry["name"]: (entry["value"], entry["origin"]) for entry in json.loads(done.stdout)}


def test_a_flag_beats_a_variable_that_beats_the_file_that_beats_the_default(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_force()["timeout"] == (None, "default")
    settings.write_text("timeout = 10\n")
    assert in_force()["timeout"] == (10.0, str(settings))
    monkeypatch.setenv("GALATEA_TIMEOUT", "20")
    assert in_force()["timeout"] == (20.0, "GALATEA_TIMEOUT")
    done = galatea("config", "--timeout", 30)
    assert "timeout\t30.0\t--timeout" in done.stdout.splitlines()


def test_the_file_is_the_one_that_is_named(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_force()["config"] == (None, "default")
    settings.write_text("timeout = 1\n")
    assert in_force()["config"] == (str(settings), "default")
    other, third = tmp_path / "other.toml", tmp_path / "third.toml"
    other.write_text("timeout = 2\n")
    third.write_text("timeout = 3\n")
    monkeypatch.setenv("GALATEA_CONFIG", str(other))
    there = in_force()
    assert there["config"] == (str(other), "GALATEA_CONFIG")
    assert there["timeout"] == (2.0, str(other))
    assert in_force("--config", third)["timeout"] == (3.0, str(third))
    assert in_force("--config", "/dev/null")["timeout"] == (None, "default")


def test_servers_are_listed_in_every_way(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.write_text('url = ["a:1", "b:2"]\n')
    assert in_force()["url"] == (["a:1", "b:2"], str(settings))
    settings.write_text('url = "a:1"\n')
    assert in_force()["url"] == (["a:1"], str(settings))
    monkeypatch.setenv("GALATEA_URL", "c:3, d:4,e:5")
    assert in_force()["url"] == (["c:3", "d:4", "e:5"], "GALATEA_URL")
    done = galatea("config", "--json", "--url", "f:6", "--url", "g:7")
    assert json.loads(done.stdout)[1] == {
        "name": "url", "value": ["f:6", "g:7"], "origin": "--url"
    }  # fmt: skip


def test_single_commands_have_settings_of_their_own(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not [name for name in in_force() if "." in name]
    settings.write_text('timeout = 5\n'
                        '[sample]\noutput = "there"\nset = ["truncation=0.7"]\ntimeout = 9\n'
                        '[repo.verify]\nrepository = "/srv/models"\n')  # fmt: skip
    monkeypatch.setenv("GALATEA_SERVE_GRPC_PORT", "9001")
    assert {name: entry for name, entry in in_force().items() if "." in name} == {
        "sample.timeout": ("9", str(settings)),
        "sample.output": ("there", str(settings)),
        "sample.set": (["truncation=0.7"], str(settings)),
        "repo.verify.repository": ("/srv/models", str(settings)),
        "serve.grpc-port": ("9001", "GALATEA_SERVE_GRPC_PORT"),
    }
    done = galatea("repo", "verify")
    assert done.returncode == 5
    assert "/srv/models: no such folder" in done.stderr


def test_what_is_said_before_the_command_counts_too() -> None:
    done = galatea("-q", "-vv", "--json", "config")
    there = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert there["quiet"] == {"name": "quiet", "value": True, "origin": "--quiet"}
    assert there["verbose"] == {"name": "verbose", "value": 2, "origin": "--verbose"}


def test_a_variable_with_the_name_of_a_flag_of_one_call_is_none_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("VERSION", "JSON", "HELP"):  # GALATEA_VERSION may well be an image's tag
        monkeypatch.setenv(f"GALATEA_{name}", "1")
        monkeypatch.setenv(f"GALATEA_CONFIG_{name}", "1")
    assert galatea("config").stdout.startswith("config\t–\tdefault\n")


def test_commands_do_what_the_settings_say(
    server: EmbeddedServer, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.write_text(
        f'url = "{server.grpc_url}"\n[sample]\noutput = "{tmp_path / "there"}"\nn = 3\nseed = 5\n'
    )
    monkeypatch.setenv("GALATEA_SAMPLE_LABEL", "malignant")
    done = galatea("sample", "masses", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["n"], report["seeds"]) == (3, [5, 7])
    assert len(list((tmp_path / "there").glob("*malignant.png"))) == 3


@pytest.mark.parametrize(
    ("text", "words", "remedy"),
    [
        ('urls = "a:1"', "no setting urls", "did you mean url?"),
        ('token_file = "x"', "no setting token_file", "did you mean token-file?"),
        ("[sampel]", "no setting sampel", "did you mean sample?"),
        ("[sample]\noutptu = 1", "no setting sample.outptu", "did you mean sample.output?"),
        ("[repo.verfiy]", "no setting repo.verfiy", "did you mean repo.verify?"),
        ("[show]\nxyz = 1", "no setting show.xyz", "valid are: ca, cert"),
        ("json = true", "no setting json", "valid are: "),
        ("sample = 3", "'sample' is a command", "write a table: [sample]"),
        ('timeout = "long"', "timeout: 'long' is not a valid float", "--timeout in: galatea conf"),
        ("timeout = [1]", "timeout: a single value", "--timeout"),
        ("[url]", "url: a single value", "--url"),
        ('transport = "udp"', "transport: 'udp' is not one of 'auto', 'grpc', 'shm'", "--trans"),
        ("[sample]\nn = 1.5", "sample.n: '1.5' is not a valid integer", "-n in: galatea sample -"),
        ("timeout = 1\nurl = [", "no TOML: ", "mend the file"),
        ("timeout = 1\ntimeout = 2\ntls = true", "(at line 2, ", "mend the file"),
    ],
)
def test_what_no_command_would_heed_is_refused(
    settings: Path, text: str, words: str, remedy: str
) -> None:
    settings.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        main.make_context("galatea", ["models"])
    assert refused.value.problem.startswith(f"{settings}: ")
    assert words in refused.value.problem
    assert remedy in refused.value.remedy


@pytest.mark.parametrize(("path", "reason"), [("no.toml", "No such file"), (".", "Is a directory")])
def test_a_file_that_was_named_must_be_there(tmp_path: Path, path: str, reason: str) -> None:
    done = galatea("--config", tmp_path / path, "catalog")
    assert done.returncode == 5
    assert f"{tmp_path / path}: cannot be read: {reason}" in done.stderr
    assert done.stdout == ""


def test_a_token_is_never_shown(settings: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    settings.write_text(f'token-file = "{tmp_path / "token"}"\ntls = true\n')
    assert in_force()["token-file"] == (str(tmp_path / "token"), str(settings))
    for command in ("config", "doctor"):
        done = galatea("-vv", command)
        assert str(tmp_path / "token") in done.stdout
        assert "s3cret" not in done.stdout + done.stderr


def test_the_doctor_shows_the_settings_too(settings: Path) -> None:
    settings.write_text("patience = 3\n")
    told = json.loads(galatea("doctor", "--json").stdout)
    assert {"name": "patience", "value": 3.0, "origin": str(settings)} in told["settings"]
    assert {"numpy", "tritonclient"} <= {entry["check"] for entry in told["checks"]}
    assert f"patience\t3.0\t{settings}" in galatea("doctor").stdout.splitlines()
