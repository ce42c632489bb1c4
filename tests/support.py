"""What several tests need besides fixtures."""

from __future__ import annotations

import os
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from galatea_exporter.family import families
from galatea_server.server import EmbeddedServer

ROOT = Path(__file__).parents[1]

# Checkpoints in upstream formats with expected outputs; they are not part of the repository.
GOLDEN = Path(os.environ.get("GALATEA_GOLDEN", ROOT.parent / "shared" / "golden"))

# Starts galatea so that it hears SIGINT: tests that run in the background hand an ignored one down.
INTERRUPTIBLE = [
    sys.executable, "-c",
    "import signal as s; s.signal(s.SIGINT, s.default_int_handler); import galatea.__main__",
]  # fmt: skip


def served_names() -> list[str]:
    """Names of the generators in the fixture ``repository``."""
    return sorted([*families(), "masses", "phantom"])


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Fails when the condition has not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def metric(server: EmbeddedServer, name: str, model: str) -> float:
    """The value that Triton's metrics have for a model; 0 where they have none."""
    text = urllib.request.urlopen(f"http://{server.metrics_url}/metrics").read().decode()
    lines = [line for line in text.splitlines() if line.startswith(f'{name}{{model="{model}"')]
    return sum(float(line.split()[-1]) for line in lines)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
