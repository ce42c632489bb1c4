"""End to end against the bare runtimes: images a second, CPU time, start and size.

Run it from the root of the source tree, with the extras ``serve`` and ``export`` installed, on a
machine that does nothing else; it takes a quarter of an hour::

    python benchmarks/end_to_end.py --write docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import report
from contenders import (
    DCGAN,
    DEMO,
    MAX_BATCH,
    Subject,
    contest,
    flops,
    full_width,
    prepare,
    service,
)
from footprint import base_install, import_seconds, ready_seconds
from galatea_exporter.export import Facts
from measure import interleave, machine, matmul_peak, note, versions

TITLE = "End to end"
ROOT = Path(__file__).resolve().parent.parent
PHANTOM = ROOT / "examples" / "phantom"
PACKAGES = ("galatea", "torch", "onnxruntime", "nvidia-pytriton", "tritonclient", "numpy")


@dataclass(frozen=True)
class Plan:
    """How much is measured: rounds of so many seconds; starts and imports so often."""

    batches: tuple[int, ...] = (1, 8, MAX_BATCH)
    callers: tuple[int, ...] = (1, 16)
    rounds: int = 5
    seconds: float = 2.0
    starts: int = 5
    imports: int = 11


QUICK = Plan(batches=(1, MAX_BATCH), callers=(1, 4), rounds=1, seconds=0.5, starts=1, imports=2)


def subjects(folder: Path) -> Iterator[Subject]:
    """The full-width DCGAN, and the demo model where its checkpoint is there."""
    note("exporting the full-width DCGAN")
    checkpoint = full_width(folder)
    yield prepare(checkpoint, DCGAN, "Full-width DCGAN", folder / "full", Facts())
    checkpoint, card = PHANTOM / "phantom_cdcgan.pt", PHANTOM / "card.toml"
    if checkpoint.is_file() and card.is_file():
        note("exporting the demo model")
        yield prepare(checkpoint, DEMO, "Demo model", folder / "demo", Facts.read(card))


def throughput(subject: Subject, plan: Plan) -> Iterator[report.Result]:
    """Every contender with every batch size."""
    with contest(subject, plan.callers) as contenders:
        for batch in plan.batches:
            note(f"{subject.title}, batch {batch}")
            played = interleave(contenders(batch), plan.rounds, plan.seconds)
            for contender, rounds in played.items():
                name, callers = contender.name, contender.callers
                yield report.Result(subject.card.name, batch, name, callers, rounds)


def costs(models: Sequence[Subject], plan: Plan, *, install: bool) -> report.Costs:
    """Starts of a server with each model, imports, and the base install."""
    starts = {}
    for subject in models:
        note(f"starting a server with {subject.title}")
        starts[subject.card.name] = ready_seconds(subject.repository, plan.starts)
    note("importing galatea")
    imports = {"all extras": import_seconds(Path(sys.executable), plan.imports)}
    if not install:
        return report.Costs(starts, imports, None)
    note("installing the client alone")
    with base_install(ROOT) as base:
        imports["base install"] = import_seconds(base.python, plan.imports)
    return report.Costs(starts, imports, base)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds as JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the section in FILE")
    parser.add_argument("--quick", action="store_true", help="a smoke run of a minute")
    parser.add_argument("--seconds", type=float, help=f"of a round, by default {Plan.seconds:g}")
    parser.add_argument(
        "--install",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="install the client alone into a fresh environment and measure it",
    )
    return parser.parse_args()


def main() -> None:
    """Measures everything and prints or writes the report."""
    chosen = arguments()
    plan = QUICK if chosen.quick else Plan()
    if chosen.seconds is not None:
        plan = replace(plan, seconds=chosen.seconds)
    place = {**machine(), **versions(*PACKAGES)}
    note("multiplying matrices")
    peak = matmul_peak()
    with tempfile.TemporaryDirectory(prefix="galatea-benchmark-") as folder:
        models = list(subjects(Path(folder)))
        operations = {subject.card.name: flops(subject) for subject in models}
        served = service(models[0], "synthesis")
        results = [result for subject in models for result in throughput(subject, plan)]
        paid = costs(models, plan, install=chosen.install)
    place["synthesis served by"] = f"{served.instances} instances × {served.threads} threads"
    place["rounds"] = f"{plan.rounds} of {plan.seconds:g} s"
    place["matrix-multiply peak"] = f"{peak / 1e9:.0f} GFLOP/s"
    lines = ["Made by `python benchmarks/end_to_end.py`.\n"]
    if chosen.quick:
        lines.append("A smoke run (`--quick`): these figures are not to be quoted.\n")
    lines += [f"- {name}: {fact}" for name, fact in place.items()]
    lines.append(f"\n{report.how(results)}")
    for subject in models:
        name = subject.card.name
        lines.append(f"\n## {subject.title}: {operations[name] / 1e9:.3f} GFLOP an image\n")
        mine = [result for result in results if result.model == name]
        lines.append(report.throughput_table(mine, operations[name], peak))
    if len(models) == 1:
        missing = PHANTOM.relative_to(ROOT)
        lines.append(f"\nThe demo model was not measured: {missing} has no checkpoint.")
    lines.append(f"\n## Start, import and size\n\n{report.costs_table(paid)}")
    lines.append(f"\n## Requirements\n\n{report.requirements_table(results, paid)}")
    report.deliver(chosen.write, TITLE, "\n".join(lines))
    if chosen.json is not None:
        raw = {
            "place": place,
            "peak": peak,
            "flops": operations,
            "plan": asdict(plan),
            "results": [asdict(result) for result in results],
            "costs": asdict(paid),
        }
        chosen.json.write_text(json.dumps(raw, indent=1, default=str) + "\n", "utf-8")


if __name__ == "__main__":
    main()
