"""Results as markdown: the report of end_to_end.py, and the file that all reports share."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contenders import BARE, BARE_ALONE, DCGAN, DEMO, MAX_BATCH, PIPELINED, SERVED
from footprint import Import, Install, Start
from measure import Round, Spread, ratios, table

SHARE_OF_BARE = 0.95
READY_SECONDS = 4.0
IMPORT_SECONDS = 0.35
NOT_IN_BASE = {"torch", "onnx", "onnxscript", "onnxruntime", "nvidia-pytriton"}
LISTED = 6  # distributions named in the line of the install

HOW = """\
Each contender makes the same uint8 images from the same seeds, from the seed to an array in the
caller's hands; this is checked first. Callers are threads of one process in closed loops. *galatea*
is client, server and all between, on this one machine; "{pipelined}" is one `client.sample`, which
keeps several requests of {batch} on their way. *ONNX Runtime* is a session on the released graphs
in the caller's process that the callers share, with a thread for each core, which is "bare", or
with one thread for each call. Rounds are interleaved; figures are medians, with the range of the
rounds in brackets; "× bare" is taken round by round, with the same batch and callers. CPU-seconds
are those of all processes: client, server and its model instances. "Of peak" is the share of the
matrix-multiply peak that the images' floating-point operations need. Rounds that other processes
disturbed were played again: in those that count they used {median:.1%} of the machine in the
median, {most:.0%} at most."""


@dataclass(frozen=True)
class Result:
    """All rounds of one contender with one batch size."""

    model: str
    batch: int
    contender: str
    callers: int
    rounds: list[Round]

    @property
    def rate(self) -> float:
        """Images per second, the median."""
        return Spread.of(played.rate for played in self.rounds).median

    @property
    def frugality(self) -> float:
        """Images per CPU-second, the median."""
        return Spread.of(played.frugality for played in self.rounds).median


@dataclass(frozen=True)
class Costs:
    """What comes before the first image.

    Attributes:
        starts: of a server, by the model that it serves.
        imports: ``import galatea``, by the environment.
        install: of the client alone; None where it was not measured.
    """

    starts: Mapping[str, Start]
    imports: Mapping[str, Import]
    install: Install | None


def deliver(path: Path | None, title: str, text: str) -> None:
    """Prints a report, or puts it into a file; what lies there under other headings stays."""
    if path is None:
        print(f"# {title}\n\n{text}")
        return
    sections = ("\n" + path.read_text("utf-8") if path.is_file() else "").split("\n# ")[1:]
    kept = {section.partition("\n")[0]: section.partition("\n")[2] for section in sections}
    kept[title] = f"\n{text.strip()}\n"
    whole = "\n".join(f"# {heading}\n{body}" for heading, body in kept.items())
    path.write_text(whole, "utf-8")


def rival(results: Sequence[Result], result: Result, name: str) -> Result | None:
    """The contender `name` with the same model, batch and callers as `result`."""
    place = result.model, result.batch, result.callers
    for other in results:
        if (other.model, other.batch, other.callers) == place and other.contender == name:
            return other
    return None


def relative(
    results: Sequence[Result], result: Result, name: str, figure: Callable[[Round], float]
) -> str:
    """`figure` of a result by that of the contender `name`, with the range; "" without one."""
    other = rival(results, result, name)
    if other is None:
        return ""
    return "1" if other is result else _range(ratios(result.rounds, other.rounds, figure))


def throughput_table(results: Sequence[Result], flops: int, peak: float) -> str:
    """One model's results.

    Args:
        flops: floating-point operations of an image.
        peak: of this machine, a second.
    """
    rows = []
    for result in results:
        rows.append(
            (
                str(result.batch),
                str(result.callers),
                result.contender,
                f"{result.rate:.1f}",
                relative(results, result, BARE, lambda played: played.rate),
                f"{result.frugality:.1f}",
                relative(results, result, BARE, lambda played: played.frugality),
                f"{result.rate * flops / peak:.0%}",
            )
        )
    heads = "batch", "callers", "contender", "images/s", "× bare", "images/CPU-s", "× bare"
    return table((*heads, "of peak"), rows, left=(2,))


def costs_table(costs: Costs) -> str:
    """Start, import and size."""
    rows = []
    for name, start in costs.starts.items():
        detail = f"first start of all, which copies the backends: {start.first:.2f} s"
        rows.append((f"server ready with `{name}`", f"{_range(start.again)} s", detail))
    for place, spent in costs.imports.items():
        detail = f"interpreter and import {_range(spent.galatea)} s, interpreter alone "
        detail += f"{_range(spent.bare)} s"
        rows.append((f"`import galatea`, {place}", f"{spent.alone:.2f} s", detail))
    if costs.install is not None:
        largest = list(costs.install.sizes.items())[:LISTED]
        detail = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in largest)
        detail += f" of {len(costs.install.sizes)} distributions"
        rows.append(("base install", f"{costs.install.size / 1e6:.0f} MB", detail))
    return table(("what", "median", "besides"), rows, left=(0, 2))


def requirements_table(results: Sequence[Result], costs: Costs) -> str:
    """The requirements that these measurements decide."""
    rows: list[tuple[str, str, str, bool]] = []
    for result in results:
        at_once = result.contender == PIPELINED or result.callers > 1
        ours = result.contender in (SERVED, PIPELINED)
        bare = rival(results, result, BARE)
        if bare and ours and at_once and (result.model, result.batch) == (DCGAN, MAX_BATCH):
            share = ratios(result.rounds, bare.rounds, lambda played: played.rate)
            alone = relative(results, result, BARE_ALONE, lambda played: played.rate)
            rows.append(
                (
                    f"{result.contender}, {result.callers} callers, batch {MAX_BATCH}, full width",
                    f"≥ {SHARE_OF_BARE} × bare",
                    _range(share) + (f"; {alone} × 1 thread a call" if alone else ""),
                    share.median >= SHARE_OF_BARE,
                )
            )
    if DEMO in costs.starts:
        start = costs.starts[DEMO]
        slowest = max(start.first, start.again.high)
        shown = f"{start.again.median:.2f} s, slowest {slowest:.2f} s"
        bar = f"≤ {READY_SECONDS:g} s"
        rows.append(("server ready with the demo model", bar, shown, slowest <= READY_SECONDS))
    for place, spent in costs.imports.items():
        bar = f"≤ {IMPORT_SECONDS} s"
        met = spent.alone <= IMPORT_SECONDS
        rows.append((f"`import galatea`, {place}", bar, f"{spent.alone:.2f} s", met))
    if costs.install is not None:
        found = sorted(NOT_IN_BASE & costs.install.sizes.keys())
        shown = ", ".join(found) or "none"
        rows.append(("torch, ONNX, Triton's server in the base install", "none", shown, not found))
    told = [(what, bar, shown, "yes" if met else "**no**") for what, bar, shown, met in rows]
    return table(("requirement", "bar", "measured", "met"), told, left=(0, 1, 2, 3))


def how(results: Sequence[Result]) -> str:
    """How it was measured."""
    others = Spread.of(played.disturbance for result in results for played in result.rounds)
    text = HOW.format(pipelined=PIPELINED, batch=MAX_BATCH, median=others.median, most=others.high)
    return textwrap.fill(text, 100)


def _range(figures: Spread) -> str:
    return f"{figures.median:.2f} [{figures.low:.2f}–{figures.high:.2f}]"
