"""On a GPU: galatea against the engines that one could use instead, for seven generators.

Run it from the root of the source tree, with the extras ``serve`` and ``export`` installed and
onnxruntime-gpu in the place of onnxruntime, on a CUDA machine that does nothing else::

    python benchmarks/gpu.py --write docs/benchmarks.md

What is not installed there is named in the report and left out. Weights are random; time and memory
do not depend on them. ``--device cpu --quick`` tries the script itself on small networks.
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from engines import (
    EAGER,
    RUNTIME,
    SERVED,
    Engine,
    Make,
    Subject,
    Unavailable,
    Work,
    chained,
    heavy,
    in_onnxruntime,
    in_torch,
    through_galatea,
    work,
)
from galatea import Client, GalateaError
from galatea._wire.endpoint import TransportName
from galatea_exporter.compiling import GRAPH_FP16
from galatea_exporter.export import Exported, export
from galatea_exporter.families import stylegan2
from galatea_exporter.family import find_family
from galatea_server.server import EmbeddedServer
from gpu_report import Ceiling, Result, bars, throughput_table
from measure import Contender, interleave, machine, note, versions
from report import deliver

TITLE = "On a GPU"
CALLERS = 16
COMPILED_HALF = "torch.compile, float16, channels last, CUDA graphs"
SHARED = f"{SERVED}, shared memory"
CROWD = f"{SERVED}, {CALLERS} callers of 1"

HOW = """\
Each generator's accelerated stages with random weights of the published sizes; of the diffusion
model an image is one step and the conversion to what is served. Contenders in this process take
arrays on the host and give arrays on the host; galatea is client, embedded server and all between.
Rounds are interleaved; figures are medians. "Of FLOP/s" and "of bytes/s" are the shares of what
this card was measured to do, in float16 for engines in float16 and else in float32, that the
images' multiplications and additions, and the reads and writes of PyTorch's operators one by one,
would need; engines that fuse operators move fewer bytes, so that the latter can be more than all.
Memory is what the device had less after an engine had made its largest batch."""


@dataclass(frozen=True)
class Case:
    """A generator to measure.

    Attributes:
        side: pixels of a free axis.
        state: its checkpoint; None: the family's published example.
        settings: of the export.
    """

    title: str
    family: str
    side: int = 256
    state: Callable[[], dict[str, Tensor]] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


STYLEGAN2_1024 = [512, 512, 512, 512, 512, 256, 128, 64, 32]
CASES = (
    Case("DCGAN 128", "dcgan_mammo"),
    Case("StyleGAN2 256", "stylegan2"),
    Case("StyleGAN2 1024", "stylegan2", state=lambda: stylegan2.example_of(512, STYLEGAN2_1024)),
    Case("StyleGAN3-T 256", "stylegan3"),
    Case("pix2pixHD 512", "pix2pixhd", side=512),
    Case("progressive GAN 1024", "pggan_cxr"),
    Case("guided diffusion 256, a step", "guided_diffusion", settings={"image_size": "256"}),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 2.0
    batches: tuple[int, ...] = (1, 8, 32)
    published: bool = True


QUICK = Plan(rounds=1, seconds=0.2, batches=(1, 2), published=False)


def ceiling(device: str) -> Ceiling:
    """Large square products in every precision, and a copy within the device's memory."""
    side = 8192 if device.startswith("cuda") else 1024

    def seconds(call: Callable[[], Any]) -> float:
        best = float("inf")
        for _ in range(8):
            _wait(device)
            begin = time.perf_counter()
            call()
            _wait(device)
            best = min(best, time.perf_counter() - begin)
        return best

    flops = {}
    for name, dtype in (("float32", torch.float32), ("float16", torch.float16)):
        a = torch.randn(side, side, device=device).to(dtype)
        flops[name] = 2 * side**3 / seconds(lambda a=a: a @ a)  # type: ignore[misc] # mypy cannot infer a default's type
    source = torch.empty(side * side, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.numel() * source.element_size()
    return Ceiling(flops, copied / seconds(lambda: target.copy_(source)))


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def engines(device: str, cache: Path) -> dict[str, Engine]:
    """Contenders in this process."""
    if not device.startswith("cuda"):
        return {EAGER: in_torch(device), RUNTIME: in_onnxruntime()}
    cuda = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "EXHAUSTIVE"})
    kept = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache)}
    tensorrt = ("TensorrtExecutionProvider", kept)
    halved = ("TensorrtExecutionProvider", {**kept, "trt_fp16_enable": True})
    return {
        EAGER: in_torch(device),
        COMPILED_HALF: in_torch(device, half=True, compiled=True),
        f"{RUNTIME} CUDA": in_onnxruntime(cuda),
        f"{RUNTIME} CUDA, float16": in_onnxruntime(cuda, graph=GRAPH_FP16),
        "TensorRT": in_onnxruntime(tensorrt, cuda),
        "TensorRT, float16": in_onnxruntime(halved, cuda),
    }


