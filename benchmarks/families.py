"""Every family at its published width on the CPU: galatea against the engines in its place.

Run it from the root of the source tree, with the extras ``serve`` and ``export`` installed, and
OpenVINO if it shall take part, on a machine that does nothing else; it takes hours::

    python benchmarks/families.py --results /tmp/families --write docs/benchmarks.md

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
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np

from engines import (
    COMPILED,
    EAGER,
    OPENVINO,
    RUNTIME,
    SERVED,
    Make,
    Subject,
    Unavailable,
    chained,
    feeds,
    heavy,
    in_onnxruntime,
    in_openvino,
    in_torch,
    through_galatea,
    work,
)
from galatea import Client
from galatea_exporter.export import export
from galatea_exporter.family import Family, families, find_family
from galatea_server.server import EmbeddedServer
from measure import (
    Contender,
    Round,
    Spread,
    interleave,
    machine,
    matmul_peak,
    note,
    ratios,
    table,
    versions,
)
from report import deliver

BATCHES = (1, 8, 32)
MANY = 32  # images a request in the bar
AT_MANY = (RUNTIME, SERVED)  # the others would take hours
LARGEST = 256  # pixels of a free axis: a picture of the published size would take minutes
MAX_BATCH = {"stylegan3": 4}  # whose activations of more do not fit into 24 GB five times
PACKAGES = ("galatea", "torch", "onnxruntime", "openvino", "nvidia-pytriton", "numpy")
SHARE_OF_RUNTIME = 0.95
SHARE_OF_PEAK = {"dcgan_mammo": 0.65}
SHARE_OF_PEAK_ELSE = 0.5
SMOKE = "A smoke run (`--quick`): these figures are not to be quoted."
TITLE = "Families at published width"

HOW = """\
The accelerated stages of each family (without the noise stage), with random weights of the
published sizes; pictures of fully convolutional translators have at most {largest} pixels a side,
and of diffusion models an image is one step and the decoder. All contenders but galatea take the
same inputs in one process, with a thread for each core, in interleaved rounds; galatea is client,
embedded server and all between, from seeds or pictures to arrays. Figures are medians, with the
range of the rounds in brackets. *PyTorch* is the network as galatea builds it, with spectral norms,
equalised learning rates and gains folded into the weights, which is less work than upstream's own
code does. "Of peak" is the share of this machine's float32 matrix-multiply peak, measured in the
same run, that the multiplications and additions of the images need, at the largest batch measured.
Peak memory is that of a process that loads the weights and makes a batch of 8. Export time is the
whole of `galatea export`."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 3
    seconds: float = 1.5
    batches: tuple[int, ...] = BATCHES
    published: bool = True


QUICK = Plan(rounds=1, seconds=0.2, batches=(1, 8), published=False)


def measure(name: str, plan: Plan) -> dict[str, Any]:
    """All figures of one family."""
    family = find_family(name)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="galatea-benchmark-")))
        checkpoint = family.save(family.example(published=plan.published), folder / "checkpoint")
        note(f"{name}: exporting")
        start = time.perf_counter()
        done = export(
            name, checkpoint, name="x", repository=folder / "models", max_batch=MAX_BATCH.get(name)
        )
        seconds = time.perf_counter() - start
        subject = Subject(heavy(family, checkpoint, LARGEST), done.release)
        note(f"{name}: preparing")
        makes, missing = rivals(subject)
        server = stack.enter_context(EmbeddedServer(folder / "models"))
        client = stack.enter_context(Client(server.grpc_url))
        makes[SERVED] = through_galatea(client, done.card, subject)
        needed = work(subject)
        rows = {}
        for batch in sorted({min(batch, MAX_BATCH.get(name, batch)) for batch in plan.batches}):
            note(f"{name}: batch {batch}")
            contenders = [
                Contender(who, 1, _caller(make, batch), (server.pid,) if who == SERVED else ())
                for who, make in makes.items()
                if batch < MANY or who in AT_MANY
            ]
            rows[batch] = figures(interleave(contenders, plan.rounds, plan.seconds))
        peak = matmul_peak((1536, 2048))
        memory = {
            EAGER: peak_of_torch(name, checkpoint),
            RUNTIME: peak_of_onnxruntime(subject, folder),
        }
        return {
            "family": name,
            "shape": list(done.card.image.shape),
            "inputs": [list(spec.shape) for spec in subject.stages[0].inputs],
            "flops": needed.flops,
            "peak": peak,
            "parity": done.card.parity.max_abs if done.card.parity else None,
            "export": seconds,
            "bytes": sum(n for file, (n, _) in done.release.files.items() if ".onnx" in file),
            "rows": rows,
            "missing": missing,
            "memory": memory,
        }


def rivals(subject: Subject) -> tuple[dict[str, Make], dict[str, str]]:
    """The engines in this process that can run the subject; and why others cannot."""
    engines = {
        EAGER: in_torch(),
        COMPILED: in_torch(compiled=True),
        RUNTIME: in_onnxruntime(),
        OPENVINO: in_openvino,
    }
    makes, missing = {}, {}
    for name, engine in engines.items():
        try:
            makes[name] = chained(subject, engine)
            makes[name](1)
        except Unavailable as error:
            makes.pop(name, None)
            missing[name] = str(error)
        except Exception as error:  # torch.compile's backends raise whatever they like
            if name != COMPILED:
                raise
            makes.pop(name)
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return makes, missing


def _caller(make: Make, batch: int) -> Callable[[int], int]:
    return lambda caller: make(batch)


