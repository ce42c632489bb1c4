"""What each pass over exported graphs brings, by family at published width, on the CPU.

Run it from the root of the source tree, with the extra ``export`` installed, on a machine that does
nothing else; it takes half an hour::

    python benchmarks/graph_passes.py --write docs/benchmarks.md

Weights are random; time does not depend on them. Each family is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnxscript import ir

from engines import heavy
from galatea_exporter.checkpoint import read_checkpoint
from galatea_exporter.family import families, find_family
from galatea_exporter.graph import (
    example_inputs,
    export_stage,
    serialise,
    stored,
    without_probes,
)
from galatea_exporter.passes import PASSES
from galatea_exporter.stages import Stage
from measure import CORES, Contender, Spread, interleave, machine, note, ratios, table, versions
from report import deliver

BATCH = 4
LARGEST = 256  # pixels of a free axis: a picture of the published size would take minutes
LEFT_OUT = ("stable_diffusion",)  # 4 GB of weights, and a minute for an image
PACKAGES = ("galatea", "torch", "onnxscript", "onnxruntime")
BARE = "none"
TITLE = "Graph passes"
SMOKE = "A smoke run of small examples (`--quick`): these figures are not to be quoted."

HOW = """\
Stages of every family with random weights of the published sizes, batches of {batch}; pictures of
fully convolutional translators have at most {largest} pixels a side. A pass comes after those in
the lines above it, and × is to the line above; the last column is all passes to none. With one
thread, as a served session has where there is an instance for each core, images are counted for a
CPU-second; with a thread for each core, for a second. Rounds are interleaved; figures are medians
of ratios taken round by round, with their range in brackets. Stages that no pass changes are not
in the table: their graphs are the same bytes. These are the stages of: {unchanged}."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 2.0
    published: bool = True


QUICK = Plan(rounds=1, seconds=0.2, published=False)


@dataclass(frozen=True)
class Variant:
    """A stage's graph after a pass and those before it.

    Attributes:
        places: that the last pass changed.
    """

    name: str
    graph: bytes
    places: int


def variants(stage: Stage) -> list[Variant]:
    """The graph as PyTorch's exporter makes it, and after each pass that changes it."""
    plain = export_stage(stage, passes=())
    made = [Variant(BARE, serialise(without_probes(plain, stage)), 0)]
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(plain, data_prop=True))
    for improve in PASSES:
        if places := improve(model.graph):
            graph = serialise(without_probes(stored(model), stage))
            made.append(Variant(improve.__name__, graph, places))
    return made


def measure(name: str, plan: Plan) -> list[dict[str, Any]]:
    """Figures of the stages of one family that a pass changes."""
    family = find_family(name)
    with tempfile.TemporaryDirectory(prefix="galatea-benchmark-") as folder:
        path = family.save(family.example(published=plan.published), Path(folder) / "checkpoint")
        checkpoint = read_checkpoint(path, family.files, family.modules)
        stages = family.load(checkpoint, family.options()).stages
        sized = {stage.name: stage for stage in heavy(family, path, LARGEST)}
    results = []
    for stage in stages:
        if stage.name not in sized:
            continue
        note(f"{name}.{stage.name}: exporting")
        made = variants(stage)
        if len(made) > 1:
            results.append(
                {
                    "stage": f"{name}.{stage.name}",
                    "names": [variant.name for variant in made],
                    "places": [variant.places for variant in made],
                    "bytes": [len(variant.graph) for variant in made],
                    **{str(threads): play(sized[stage.name], made, threads, plan)
                       for threads in sorted({1, CORES})},
                }
            )  # fmt: skip
    return results


def play(
    stage: Stage, made: list[Variant], threads: int, plan: Plan
) -> dict[str, list[list[float]]]:
    """Ratios of each variant to the one before, and of the last to the first."""
    note(f"{stage.name}: {threads} threads")
    contenders = [
        Contender(variant.name, 1, _caller(stage, variant.graph, threads)) for variant in made
    ]
    played = list(interleave(contenders, plan.rounds, plan.seconds).values())
    pairs = [*pairwise(played), (played[0], played[-1])]
    found: dict[str, list[list[float]]] = {"rate": [], "frugality": []}
    for before, after in pairs:
        for figure, ratio in (
            ("rate", ratios(after, before, lambda turn: turn.rate)),
            ("frugality", ratios(after, before, lambda turn: turn.frugality)),
        ):
            found[figure].append([ratio.median, ratio.low, ratio.high])
    return found


def _caller(stage: Stage, graph: bytes, threads: int) -> Callable[[int], int]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    inputs = zip(stage.inputs, example_inputs(stage, BATCH), strict=True)
    feed = {spec.name: tensor.numpy() for spec, tensor in inputs}

    def call(caller: int) -> int:
        session.run(None, feed)
        return BATCH

    return call


def report(results: dict[str, list[dict[str, Any]]], plan: Plan) -> str:
    """The section of docs/benchmarks.md."""
    place = {**machine(), **versions(*PACKAGES), "rounds": f"{plan.rounds} of {plan.seconds:g} s"}
    facts = "\n".join(f"- {name}: {fact}" for name, fact in place.items())
    unchanged = ", ".join(f"`{name}`" for name, stages in results.items() if not stages) or "none"
    how = textwrap.fill(
        HOW.format(batch=BATCH, largest=LARGEST, unchanged=unchanged), 100, break_long_words=False
    )
    heads = ("stage", "pass", "places", "graph MB", "1 thread, ×", f"{CORES} threads, ×",
             "all, 1 thread")  # fmt: skip
    rows = [row for stages in results.values() for result in stages for row in _rows(result)]
    start = [] if plan.published else [SMOKE]
    start += ["Made by `python benchmarks/graph_passes.py`.", facts, how]
    return "\n\n".join([*start, table(heads, rows, left=(0, 1))])


def _rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    alone, together = result["1"]["frugality"], result[str(CORES)]["rate"]
    for k, name in enumerate(result["names"]):
        last = k == len(result["names"]) - 1
        yield (
            "" if k else f"`{result['stage']}`",
            f"`{name}`" if k else name,
            str(result["places"][k]) if k else "",
            f"{result['bytes'][k] / 1e6:.1f}",
            _told(alone[k - 1]) if k else "1",
            _told(together[k - 1]) if k else "1",
            _told(alone[-1]) if last else "",
        )


def _told(figures: list[float]) -> str:
    spread = Spread(*figures)
    return f"{spread.median:.2f} [{spread.low:.2f}–{spread.high:.2f}]"


def main() -> None:
    """Measures the families that were named, or all, and prints or writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("family", nargs="*", help="by default all")
    parser.add_argument("--quick", action="store_true", help="a smoke run of small examples")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the section in FILE")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    plan = QUICK if chosen.quick else Plan()
    if chosen.one:
        print(json.dumps(measure(chosen.family[0], plan)))
        return
    results = {}
    for name in chosen.family or [name for name in families() if name not in LEFT_OUT]:
        command = [sys.executable, __file__, name, "--one", *(["--quick"] * chosen.quick)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results[name] = json.loads(done.stdout)
    text = report(results, plan)
    deliver(chosen.write, TITLE, text)


if __name__ == "__main__":
    main()
