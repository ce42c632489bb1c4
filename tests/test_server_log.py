"""What of the server's log is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from galatea_server.log import last_words, shown
from support import wait_until


def test_the_log_is_shown_from_a_level_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [
        "I1121 07:00:00.000000 1 server.cc:1] news\n", "+---+\n",
        "E1121 07:00:00.000000 1 server.cc:241] \"CudaDriverHelper has not been initialized.\"\n",
        "W1121 07:00:00.000000 1 server.cc:2] a warning\n", "that goes on\n",
    ]  # fmt: skip
    with (tmp_path / "log").open("w+b") as log:
        with shown(log, "warning"):
            for message in messages:
                log.write(message.encode())
                log.flush()
        assert capsys.readouterr().err == "".join(messages[3:])
        with shown(log, "info"):
            pass
        assert capsys.readouterr().err == "".join(messages[:2] + messages[3:])


def test_what_was_shown_of_a_long_log_takes_no_room(tmp_path: Path) -> None:
    line = b"I1121 07:00:00.000000 1 server.cc:1] " + b"x" * 100_000 + b"\n"
    with (tmp_path / "log").open("w+b") as log, shown(log, "error"):
        for _ in range(40):
            log.write(line)
        log.flush()
        assert os.fstat(log.fileno()).st_size == 40 * len(line)
        wait_until(lambda: os.fstat(log.fileno()).st_blocks * 512 < len(line))


def test_a_log_with_dates_is_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["2026-01-31T07:00:00Z I 1 a.cc:1] news\n", "2026-01-31T07:00:01Z E 1 a.cc:2] bad\n"]
    with (tmp_path / "log").open("w+b") as log:
        log.write("".join(lines).encode())
        log.flush()
        with shown(log, "warning"):
            pass
    assert capsys.readouterr().err == lines[1]
    assert last_words("".join(lines)) == lines[1].strip()
