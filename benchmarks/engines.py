"""A generator's accelerated stages in every engine that can run them, and behind galatea.

An engine opens one stage and gives a function from input arrays to output arrays, on the host both;
:func:`chained` joins the stages to a generator. Whatever an engine needs and does not find is an
:class:`Unavailable`, with the reason.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from galatea import Client
from galatea.card import ModelCard
from galatea.repository import Release
from galatea_exporter.checkpoint import read_checkpoint
from galatea_exporter.family import Family
from galatea_exporter.graph import example_inputs
from galatea_exporter.stages import Axis, Stage

EAGER, COMPILED = "eager PyTorch", "torch.compile"
RUNTIME, OPENVINO, SERVED = "ONNX Runtime", "OpenVINO", "galatea"

Run = Callable[[list[NDArray[Any]]], list[NDArray[Any]]]
Engine = Callable[[Stage, Path], Run]
Make = Callable[[int], int]  # images wanted → images made


class Unavailable(Exception):
    """An engine cannot run here; the text says why."""


@dataclass(frozen=True)
class Subject:
    """The accelerated stages of a generator, without free axes, and where their graphs are."""

    stages: tuple[Stage, ...]
    release: Release

    def graph(self, stage: Stage) -> Path:
        """The released graph of a stage."""
        alone = len(self.release.models) == 1
        model = self.release.name if alone else f"{self.release.name}.{stage.name}"
        return self.release.root / model / str(self.release.version) / "model.onnx"


def heavy(family: Family, checkpoint: Path, largest: int) -> tuple[Stage, ...]:
    """The accelerated stages of a checkpoint, their free axes set to at most `largest` pixels."""
    read = read_checkpoint(checkpoint, family.files, family.modules)
    stages = family.load(read, family.options()).stages
    return tuple(_sized(stage, largest) for stage in stages if stage.accelerated)


def _sized(stage: Stage, largest: int) -> Stage:
    def length(size: int | Axis) -> int:
        if not isinstance(size, Axis):
            return size
        return min(size.nominal, largest) // size.multiple * size.multiple

    inputs = tuple(replace(spec, shape=tuple(map(length, spec.shape))) for spec in stage.inputs)
    return replace(stage, inputs=inputs)


def feeds(
    stages: Sequence[Stage], runs: Sequence[Run], batch: int
) -> Iterator[tuple[dict[str, NDArray[Any]], list[NDArray[Any]]]]:
    """What each stage takes and makes: what those before made, and random inputs for the rest."""
    made: dict[str, NDArray[Any]] = {}
    for stage, run in zip(stages, runs, strict=True):
        given = zip(stage.inputs, example_inputs(stage, batch), strict=True)
        feed = {spec.name: made.get(spec.name, tensor.numpy()) for spec, tensor in given}
        results = run(list(feed.values()))
        made |= dict(zip([spec.name for spec in stage.outputs], results, strict=False))
        yield feed, results


def chained(subject: Subject, engine: Engine) -> Make:
    """A generator in an engine.

    Raises:
        Unavailable: see there.
    """
    runs = [engine(stage, subject.graph(stage)) for stage in subject.stages]
    inputs: dict[int, list[dict[str, NDArray[Any]]]] = {}

    def make(batch: int) -> int:
        if batch not in inputs:  # the same ones for every round; making them takes time
            inputs[batch] = [feed for feed, _ in feeds(subject.stages, runs, batch)]
        made: dict[str, NDArray[Any]] = {}
        for stage, run, feed in zip(subject.stages, runs, inputs[batch], strict=True):
            results = run([made.get(name, array) for name, array in feed.items()])
            made |= dict(zip([spec.name for spec in stage.outputs], results, strict=False))
        return len(results[0])

    return make


def in_torch(device: str = "cpu", *, half: bool = False, compiled: bool = False) -> Engine:
    """PyTorch.

    Args:
        device: where it computes.
        half: weights and sums in float16, channels last.
        compiled: by ``torch.compile``; on CUDA with CUDA graphs.
    """

    def engine(stage: Stage, graph: Path) -> Run:
        module = (Half(stage) if half else stage.module).to(device)
        if half:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's overloads leave it out
        call: Any = module
        if compiled:
            mode = "reduce-overhead" if device.startswith("cuda") else None
            call = torch.compile(module, mode=mode, dynamic=False)

        def run(feed: list[NDArray[Any]]) -> list[NDArray[Any]]:
            with torch.inference_mode():
                made = call(*(torch.from_numpy(array).to(device) for array in feed))
                made = made if isinstance(made, tuple) else (made,)
                return [tensor.cpu().numpy() for tensor in made[: len(stage.outputs)]]

        return run

    return engine


class Half(nn.Module):
    """A copy of a stage's module in float16 between its inputs and outputs."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.module = copy.deepcopy(stage.module).half()
        # Float16 does not tell one late timestep from the next.
        self._cast = [spec.dtype == "float32" and spec.name != "t" for spec in stage.inputs]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = [
            tensor.to(torch.float16) if cast else tensor
            for tensor, cast in zip(inputs, self._cast, strict=True)
        ]
        made = self.module(*given)
        made = made if isinstance(made, tuple) else (made,)
        return tuple(one.float() if one.is_floating_point() else one for one in made)