class Measured:
    """All contenders of one case, with what it cost to make them ready."""

    def __init__(self, case: Case, plan: Plan, device: str, folder: Path, stack: ExitStack) -> None:
        self.case, self.plan = case, plan
        self.missing: dict[str, str] = {}
        self.memory: dict[str, int] = {}
        self.makes: dict[str, tuple[Make, int, tuple[int, ...]]] = {}
        note(f"{case.title}: exporting")
        family = find_family(case.family)
        published = case.state() if case.state and plan.published else None
        state = published or family.example(published=plan.published)
        checkpoint = family.save(state, folder / "checkpoint")
        del state, published
        settings = case.settings if plan.published else {}
        self.done = _exported(case, checkpoint, folder, settings, self.missing)
        stages = heavy(family, checkpoint, case.side)
        self.subject = Subject(stages, self.done.release)
        self.work: Work = work(self.subject)
        self.batches = [batch for batch in plan.batches if batch <= _limit(self.done)]
        for name, engine in engines(device, folder / "tensorrt").items():
            with self.costing(name, device):
                self._open(name, lambda engine=engine: chained(self.subject, engine))  # type: ignore[misc] # mypy cannot infer a default's type
        variants = ("cuda", "cuda-fp16") if device.startswith("cuda") else (None,)
        for variant in variants:
            half = ", float16" if variant == "cuda-fp16" else ""
            with self.costing(f"{SERVED}{half}", device):
                self._serve(variant, half, folder / "models", stack)

    @property
    def largest(self) -> int:
        """The largest batch that is measured."""
        return max(self.batches)

    def costing(self, name: str, device: str) -> ExitStack:
        """Notes how much less memory the device has after the block."""
        stack = ExitStack()
        if device.startswith("cuda"):
            before = torch.cuda.mem_get_info()[0]

            def note_it() -> None:
                torch.cuda.empty_cache()
                self.memory[name] = before - torch.cuda.mem_get_info()[0]

            stack.callback(note_it)
        return stack

    def _open(self, name: str, make: Callable[[], Make], pids: tuple[int, ...] = ()) -> None:
        note(f"{self.case.title}: {name}")
        try:
            opened = make()
            for batch in self.batches:
                opened(batch)
        except Unavailable as error:
            self.missing[name] = str(error)
        except (GalateaError, RuntimeError) as error:
            self.missing[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            self.makes[name] = (opened, 1, pids)

    def _serve(self, variant: str | None, half: str, repository: Path, stack: ExitStack) -> None:
        try:
            server = stack.enter_context(EmbeddedServer(repository, model_config=variant))
        except GalateaError as error:
            self.missing[f"{SERVED}{half}"] = str(error).splitlines()[0]
            return
        ways: dict[str, TransportName] = {f"{SERVED}{half}": "grpc", f"{SHARED}{half}": "shm"}
        for name, transport in ways.items():
            client = stack.enter_context(Client(server.grpc_url, transport=transport))
            self._open(
                name,
                lambda client=client: through_galatea(client, self.done.card, self.subject),  # type: ignore[misc] # mypy cannot infer a default's type
                (server.pid,),
            )
            if name in self.makes and transport == "grpc":
                self.makes[f"{CROWD}{half}"] = (self.makes[name][0], CALLERS, (server.pid,))

    def play(self) -> Iterator[Result]:
        """Every contender at every batch."""
        for batch in self.batches:
            note(f"{self.case.title}: batch {batch}")
            times: dict[str, list[float]] = {name: [] for name in self.makes}
            contenders = [
                Contender(name, callers, _timed(make, batch, times[name]), pids)
                for name, (make, callers, pids) in self.makes.items()
                if callers == 1 or batch == 1
            ]
            for contender, rounds in interleave(
                contenders, self.plan.rounds, self.plan.seconds
            ).items():
                quantiles = np.percentile(times[contender.name], (50, 95, 99)) * 1000
                p50, p95, p99 = map(float, quantiles)
                yield Result(self.case.title, batch, contender.name, rounds, (p50, p95, p99))


def _exported(
    case: Case, checkpoint: Path, folder: Path, settings: Mapping[str, str], missing: dict[str, str]
) -> Exported:
    """With a graph in float16, unless that is too far from PyTorch."""
    place: dict[str, Any] = {"name": "x", "repository": folder / "models", "settings": settings}
    try:
        return export(case.family, checkpoint, fp16=True, **place)
    except GalateaError as error:
        missing["float16"] = str(error).splitlines()[0]
        return export(case.family, checkpoint, **place)


def _limit(done: Exported) -> int:
    """The largest batch of a request."""
    text = (done.release.root / done.release.name / "config.pbtxt").read_text("utf-8")
    return int(text.partition("max_batch_size: ")[2].split()[0])


def _timed(make: Make, batch: int, times: list[float]) -> Callable[[int], int]:
    def call(caller: int) -> int:
        begin = time.perf_counter()
        made = make(batch)
        times.append(time.perf_counter() - begin)
        return made

    return call


def place(device: str, peak: Ceiling, plan: Plan) -> str:
    """The machine, the packages and the ceilings."""
    facts = {
        **machine(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        **versions("galatea", "torch", "nvidia-pytriton", "numpy"),
        "onnxruntime": onnxruntime.__version__,
        "its providers": ", ".join(onnxruntime.get_available_providers()),
        "rounds": f"{plan.rounds} of {plan.seconds:g} s",
        "matrix product": ", ".join(
            f"{name} {rate / 1e12:.1f} TFLOP/s" for name, rate in peak.flops.items()
        ),
        "copy": f"{peak.bytes / 1e9:.0f} GB/s, read and written",
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def measure(chosen: argparse.Namespace, plan: Plan) -> str:
    """The report."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    peak = ceiling(chosen.device)
    parts, results = [], []
    for case in CASES:
        if chosen.case and case.title not in chosen.case:
            continue
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="galatea-")))
            measured = Measured(case, plan, chosen.device, folder, stack)
            mine = list(measured.play())
            results += mine
            image = "×".join(map(str, measured.done.card.image.shape))
            parts += [
                f"## {case.title}: {image}, {measured.work.flops / 1e9:.4g} GFLOP an image",
                throughput_table(mine, measured.work, measured.memory, peak),
                *(f"Not measured: {name}: {why}." for name, why in measured.missing.items()),
            ]
            del measured
        if chosen.device.startswith("cuda"):
            torch.cuda.empty_cache()
    head = [
        "Made by `python benchmarks/gpu.py`.",
        place(chosen.device, peak, plan),
        textwrap.fill(HOW, 100),
    ]
    if chosen.quick:
        head.insert(1, "A smoke run (`--quick`): these figures are not to be quoted.")
    return "\n\n".join([*head, *parts, "## Bars", bars(results)])


def main() -> None:
    """Measures the cases and prints or writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("case", nargs="*", help="titles; by default all")
    parser.add_argument("--device", default="cuda", help="of PyTorch")
    parser.add_argument("--quick", action="store_true", help="a smoke run with small networks")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the section in FILE")
    chosen = parser.parse_args()
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device; --device cpu --quick tries the script itself")
    text = measure(chosen, QUICK if chosen.quick else Plan())
    deliver(chosen.write, TITLE, text)


if __name__ == "__main__":
    main()