def figures(played: dict[Contender, list[Round]]) -> dict[str, Any]:
    """Images a second of each, and galatea by each of them."""
    by_name = {contender.name: rounds for contender, rounds in played.items()}
    ours = by_name[SERVED]
    return {
        name: {
            "rate": Spread.of(turn.rate for turn in rounds).median,
            "cpu": Spread.of(turn.cpu / turn.images for turn in rounds).median,
            "galatea": vars(ratios(ours, rounds, lambda turn: turn.rate)),
        }
        for name, rounds in by_name.items()
    }


def peak_of_torch(name: str, checkpoint: Path) -> int:
    """Bytes at the peak of a process that loads the checkpoint and makes a batch of 8."""
    command = [sys.executable, __file__, name, "--peak", str(checkpoint)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _eat(family: Family, checkpoint: Path) -> None:
    stages = heavy(family, checkpoint, LARGEST)
    runs = [in_torch()(stage, checkpoint) for stage in stages]
    list(feeds(stages, runs, 8))


def peak_of_onnxruntime(subject: Subject, folder: Path) -> int:
    """The same of a process that loads the graphs and knows nothing of PyTorch."""
    runs = [in_onnxruntime()(stage, subject.graph(stage)) for stage in subject.stages]
    for k, (feed, _) in enumerate(feeds(subject.stages, runs, 8)):
        np.savez(folder / f"{k}.npz", **feed)
    graphs = [str(subject.graph(stage)) for stage in subject.stages]
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
    place = {**machine(), **_installed(), "rounds": f"{plan.rounds} of {plan.seconds:g} s"}
    names = (EAGER, COMPILED, RUNTIME, OPENVINO, SERVED)
    speed = table(
        ("family", "image", "GFLOP", "batch", *names, f"galatea by {RUNTIME}", "of peak"),
        [row for result in results for row in _speeds(result, names)],
        left=(0, 1),
    )
    sizes = table(
        ("family", "PyTorch MB", "ONNX Runtime MB", "graphs MB", "export s", "parity"),
        [_sizes(result) for result in results],
        left=(0,),
    )
    missing = sorted(
        {f"{who}: {why}" for result in results for who, why in result["missing"].items()}
    )
    return "\n\n".join(
        [
            "Made by `python benchmarks/families.py`.",
            *([] if plan.published else [SMOKE]),
            "\n".join(f"- {name}: {fact}" for name, fact in place.items()),
            textwrap.fill(HOW.format(largest=LARGEST), 100),
            "## Images a second",
            speed,
            *(f"Not measured: {reason}." for reason in missing),
            "## Bars",
            table(("bar", "met by", "not met by"), list(_bars(results)), left=(0, 1, 2)),
            "## Memory, size, export",
            sizes,
        ]
    )


def _installed() -> dict[str, str]:
    facts: dict[str, str] = {}
    for name in PACKAGES:
        try:
            facts |= versions(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    return facts


def _speeds(result: dict[str, Any], names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    shape = result["shape"]
    size = result["inputs"][0] if -1 in shape else shape
    for k, (batch, row) in enumerate(result["rows"].items()):
        last = k == len(result["rows"]) - 1
        share = row[RUNTIME]["galatea"]
        yield (
            "" if k else f"`{result['family']}`",
            "" if k else "×".join(map(str, [*size[: len(shape) - 1], shape[-1]])),
            "" if k else f"{result['flops'] / 1e9:.3g}",
            batch,
            *(f"{row[name]['rate']:.3g}" if name in row else "" for name in names),
            f"{share['median']:.2f} [{share['low']:.2f}–{share['high']:.2f}]",
            f"{_of_peak(result):.0%}" if last else "",
        )


def _of_peak(result: dict[str, Any]) -> float:
    """Of galatea, at the largest batch."""
    row = list(result["rows"].values())[-1]
    share: float = row[SERVED]["rate"] * result["flops"] / result["peak"]
    return share


def _sizes(result: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"`{result['family']}`",
        *(f"{result['memory'][who] / 1e6:.0f}" for who in (EAGER, RUNTIME)),
        f"{result['bytes'] / 1e6:.1f}",
        f"{result['export']:.0f}",
        f"{result['parity']:.1e}",
    )


def _bars(results: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    def row(bar: str, figures: dict[str, tuple[float, float]]) -> tuple[str, str, str]:
        told = {name: f"`{name}` {figure:.2f}" for name, (figure, _) in figures.items()}
        met = [told[name] for name, (figure, least) in figures.items() if figure >= least]
        return bar, ", ".join(met), ", ".join(each for each in told.values() if each not in met)

    yield row(
        f"at the largest batch ≥ {SHARE_OF_RUNTIME} × {RUNTIME}",
        {
            result["family"]: (
                list(result["rows"].values())[-1][RUNTIME]["galatea"]["median"],
                SHARE_OF_RUNTIME,
            )
            for result in results
        },
    )
    yield row(
        f"≥ {SHARE_OF_PEAK_ELSE} of the matrix-multiply peak, "
        + ", ".join(f"`{name}` ≥ {share}" for name, share in SHARE_OF_PEAK.items()),
        {
            result["family"]: (
                _of_peak(result),
                SHARE_OF_PEAK.get(result["family"], SHARE_OF_PEAK_ELSE),
            )
            for result in results
        },
    )


def main() -> None:
    """Measures the families that were named, or all, and prints or writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("family", nargs="*", help="by default all")
    parser.add_argument("--quick", action="store_true", help="a smoke run with small networks")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the section in FILE")
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="keep each family's, and go on from these"
    )
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    plan = QUICK if chosen.quick else Plan()
    if chosen.peak:
        _eat(find_family(chosen.family[0]), chosen.peak)
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
        deliver(chosen.write, TITLE, text)


if __name__ == "__main__":
    main()