def in_onnxruntime(
    *providers: str | tuple[str, dict[str, Any]], threads: int = 0, graph: str = "model.onnx"
) -> Engine:
    """A session on the released graph.

    Args:
        providers: execution providers, the preferred one first; none: the CPU.
        threads: of an operator; 0 is one for each core.
        graph: the file's name, for variants.
    """

    def engine(stage: Stage, released: Path) -> Run:
        path = released.with_name(graph)
        wanted = providers or ("CPUExecutionProvider",)
        names = [entry if isinstance(entry, str) else entry[0] for entry in wanted]
        if names[0] not in onnxruntime.get_available_providers():
            raise Unavailable(f"onnxruntime {onnxruntime.__version__} has no {names[0]}")
        if not path.is_file():
            raise Unavailable(f"the release has no {graph}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=list(wanted))
        if names[0] not in session.get_providers():  # it fell back
            raise Unavailable(f"{names[0]} does not start on this machine")
        inputs = [spec.name for spec in stage.inputs]

        def run(feed: list[NDArray[Any]]) -> list[NDArray[Any]]:
            results: list[NDArray[Any]] = session.run(None, dict(zip(inputs, feed, strict=True)))
            return results

        return run

    return engine


def in_openvino(stage: Stage, graph: Path) -> Run:
    """OpenVINO on the released graph, tuned for latency, float32."""
    try:
        openvino = importlib.import_module("openvino")
    except ImportError as error:
        raise Unavailable("openvino is not installed") from error
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    try:
        compiled = openvino.compile_model(graph, "CPU", settings)
    except RuntimeError as error:
        raise Unavailable(str(error).strip().splitlines()[-1]) from error
    request = compiled.create_infer_request()
    inputs = [spec.name for spec in stage.inputs]

    def run(feed: list[NDArray[Any]]) -> list[NDArray[Any]]:
        results = request.infer(dict(zip(inputs, feed, strict=True)), share_outputs=False)
        return [results[output] for output in compiled.outputs]

    return run


def through_galatea(client: Client, card: ModelCard, subject: Subject) -> Make:
    """Requests of galatea's client: seeds or pictures in, arrays out; one step of diffusion."""
    seeds = count(0, 64)
    if card.task != "image-to-image":
        few: dict[str, Any] = {"steps": 1, "guidance": 1.0, "prompt": "chest x-ray"}
        told = {entry.name: few[entry.name] for entry in card.inputs if entry.name in few}
        return lambda batch: len(client.sample(card.name, batch, seed=next(seeds), **told))
    source = replace(subject.stages[0], inputs=subject.stages[0].inputs[:1])
    pictures: dict[int, NDArray[Any]] = {}

    def make(batch: int) -> int:
        if batch not in pictures:
            [example] = example_inputs(source, batch)
            pictures[batch] = example.numpy()
        return len(client.translate(card.name, pictures[batch], seed=next(seeds)))

    return make


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call] # as torch has it
    """Counts the bytes that PyTorch's operators read and write, views apart."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # as torch has it
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = torch.utils._pytree.tree_leaves((args, kwargs, made))
            self.bytes += sum(
                tensor.numel() * tensor.element_size()
                for tensor in tensors
                if isinstance(tensor, Tensor)
            )
        return made


@dataclass(frozen=True)
class Work:
    """What an image takes: floating-point operations, two a multiply-add, and bytes.

    Bytes are those of PyTorch's operators one by one, weights and activations; an engine that fuses
    operators moves fewer.
    """

    flops: int
    bytes: int


def work(subject: Subject, batch: int = 1) -> Work:
    """Counted in eager PyTorch, for one image of a batch."""
    runs = [in_torch()(stage, subject.graph(stage)) for stage in subject.stages]
    with FlopCounterMode(display=False) as flops, Traffic() as traffic:
        for _ in feeds(subject.stages, runs, batch):
            pass
    total: int = flops.get_total_flops()
    return Work(total // batch, traffic.bytes // batch)
