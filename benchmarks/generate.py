"""Data sets: images per second, and the client's peak memory, which must not grow with n.

Run it from the root of the source tree, with all extras installed, on a machine that does nothing
else::

    python benchmarks/generate.py --write docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from galatea.datasets import FORMATS
from galatea_exporter.export import Facts, export
from galatea_server.server import EmbeddedServer
from measure import machine, note, table, versions
from report import deliver

TITLE = "Data sets"
PHANTOM = Path(__file__).parents[1] / "examples" / "phantom"
PACKAGES = ("galatea", "Pillow", "numpy", "pyarrow", "highdicom", "nibabel", "nvidia-pytriton")
SMALL, LARGE = 1_000, 10_000
LARGEST = {"png": 100_000}
LIMIT = 250_000_000  # bytes

# The peak that the kernel tells of a process includes what its parent had when it was forked, so a
# small process starts it.
LAUNCHER = """
import os, resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss << 10)
"""

HOW = """\
`galatea generate phantom -n N` makes images of 128×128 with masks from the demo generator, on the
embedded server on this machine, into a folder of a disk. Memory is the peak of the client's process
(resident, libraries included), CPU-seconds are its own; the server has the same cores. Each line is
one run.
"""


@dataclass(frozen=True)
class Run:
    """One data set.

    Attributes:
        peak: bytes of the client's process at the most.
        cpu: its CPU-seconds.
    """

    format: str
    n: int
    seconds: float
    cpu: float
    peak: int


def measure(url: str, quick: bool) -> Iterator[Run]:
    """Makes data sets of every format and of several sizes."""
    for name in FORMATS:
        sizes = (100, 200) if quick else (SMALL, LARGE, *filter(None, (LARGEST.get(name),)))
        for n in sizes:
            note(f"{name}: {n} images")
            yield run(url, name, n)


def run(url: str, name: str, n: int) -> Run:
    """Makes a data set in a process of its own, and throws it away."""
    with tempfile.TemporaryDirectory(prefix="galatea-generate-") as folder:
        arguments = ["generate", "phantom", "-n", str(n), "--seed", "0", "--format", name]
        command = [*arguments, "-o", folder, "--url", url, "--quiet"]
        begin = time.perf_counter()
        told = subprocess.run(
            [sys.executable, "-S", "-c", LAUNCHER, sys.executable, "-m", "galatea", *command],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        seconds = time.perf_counter() - begin
        cpu, peak = told.split()[-2:]
        return Run(name, n, seconds, float(cpu), int(peak))


def report(runs: list[Run]) -> str:
    """The section."""
    place = {**machine(), **versions(*PACKAGES)}
    lines = [
        (
            f"`{run.format}`", f"{run.n:,}", f"{run.n / run.seconds:.0f}", f"{run.n / run.cpu:.0f}",
            f"{run.peak / 1e6:.0f}", "yes" if run.peak <= LIMIT else "**no**",
        )
        for run in runs
    ]  # fmt: skip
    heads = ("format", "n", "images/s", "images per client CPU-s", "peak MB", "≤ 250 MB")
    return "\n".join(
        [
            "Made by `python benchmarks/generate.py`.",
            "",
            *[f"- {name}: {value}" for name, value in place.items()],
            "",
            HOW,
            table(heads, lines, left=(0,)),
        ]
    )


def main() -> None:
    """Measures every format and prints or writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the section in FILE")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="galatea-generate-") as folder:
        models = Path(folder) / "models"
        export(
            "dcgan_mammo", PHANTOM / "phantom_cdcgan.pt",
            name="phantom", repository=models, facts=Facts.read(PHANTOM / "card.toml"),
        )  # fmt: skip
        with EmbeddedServer(models) as server:
            runs = list(measure(server.grpc_url, chosen.quick))
    text = report(runs)
    deliver(chosen.write, TITLE, text)


if __name__ == "__main__":
    main()
