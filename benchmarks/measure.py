"""Shared by the benchmarks: load in closed loops, CPU time of process trees, the machine."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

TICKS = os.sysconf("SC_CLK_TCK")
CORES = len(os.sched_getaffinity(0))
QUIET = 0.05  # share of the machine that others may use in a round that counts
VECTORS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")

# The exporter holds PyTorch's MKL to equal bits in every run; here it shall take its fastest way.
os.environ["MKL_CBWR"] = "AUTO"


@dataclass(frozen=True)
class Contender:
    """Something that makes images, and how many callers ask for them at once.

    Attributes:
        name: what it is called in the tables.
        callers: threads, each with its next request when it has the answer.
        call: ``call(caller)`` makes one request and returns the number of images that it got.
        servers: roots of the process trees that work for this process.
    """

    name: str
    callers: int
    call: Callable[[int], int]
    servers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Round:
    """What a contender did in one round.

    Attributes:
        images: that it made.
        seconds: of the clock.
        cpu: seconds of processors, user and system, of all processes that took part.
        others: seconds of processors that everything else on the machine used meanwhile.
    """

    images: int
    seconds: float
    cpu: float
    others: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    @property
    def frugality(self) -> float:
        """Images per CPU-second."""
        return self.images / self.cpu

    @property
    def disturbance(self) -> float:
        """Share of the machine that others used."""
        return self.others / (self.seconds * CORES)


def play(contender: Contender, seconds: float) -> Round:
    """One round: every caller starts requests for `seconds`, and all are waited for.

    The requests that are still on their way then are part of the round, and so is their time.
    """
    cpu, busy = cpu_seconds(contender.servers), busy_seconds()
    start = time.perf_counter()

    def loop(caller: int) -> int:
        images = contender.call(caller)
        while time.perf_counter() < start + seconds:
            images += contender.call(caller)
        return images

    with ThreadPoolExecutor(contender.callers) as pool:
        images = sum(pool.map(loop, range(contender.callers)))
    elapsed = time.perf_counter() - start
    cpu, busy = cpu_seconds(contender.servers) - cpu, busy_seconds() - busy
    return Round(images, elapsed, cpu, max(0.0, busy - cpu))


def interleave(
    contenders: Sequence[Contender], rounds: int, seconds: float
) -> dict[Contender, list[Round]]:
    """Rounds in the order A B C A B C …, so that a noisy machine is noisy to all of them.

    A short round of each comes first and is not counted. Where other processes used the machine,
    all play again; of at most three times as many rounds the quietest are kept.
    """
    for contender in contenders:
        play(contender, seconds / 10)
    played: list[list[Round]] = []
    while len(played) < 3 * rounds and sum(_noise(turn) < QUIET for turn in played) < rounds:
        played.append([play(contender, seconds) for contender in contenders])
    kept = sorted(played, key=_noise)[:rounds]
    return {contender: [turn[k] for turn in kept] for k, contender in enumerate(contenders)}


def _noise(turn: Sequence[Round]) -> float:
    return max(played.disturbance for played in turn)


@dataclass(frozen=True)
class Spread:
    """The median of some figures, and the smallest and largest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        """The spread of at least one figure."""
        values = list(figures)
        return cls(statistics.median(values), min(values), max(values))


def ratios(
    ours: Sequence[Round], theirs: Sequence[Round], figure: Callable[[Round], float]
) -> Spread:
    """`figure` of ours by theirs, round by round."""
    return Spread.of(figure(a) / figure(b) for a, b in zip(ours, theirs, strict=True))


def cpu_seconds(servers: Iterable[int] = ()) -> float:
    """User and system time of this process and of the process trees below `servers`.

    The trees are read in ticks of the kernel, 10 ms on most machines; ended children count.
    """
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # it has just ended
                continue
            # The name in parentheses may hold spaces; after it come state, ppid, …
            fields = stat.rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            ticks[int(entry.name)] = sum(map(int, fields[11:15]))  # utime stime cutime cstime
    wanted = set(servers)
    size = -1
    while size != len(wanted):
        size = len(wanted)
        wanted |= {pid for pid, parent in parents.items() if parent in wanted}
    return time.process_time() + sum(ticks.get(pid, 0) for pid in wanted) / TICKS


def busy_seconds() -> float:
    """CPU-seconds that this machine has worked since it started, for anything at all."""
    user, nice, system, _idle, _waiting, irq, softirq, stolen, *_ = (
        int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + stolen) / TICKS


def matmul_peak(sizes: Sequence[int] = (1536, 2048, 3072, 4096), repeats: int = 5) -> float:
    """The machine's float32 matrix-multiply peak in FLOP/s.

    The best of `repeats` square products of each size, in NumPy and in PyTorch, with all threads.
    """
    best = 0.0
    for size in sizes:
        a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
        b = a.T.copy()
        operands: list[tuple[Any, Any]] = [(a, b), (torch.from_numpy(a), torch.from_numpy(b))]
        for one, other in operands:
            one @ other
            for _ in range(repeats):
                start = time.perf_counter()
                one @ other
                best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def machine() -> dict[str, str]:
    """What the figures were measured on, and when."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    facts = {
        name.strip(): fact.strip()
        for name, _, fact in (line.partition(":") for line in cpuinfo.splitlines())
    }
    meminfo = Path("/proc/meminfo").read_text().split()
    memory = int(meminfo[meminfo.index("MemTotal:") + 1]) / 2**20
    vectors = [flag for flag in VECTORS if flag in facts.get("flags", "").split()]
    name = facts.get("model name", platform.machine())
    return {
        "CPU": f"{name} ({', '.join(vectors)})" if vectors else name,
        "cores": str(CORES),
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Python": platform.python_version(),
    }


def versions(*distributions: str) -> dict[str, str]:
    """Distribution → its version in this environment."""
    return {name: version(name) for name in distributions}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[int] = ()) -> str:
    """A markdown table; the columns with the numbers `left` are texts, the others figures."""
    rule = ["---" if column in left else "---:" for column in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))


def note(text: str) -> None:
    """A line of progress on stderr; stdout is the report."""
    print(text, file=sys.stderr, flush=True)
