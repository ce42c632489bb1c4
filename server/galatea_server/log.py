"""What Triton's log tells: why it ended, and the lines that a person asked for."""

from __future__ import annotations

import ctypes
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from galatea.errors import GalateaError, MachineError, RepositoryError, ServerError

POLL_SECONDS = 0.1
KEPT_BYTES = 1 << 20  # of what was shown, a server that runs for months keeps no more
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2

# How a message begins: its severity, in the format iso8601 after the time.
MESSAGE = re.compile(r"(?:\d{4}-\d\d-\d\dT[\d:]+Z )?([EWIF])[ \d]")

# Which messages each level shows, by their severity.
LEVELS = {"error": "EF", "warning": "EWF", "info": "EWIF", "verbose": "EWIF"}

# What Triton says as a warning or an error wherever there is no GPU; of no consequence.
NOISE = re.compile(
    "CudaDriverHelper has not been initialized"
    "|no pinned memory pool, falling back"
    "|unable to create stream for .* CUDA driver version is insufficient"
)

# What Triton says of a model that it refuses: the model and the reason.
REFUSALS = (
    r"failed to load '([^']+)' version \d+: (.+)",
    r"Poll failed for model directory '([^']+)': (.+)",
    r"ensemble '?([\w.-]+)'? ((?:contains|depends on) .+)",
    r"failed to load model '([^']+)': (.+)",
)
LOST_PORT = r"failed to start (\w+) service: .*Socket '(\S+):(\d+)' already in use"


def explain(log: str, status: int, repository: Path) -> GalateaError:
    """Why Triton ended, from its log: the model and the reason where it refused one."""
    for pattern in REFUSALS:
        if refused := re.search(pattern, log):
            return RepositoryError(
                f"Triton refuses the model {refused[1]!r}: {_clean(refused[2])}",
                f"check the repository: galatea repo verify --repository {repository}",
            )
    if lost := lost_port(log):
        return MachineError(
            f"the {lost[0]} port {lost[1]} was taken while Triton started",
            f"stop what listens there, or choose another --{lost[0]}-port",
        )
    if missing := re.search(r"error while loading shared libraries: (\S+):", log):
        return MachineError(f"tritonserver needs {missing[1]}", "run: galatea doctor")
    return ServerError(
        f"Triton ended with status {status}: {last_words(log)}", "run: galatea doctor"
    )


def lost_port(log: str) -> tuple[str, int] | None:
    """(protocol, port) that Triton could not listen on because another process does."""
    if found := re.search(LOST_PORT, log):
        return found[1].lower(), int(found[3])
    return None


def aborted_by_chance(log: str, status: int) -> bool:
    """Whether Triton's Python backend lost a race with one of its own processes."""
    return status == -signal.SIGABRT and "boost::interprocess::lock_exception" in log


def last_words(log: str) -> str:
    """The last error in the log, else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not NOISE.search(line)]
    errors = [
        line
        for line in lines
        if line.startswith("error") or ((found := MESSAGE.match(line)) and found[1] == "E")
    ]
    return _clean((errors or lines or ["it left no word"])[-1])


@contextmanager
def shown(log: BinaryIO, level: str) -> Iterator[None]:
    """Copies the log's messages of a level to stderr while the block runs.

    Args:
        log: a file that Triton appends to.
        level: one of :data:`LEVELS`.
    """
    done = threading.Event()
    thread = threading.Thread(target=_copy, args=(log.fileno(), level, done), name="log")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _copy(number: int, level: str, done: threading.Event) -> None:
    # Opened anew, since a duplicate would share its position with Triton, which writes there.
    with open(f"/proc/self/fd/{number}", "rb") as file:
        wanted, line, freed = False, b"", 0
        while True:
            over = done.is_set()
            line += file.readline()
            if not line.endswith(b"\n"):
                if over:
                    return
                if file.tell() - freed > KEPT_BYTES:
                    freed = file.tell()
                    _free(number, freed)
                done.wait(POLL_SECONDS)
                continue
            text, line = line.decode("utf-8", "replace"), b""
            # Any other line continues the message before it.
            if message := MESSAGE.match(text):
                wanted = message[1] in LEVELS[level] and not NOISE.search(text)
            if wanted:
                sys.stderr.write(text)
                sys.stderr.flush()


def _free(number: int, end: int) -> None:
    """Gives back the room of a file's bytes before `end`; where that cannot be, they stay."""
    libc = ctypes.CDLL(None)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    libc.fallocate(number, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, end)


def _clean(text: str) -> str:
    """The reason without Python's traceback and Triton's names of its own errors."""
    reason = text.partition("\\n\\nAt:")[0].strip().strip('"').rstrip(".")
    return reason.removeprefix("Internal: ").removeprefix("TritonModelException: ")
