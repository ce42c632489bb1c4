"""What goes to stdout and stderr: JSON, quiet, verbose, colours, and the exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from galatea.cli import COMMANDS, main
from galatea_server.server import EmbeddedServer
from support import INTERRUPTIBLE, wait_until

COLOUR = "\x1b[3"  # how the code of each of the eight colours begins


@pytest.fixture(autouse=True)
def home_of_this_test(home: None) -> None:
    """No settings file."""


def galatea(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "galatea", *map(str, arguments)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def on_a_terminal(*arguments: object, **environment: str) -> tuple[int, str]:
    """Exit code and what a person sees of a command, both of its streams."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "galatea", *map(str, arguments)],
        env={**os.environ, "TERM": "xterm-256color", **environment}, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    seen = b""
    with open(master, "rb", buffering=0) as terminal:
        try:
            while chunk := terminal.read(1 << 16):
                seen += chunk
        except OSError:  # Linux' word for a terminal that nobody writes to any more
            pass
    return process.wait(), seen.decode()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody answers."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{sock.getsockname()[1]}"


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


def test_every_command_can_be_quiet_verbose_and_speak_json() -> None:
    mute = [
        name
        for name, command in commands(main)
        if not {"--json", "--quiet", "-q", "--verbose", "-v"}
        <= {flag for option in command.params for flag in option.opts}
    ]
    assert mute == ["completion"]  # what it prints is for a shell


def test_all_that_is_printed_is_json_where_that_was_asked_for(
    server: EmbeddedServer, repository: Path, tmp_path: Path
) -> None:
    remote = ("--url", server.grpc_url)
    local = ("--repository", repository)
    for arguments in (
        ("models", *remote),
        ("show", "masses", *remote),
        ("sample", "masses", "-n", 2, "-o", tmp_path, *remote),
        ("bench", "masses", "--batch", 1, "--callers", 1, "--seconds", 0.1, *remote),
        ("catalog", "breast"),
        ("families",),
        ("config",),
        ("repo", "ls", *local),
        ("repo", "show", "masses", *local),
        ("repo", "verify", "masses", *local),
        ("repo", "activate", "masses", 1, *local),
    ):
        for done in (galatea(*arguments, "--json"), galatea("--json", *arguments)):
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)
            assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["catalog", "--show", "00001", "--json"], 0, None),
        (["demo", "--examples", "/nowhere", "--json"], 1, "MachineError"),
        (["sample", "masses", "--nn", "--json"], 2, "UsageError"),
        (["dance", "--json"], 2, "UsageError"),
        (["--json"], 2, "UsageError"),
        (["models", "--json", "--url", "NOBODY"], 3, "ServerUnreachable"),
        (["show", "xyz", "--json", "--url", "SERVER"], 4, "ModelUnavailable"),
        (["sample", "masses", "-n", "0", "--json", "--url", "SERVER"], 5, "InvalidInput"),
        (["repo", "verify", "--repository", "/nowhere", "--json"], 5, "RepositoryError"),
        (["show", "masses", "--timeout", "0.00001", "--json", "--url", "SERVER"], 6,
         "DeadlineExceeded"),
    ],
)  # fmt: skip
def test_every_exit_code_has_its_json(
    server: EmbeddedServer, nobody: str, arguments: list[str], code: int, error: str | None
) -> None:
    places = {"SERVER": server.grpc_url, "NOBODY": nobody}
    done = galatea(*[places.get(word, word) for word in arguments])
    assert done.returncode == code
    if error is not None:
        told = json.loads(done.stderr)
        assert (told["error"], told["exit_code"]) == (error, code)
        assert told["problem"]
        assert told["remedy"]
        assert done.stdout == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_ends_with_130(server: EmbeddedServer, tmp_path: Path, as_json: bool) -> None:
    process = subprocess.Popen(
        [*INTERRUPTIBLE, "sample", "masses", "-n", "1000000", "-o", tmp_path,
         "--url", server.grpc_url, *["--json"] * as_json],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            wait_until(lambda: any(tmp_path.iterdir()), seconds=60)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    if as_json:
        assert json.loads(told)["error"] == "Interrupted"
    else:
        assert told == "interrupted\n"


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "galatea", "catalog", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == ""
    assert process.wait() == 0


def test_progress_is_for_terminals_and_can_be_silenced(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    arguments = ("sample", "masses", "-n", 40, "-o", tmp_path, "--url", server.grpc_url)
    code, seen = on_a_terminal(*arguments)
    assert (code, "40/40" in seen) == (0, True)
    for flags in (("-q",), ("--json",)):
        code, seen = on_a_terminal(*arguments, *flags)
        assert (code, "40/40" in seen, "\x1b" in seen) == (0, False, False)
    assert galatea(*arguments).stderr == ""


def test_quiet_keeps_data_and_errors_and_drops_the_news(nobody: str) -> None:
    words = ("catalog", "nothing-is-called-so")
    assert "nothing in the catalogue matches" in galatea(*words).stderr
    assert galatea(*words, "-q").stderr == galatea("-q", *words).stderr == ""
    assert galatea(*words, GALATEA_QUIET="1").stderr == ""
    assert galatea("catalog", "breast", "-q").stdout == galatea("catalog", "breast").stdout != ""
    assert "error: " in galatea("models", "-q", "--url", nobody).stderr


def test_verbose_tells_what_the_client_does(nobody: str) -> None:
    words = ("models", "--url", f"{nobody},localhost:1", "--patience", 0)
    assert "INFO" not in galatea(*words).stderr
    for done in (
        galatea(*words, "-v"),
        galatea("-v", *words),
        galatea(*words, GALATEA_VERBOSE="1"),
    ):
        assert f"INFO {nobody}: left alone" in done.stderr
    assert "INFO" not in galatea(*words, "-v", "-q").stderr


def test_colours_are_for_terminals_that_want_them(
    server: EmbeddedServer, nobody: str, tmp_path: Path
) -> None:
    error = ("models", "--url", nobody, "--patience", 0)
    sample = ("sample", "masses", "-n", 8, "-o", tmp_path, "--url", server.grpc_url)
    for arguments, code in ((error, 3), (sample, 0)):
        status, seen = on_a_terminal(*arguments)
        assert (status, COLOUR in seen) == (code, True)
        status, seen = on_a_terminal(*arguments, NO_COLOR="1")
        assert (status, COLOUR in seen) == (code, False)
        status, seen = on_a_terminal(*arguments, TERM="dumb")
        assert (status, "\x1b" in seen) == (code, False)
    for words in (["catalog"], ["show", "masses", "--url", server.grpc_url]):
        assert "\x1b" not in on_a_terminal(*words, TERM="dumb")[1]
        assert COLOUR not in on_a_terminal(*words, NO_COLOR="1")[1]
    assert "\x1b" not in galatea(*error).stderr


def test_every_command_is_found_by_its_name() -> None:
    assert {name.partition(" ")[0] for name, _ in commands(main)} == set(COMMANDS)
