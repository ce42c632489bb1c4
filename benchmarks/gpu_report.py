"""The tables of ``gpu.py``: throughput by contender, and what the bars say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engines import EAGER, SERVED, Work
from measure import Round, Spread, ratios, table

EAGER_BAR, ENGINE_BAR = 2.0, 0.9
BARRED = ("DCGAN 128", "StyleGAN2 256")


@dataclass(frozen=True)
class Ceiling:
    """What the device was measured to do: FLOP/s by precision, and bytes/s of a copy."""

    flops: Mapping[str, float]
    bytes: float


@dataclass(frozen=True)
class Result:
    """One contender at one batch."""

    case: str
    batch: int
    contender: str
    rounds: list[Round]
    milliseconds: tuple[float, float, float]  # p50, p95, p99 of a request


def throughput_table(
    results: Sequence[Result], work: Work, memory: Mapping[str, int], peak: Ceiling
) -> str:
    """One case's results.

    Args:
        work: that an image takes.
        memory: bytes on the device by contender, where they are known.
    """
    rows = []
    for result in results:
        eager = [r for r in results if (r.batch, r.contender) == (result.batch, EAGER)]
        rate = Spread.of(played.rate for played in result.rounds).median
        shares = [ratios(result.rounds, r.rounds, lambda played: played.rate) for r in eager]
        precision = "float16" if "float16" in result.contender else "float32"
        taken = memory.get(result.contender)
        rows.append(
            (
                str(result.batch),
                result.contender,
                f"{rate:.4g}",
                "".join(f"{s.median:.2f} [{s.low:.2f}–{s.high:.2f}]" for s in shares),
                *(f"{value:.1f}" for value in result.milliseconds),
                f"{rate * work.flops / peak.flops[precision]:.0%}",
                f"{rate * work.bytes / peak.bytes:.0%}",
                "" if taken is None else f"{taken / 2**20:.0f}",
            )
        )
    heads = ("batch", "contender", "images/s", "× eager", "p50 ms", "p95", "p99", "of FLOP/s",
             "of bytes/s", "MiB")  # fmt: skip
    return table(heads, rows, left=(1,))


def bars(results: Sequence[Result]) -> str:
    """What the measurements decide: the largest batch of the cases that have a bar."""
    rows = []
    for case in BARRED:
        mine = [result for result in results if result.case == case]
        if not mine:
            continue
        largest = max(result.batch for result in mine)
        at = {result.contender: result for result in mine if result.batch == largest}
        inside = [result for name, result in at.items() if not name.startswith(SERVED)]
        rivals = [(at[EAGER], EAGER_BAR)] if EAGER in at else []
        best = max(inside, key=lambda result: Spread.of(r.rate for r in result.rounds).median)
        for name, result in at.items():
            for rival, bar in (*rivals, (best, ENGINE_BAR)) if name.startswith(SERVED) else ():
                share = ratios(result.rounds, rival.rounds, lambda played: played.rate)
                met = "yes" if share.median >= bar else "**no**"
                told = f"{share.median:.2f} [{share.low:.2f}–{share.high:.2f}]"
                rows.append((case, name, f"≥ {bar:g} × {rival.contender}", told, met))
    return table(("case", "contender", "bar", "measured", "met"), rows, left=(0, 1, 2, 3, 4))
