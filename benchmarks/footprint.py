"""What comes before the first image: size of the base install, import, start of a server."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from galatea_server.server import EmbeddedServer
from measure import Spread

INSTALLERS = {"pip", "setuptools"}  # a fresh virtual environment's own


@dataclass(frozen=True)
class Install:
    """An install of the client alone: distribution → bytes, with compiled modules and scripts."""

    python: Path
    sizes: dict[str, int]

    @property
    def size(self) -> int:
        """Bytes of everything."""
        return sum(self.sizes.values())


@contextmanager
def base_install(source: Path) -> Iterator[Install]:
    """Installs the project without extras, not editable, into a fresh virtual environment."""
    with tempfile.TemporaryDirectory(prefix="galatea-base-") as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", source], check=True)
        site = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        found = distributions(path=[site])
        sizes = {entry.name: _size(entry) for entry in found if entry.name not in INSTALLERS}
        yield Install(python, dict(sorted(sizes.items(), key=lambda item: -item[1])))


def _size(distribution: Distribution) -> int:
    paths = [Path(str(file.locate())) for file in distribution.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


@dataclass(frozen=True)
class Import:
    """Seconds of a fresh interpreter that imports galatea, and of one that does nothing."""

    galatea: Spread
    bare: Spread

    @property
    def alone(self) -> float:
        """Seconds that the import adds."""
        return self.galatea.median - self.bare.median


def import_seconds(python: Path, repeats: int) -> Import:
    """Times ``import galatea`` in fresh interpreters, in turn with bare ones.

    One of each comes first and is not counted: it compiles the modules, into a folder that is gone
    afterwards, and brings the files into memory.
    """
    timed: dict[str, list[float]] = {"import galatea": [], "pass": []}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(repeats + 1):
            for code, seconds in timed.items():
                start = time.perf_counter()
                subprocess.run([python, "-c", code], check=True, cwd=folder, env=environment)
                seconds.append(time.perf_counter() - start)
    return Import(*(Spread.of(seconds[1:]) for seconds in timed.values()))


@dataclass(frozen=True)
class Start:
    """Seconds until every model is ready, and of a first start without a backend directory."""

    again: Spread
    first: float


def ready_seconds(repository: Path, repeats: int) -> Start:
    """Times :meth:`EmbeddedServer.start`; the files of the repository are in memory already."""
    with tempfile.TemporaryDirectory() as cache:
        kept = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = cache
        try:
            times = [_start(repository) for _ in range(repeats + 1)]
        finally:
            del os.environ["XDG_CACHE_HOME"]
            if kept is not None:
                os.environ["XDG_CACHE_HOME"] = kept
    return Start(Spread.of(times[1:]), times[0])


def _start(repository: Path) -> float:
    server = EmbeddedServer(repository)
    start = time.perf_counter()
    server.start()
    elapsed = time.perf_counter() - start
    server.stop()
    return elapsed
