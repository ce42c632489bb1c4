"""Callers: processes of their own that make images when they are told to.

:class:`Caller` is the benchmark's end and :func:`answer` the process's. The standard library alone:
the process may be in an environment that has nothing of galatea.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Make = Callable[[int, str | None], None]  # number of images, folder for their files or None


class Caller:
    """A process that makes images when it is told to, one call at a time.

    Args:
        python: interpreter of the environment.
        module: runs :func:`answer`.
        arguments: of the module.
        folder: where it runs.
        variables: of its environment, besides ours.

    Attributes:
        cpu: CPU-seconds that the process took until it was ready.
        peak: bytes of its memory at the peak so far.
    """

    def __init__(
        self,
        python: Path,
        module: str,
        arguments: list[str],
        folder: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._module = module
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            cwd=folder,
            env={**os.environ, **(variables or {}), "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        self.pid = self._process.pid
        self.cpu, self.peak = 0.0, 0

    def wait_until_ready(self) -> None:
        """Waits until everything is imported and a call can be made."""
        self.cpu = self._reply()["cpu"]

    def make(self, n: int, folder: Path | None) -> int:
        """Makes `n` images, as files in `folder` if there is one; returns their number."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([n, folder and str(folder)]) + "\n")
        self._process.stdin.flush()
        self._reply()
        return n

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process."""
        self._process.communicate()
        self._words.close()

    def _reply(self) -> Mapping[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._words.seek(0)
            sys.exit(f"{self._module} has ended:\n{self._words.read()[-2000:]}")
        reply: dict[str, float] = json.loads(line)
        self.peak = int(reply["peak"])
        return reply


def answer(make: Make) -> None:
    """Makes what it is told to until nobody is there any more.

    What else is printed goes to stderr.
    """
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)

        def reply() -> None:
            told = {"cpu": time.process_time(), "peak": peak()}
            print(json.dumps(told), file=replies, flush=True)

        reply()
        for line in sys.stdin:
            make(*json.loads(line))
            reply()


def peak(pid: int | str = "self") -> int:
    """Bytes of memory at the peak of a process; 0 when it has ended."""
    # Not ru_maxrss, which a process inherits from the one that started it.
    try:
        status = Path(f"/proc/{pid}/status").read_text().split()
    except OSError:
        return 0
    return int(status[status.index("VmHWM:") + 1]) * 1024 if "VmHWM:" in status else 0
