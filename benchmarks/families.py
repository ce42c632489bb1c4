"""Every family at its published width: ONNX Runtime against eager PyTorch on the CPU.

Run it from the root of the source tree, with the extra ``export`` installed, on a machine that does
nothing else; it takes about an hour::

    python benchmarks/families.py --write docs/benchmarks.md

Weights are random; time and memory do not depend on them. Each family is measured in processes of
its own, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from galatea.repository import Release
from galatea_exporter.checkpoint import read_checkpoint
from galatea_exporter.export import export
from galatea_exporter.family import Family, families, find_family
from galatea_exporter.graph import example_inputs
from galatea_exporter.stages import Axis, Stage
from measure import Contender, Round, Spread, interleave, machine, note, ratios, table, versions
from report import write_section

BATCHES = (1, 8)
LARGEST = 256  # pixels of a free axis: a picture of the published size would take minutes
PACKAGES = ("galatea", "torch", "onnxruntime")
EAGER, RUNTIME = "eager PyTorch", "ONNX Runtime"
TITLE = "Families at published width"

HOW = """\
The accelerated stages of each family (without the noise stage), with random weights of the
published sizes; pictures of fully convolutional translators have at most {largest} pixels a side.
Both contenders take the same inputs in one process, with a thread for each core, in interleaved
rounds; figures are medians, with the range of the rounds in brackets. *PyTorch* is the network as
galatea builds it, with spectral norms, equalised learning rates and gains folded into the weights,
which is less work than upstream's own code does. Peak memory is that of a process that loads the
weights and makes a batch of 8. Export time is the whole of `galatea export`: reading, exporting,
comparing with PyTorch at batch 1, 2, 3 and 8, writing."""

Run = Callable[[list[NDArray[Any]]], list[NDArray[Any]]]


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 3
    seconds: float = 1.5


QUICK = Plan(rounds=1, seconds=0.2)


def heavy(family: Family, checkpoint: Path) -> list[Stage]:
    """The accelerated stages, their free axes set to a size."""
    read = read_checkpoint(checkpoint, family.files, family.modules)
    stages = family.load(read, family.options()).stages
    return [
        replace(
            stage,
            inputs=tuple(
                replace(spec, shape=tuple(_length(size) for size in spec.shape))
                for spec in stage.inputs
            ),
        )
        for stage in stages
        if stage.accelerated
    ]


def _length(size: int | Axis) -> int:
    if not isinstance(size, Axis):
        return size
    return min(size.nominal, LARGEST) // size.multiple * size.multiple


def in_torch(stages: list[Stage]) -> Callable[[int], int]:
    """Makes a batch in eager PyTorch."""
    runs = [_torch_run(stage) for stage in stages]
    return lambda batch: _chain(stages, runs, batch)


def _torch_run(stage: Stage) -> Run:
    def run(feed: list[NDArray[Any]]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            made = stage.module(*map(torch.from_numpy, feed))
        return [tensor.numpy() for tensor in (made if isinstance(made, tuple) else (made,))]

    return run


def in_onnxruntime(stages: list[Stage], release: Release) -> Callable[[int], int]:
    """Makes a batch in sessions on the released graphs."""
    runs = [
        _onnx_run(stage, path) for stage, path in zip(stages, paths(stages, release), strict=True)
    ]
    return lambda batch: _chain(stages, runs, batch)


def _onnx_run(stage: Stage, path: Path) -> Run:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in stage.inputs]

    def run(feed: list[NDArray[Any]]) -> list[NDArray[Any]]:
        results: list[NDArray[Any]] = session.run(None, dict(zip(names, feed, strict=True)))
        return results

    return run


def paths(stages: list[Stage], release: Release) -> list[Path]:
    """The released graph of each stage."""
    alone = len(release.models) == 1
    names = [release.name if alone else f"{release.name}.{stage.name}" for stage in stages]
    return [release.root / name / str(release.version) / "model.onnx" for name in names]


def _chain(
    stages: list[Stage],
    runs: list[Run],
    batch: int,
    feeds: list[dict[str, NDArray[Any]]] | None = None,
) -> int:
    """Runs the stages, each with what the one before made and random inputs for the rest."""
    made: dict[str, NDArray[Any]] = {}
    for stage, run in zip(stages, runs, strict=True):
        given = zip(stage.inputs, example_inputs(stage, batch), strict=True)
        feed = {spec.name: made.get(spec.name, tensor.numpy()) for spec, tensor in given}
        if feeds is not None:
            feeds.append(feed)
        results = run(list(feed.values()))
        made |= dict(zip([spec.name for spec in stage.outputs], results, strict=False))
    return len(results[0])


def measure(name: str, plan: Plan) -> dict[str, Any]:
    """All figures of one family."""
    family = find_family(name)
    with tempfile.TemporaryDirectory(prefix="galatea-benchmark-") as folder:
        checkpoint = family.save(family.example(published=True), Path(folder) / "checkpoint")
        note(f"{name}: exporting")
        start = time.perf_counter()
        done = export(
            name, checkpoint, name="x", repository=Path(folder) / "models", max_batch=max(BATCHES)
        )
        seconds = time.perf_counter() - start
        stages = heavy(family, checkpoint)
        pair = {EAGER: in_torch(stages), RUNTIME: in_onnxruntime(stages, done.release)}
        rows = []
        for batch in BATCHES:
            note(f"{name}: batch {batch}")
            contenders = [Contender(who, 1, _caller(make, batch)) for who, make in pair.items()]
            eager, runtime = interleave(contenders, plan.rounds, plan.seconds).values()
            rows.append([batch, *figures(eager, runtime)])
        memory = {
            EAGER: peak_of_torch(name, checkpoint),
            RUNTIME: peak_of_onnxruntime(stages, done.release, Path(folder)),
        }
        outputs = [list(spec.shape) for stage in stages[:1] for spec in stage.inputs]
        return {
            "family": name,
            "shape": list(done.card.image.shape),
            "inputs": outputs,
            "parity": done.card.parity.max_abs if done.card.parity else None,
            "export": seconds,
            "bytes": sum(n for file, (n, _) in done.release.files.items() if ".onnx" in file),
            "rows": rows,
            "memory": memory,
        }


def _caller(make: Callable[[int], int], batch: int) -> Callable[[int], int]:
    return lambda caller: make(batch)


def figures(eager: list[Round], runtime: list[Round]) -> list[float]:
    """Images a second of both, and the ratio with its range."""
    share = ratios(runtime, eager, lambda played: played.rate)
    rates = [Spread.of(turn.rate for turn in turns).median for turns in (eager, runtime)]
    return [*rates, share.median, share.low, share.high]


def peak_of_torch(name: str, checkpoint: Path) -> int:
    """Bytes at the peak of a process that loads the checkpoint and makes the largest batch."""
    command = [sys.executable, __file__, name, "--peak", str(checkpoint)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_of_onnxruntime(stages: list[Stage], release: Release, folder: Path) -> int:
    """The same of a process that loads the graphs and knows nothing of PyTorch."""
    graphs = [str(path) for path in paths(stages, release)]
    feeds: list[dict[str, NDArray[Any]]] = []
    _chain(stages, [_torch_run(stage) for stage in stages], max(BATCHES), feeds)
    for k, feed in enumerate(feeds):
        np.savez(folder / f"{k}.npz", **feed)
    command = [sys.executable, "-c", PEAK + HIGH_WATER, str(folder), *graphs]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


# Not ru_maxrss, which a process inherits from the one that started it.
HIGH_WATER = """
from pathlib import Path
status = Path("/proc/self/status").read_text().split()
print(int(status[status.index("VmHWM:") + 1]) * 1024)
"""
PEAK = """
import sys
import numpy as np
import onnxruntime
for k, path in enumerate(sys.argv[2:]):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    session.run(None, dict(np.load(f"{sys.argv[1]}/{k}.npz")))
"""


def report(results: list[dict[str, Any]], plan: Plan) -> str:
    """The section of docs/benchmarks.md."""
    place = {**machine(), **versions(*PACKAGES), "rounds": f"{plan.rounds} of {plan.seconds:g} s"}
    facts = "\n".join(f"- {name}: {fact}" for name, fact in place.items())
    heads = ("family", "image", "batch", "PyTorch images/s", "ONNX images/s", "× PyTorch",
             "PyTorch MB", "ONNX MB", "graphs MB", "export s", "parity")  # fmt: skip
    how = textwrap.fill(HOW.format(largest=LARGEST), 100)
    return f"Made by `python benchmarks/families.py`.\n\n{facts}\n\n{how}\n\n" + table(
        heads, [row for result in results for row in _rows(result)], left=(0, 1)
    )


def _rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    shape = result["shape"]
    size = result["inputs"][0] if -1 in shape else shape
    for batch, eager, runtime, share, low, high in result["rows"]:
        first = batch == BATCHES[0]
        yield (
            f"`{result['family']}`" if first else "",
            "×".join(map(str, size[:2])) + f"×{shape[-1]}" if first else "",
            str(batch),
            f"{eager:.3g}",
            f"{runtime:.3g}",
            f"{share:.2f} [{low:.2f}–{high:.2f}]",
            *("" if first else f"{result['memory'][who] / 1e6:.0f}" for who in (EAGER, RUNTIME)),
            f"{result['bytes'] / 1e6:.1f}" if first else "",
            f"{result['export']:.0f}" if first else "",
            f"{result['parity']:.1e}" if first else "",
        )


def main() -> None:
    """Measures the families that were named, or all, and prints or writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("family", nargs="*", help="by default all")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the section in FILE")
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="keep each family's, and go on from these"
    )
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    plan = QUICK if chosen.quick else Plan()
    if chosen.peak:
        in_torch(heavy(find_family(chosen.family[0]), chosen.peak))(max(BATCHES))
        exec(HIGH_WATER)
    elif chosen.one:
        print(json.dumps(measure(chosen.family[0], plan)))
    else:
        results = []
        for name in chosen.family or families():
            kept = chosen.results / f"{name}.json" if chosen.results else None
            if kept is None or not kept.is_file():
                command = [sys.executable, __file__, name, "--one", *(["--quick"] * chosen.quick)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                results.append(json.loads(done.stdout))
                if kept is not None:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_text(done.stdout, "utf-8")
            else:
                results.append(json.loads(kept.read_text("utf-8")))
        text = report(results, plan)
        if chosen.write:
            write_section(chosen.write, TITLE, text)
        else:
            print(f"# {TITLE}\n\n{text}")


if __name__ == "__main__":
    main()
