"""The report of peer.py as markdown."""

from __future__ import annotations

import contextlib
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from callers import peak
from measure import Round, Spread, ratios, table

GALATEA, MEDIGAN, DEFAULT = "galatea", "medigan, 1 thread", "medigan"

# × medigan in images per CPU-second, by the images a call.
BARS = {1: 3.0, 100: 1.3}
GROWTH = 1.1  # of a caller's peak, between the two largest calls

HOW = """\
Both make images of the full-width DCGAN (nz 100, ngf 64, 128×128) from the same weights; that they
do is checked first, by their mean images. A caller is a process of its own, which has imported what
it needs before it is measured, and all are on one machine with galatea's server. medigan is
installed from its package with the same PyTorch, OpenCV, and a setuptools that still has
`pkg_resources`; its configuration and model lie where it keeps what it has downloaded. Its callers
call `Generators.generate`: for every 32 images that runs the model's package, which builds the
network, reads the weights, runs it (PyTorch records gradients) and writes PNG files with OpenCV.
The package is written for this comparison and does what medigan's template does. PyTorch's usual
threads, one for each core, cost CPU time, the more so with several callers; so the medigan that is
compared with has one thread a caller. galatea's callers use `Client.stream`, and `Samples.save` for
PNG files with their provenance. *Arrays* is the same without files; medigan then makes all images
of a call in one batch. CPU-seconds are those of all processes: callers, server and its model
instances. Rounds are interleaved; figures are medians, with the range of the rounds in brackets;
ratios are taken round by round. Where all callers together make {many} images or more in one call,
one call of each is the only round. Other rounds that other processes disturbed were played again.
In those that count they used {median:.1%} of the machine in the median, {high:.0%} at most. Memory
is the highest peak of any caller, with the calls of the lines above behind it; that of the server
is tritonserver and its model instances together."""


@dataclass(frozen=True)
class Result:
    """What callers of one library did.

    Attributes:
        n: images a call.
        callers: at once.
        name: of the library, and how it was used.
        files: they wrote PNG files.
        peak: bytes, the highest of any of these callers so far.
        served: bytes, the peaks of the server and its model instances so far; None without one.
    """

    n: int
    callers: int
    name: str
    files: bool
    rounds: list[Round]
    peak: int
    served: int | None


@dataclass(frozen=True)
class Ready:
    """What it costs to start a caller: seconds, CPU-seconds, bytes at the peak."""

    seconds: float
    cpu: float
    peak: int


def server_peak(pid: int) -> int:
    """Bytes at the peaks of a server and its model instances; they are a session of their own."""
    total = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(ProcessLookupError):
            if entry.name.isdecimal() and os.getsid(int(entry.name)) == pid:
                total += peak(int(entry.name))
    return total


def share(results: Sequence[Result], result: Result) -> Spread:
    """Images per CPU-second by those of medigan with one thread at the same work."""
    work = result.n, result.callers, result.files
    [other] = [
        other.rounds
        for other in results
        if (other.n, other.callers, other.files) == work and other.name == MEDIGAN
    ]
    return ratios(result.rounds, other, lambda played: played.frugality)


def throughput_table(results: Sequence[Result]) -> str:
    """Images per second and CPU-second."""
    rows = []
    for result in results:
        rows.append(
            (
                str(result.n),
                str(result.callers),
                _name(result),
                f"{Spread.of(played.rate for played in result.rounds).median:.1f}",
                f"{Spread.of(played.frugality for played in result.rounds).median:.1f}",
                "1" if result.name == MEDIGAN else _range(share(results, result)),
            )
        )
    heads = "images a call", "callers", "contender", "images/s", "images/CPU-s", f"CPU × {MEDIGAN}"
    return table(heads, rows, left=(2,))


def memory_table(results: Sequence[Result]) -> str:
    """Peaks by the images a call."""
    names = list(dict.fromkeys(_name(result) for result in results))
    rows = []
    for n in dict.fromkeys(result.n for result in results):
        mine = [result for result in results if result.n == n]
        peaks = [max(result.peak for result in mine if _name(result) == name) for name in names]
        served = max(result.served for result in mine if result.served is not None)
        rows.append([str(n), *(f"{size / 1e6:.0f}" for size in (*peaks, served))])
    return table(("images a call", *names, "galatea's server"), rows)


def ready_table(ready: Mapping[str, Ready]) -> str:
    """Imports, before anything is made."""
    rows = [
        (name, f"{cost.seconds:.2f}", f"{cost.cpu:.2f}", f"{cost.peak / 1e6:.0f}")
        for name, cost in ready.items()
    ]
    return table(("caller", "seconds", "CPU-seconds", "MB"), rows, left=(0,))


def requirements_table(results: Sequence[Result]) -> str:
    """The requirements that these measurements decide."""
    rows: list[tuple[str, str, str, bool]] = []
    for result in results:
        if result.name == GALATEA and result.files and result.n in BARS:
            times, bar = share(results, result), BARS[result.n]
            what = f"images per CPU-second, {result.n} a call, {result.callers} at once"
            rows.append((what, f"≥ {bar:g} × {MEDIGAN}", _range(times), times.median >= bar))
    mine = [result for result in results if result.name == GALATEA and result.files]
    *_, before, largest = dict.fromkeys(result.n for result in mine)
    growth = _peak(mine, largest) / _peak(mine, before)
    what = f"peak memory of a caller, {largest} images a call"
    rows.append((what, f"≤ {GROWTH:g} × that of {before}", f"{growth:.2f}", growth <= GROWTH))
    told = [(what, bar, shown, "yes" if met else "**no**") for what, bar, shown, met in rows]
    return table(("requirement", "bar", "measured", "met"), told, left=(0, 1, 2, 3))


def how(results: Sequence[Result], many: int) -> str:
    """How it was measured."""
    others = Spread.of(played.disturbance for result in results for played in result.rounds)
    return textwrap.fill(HOW.format(many=many, median=others.median, high=others.high), 100)


def _peak(results: Sequence[Result], n: int) -> int:
    return max(result.peak for result in results if result.n == n)


def _name(result: Result) -> str:
    return result.name if result.files else f"{result.name}, arrays"


def _range(figures: Spread) -> str:
    if figures.low == figures.high:
        return f"{figures.median:.2f}"
    return f"{figures.median:.2f} [{figures.low:.2f}–{figures.high:.2f}]"
