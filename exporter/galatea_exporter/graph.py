"""From a stage to an ONNX graph: dynamic batch, opset 20, equal bytes for equal weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from onnxscript import ir
from torch import Tensor, nn

from galatea.errors import ExportError
from galatea_exporter.passes import PASSES, Pass
from galatea_exporter.stages import Axis, Stage, TensorSpec

# NVIDIA's 24.10 build has ONNX Runtime 1.19, which refuses IR > 10 and opset > 21.
OPSET = 20
NEWEST_IR = 10
NEWEST_OPSET = 21

# A protobuf holds 2 GB at most; larger weights lie in a file of their own beside the graph.
LARGEST_WEIGHTS = 2**31 - 2**26  # bytes

TORCH_DTYPE = {"int64": torch.int64, "float32": torch.float32, "uint8": torch.uint8}


def export_stage(stage: Stage, path: Path | None = None, passes: Sequence[Pass] = PASSES) -> Any:
    """The ONNX model of a stage, its probes among the outputs.

    Args:
        path: the file that it will be. Weights that are too large for it are written beside it,
            as :func:`weights_of` says.
        passes: what is done to the graph that PyTorch's exporter makes.

    Returns:
        onnx.ModelProto, without names or paths of the machine that made it.

    Raises:
        ExportError: the graph cannot be exported, or is newer than Triton's runtime reads.
    """
    # torch.export keeps an axis of size 1 static, so the example has a batch of 2, and an odd seed
    # for free axes above the smallest size, which inside a network may become 1. Each input is a
    # tensor of its own: one object given twice would be wired to one input.
    example = example_inputs(stage, batch=2, seed=1)
    batch = torch.export.Dim("batch")
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter deprecates its own internals
            program = torch.onnx.export(
                _Positional(stage.module),
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in stage.inputs],
                output_names=[spec.name for spec in (*stage.outputs, *stage.probes)],
                dynamic_shapes={
                    "inputs": tuple({0: batch, **_free_axes(spec)} for spec in stage.inputs)
                },
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(
            f"stage {stage.name!r} cannot be exported: {str(error).splitlines()[0]}",
            "this is a fault of the family's network; please report it",
        ) from error
    finally:
        quiet.setLevel(level)
    assert program is not None
    for improve in passes:
        improve(program.model.graph)
    model = stored(program.model, path)
    _check(model, stage)
    return model


def stored(model: Any, path: Path | None = None) -> Any:
    """A graph as onnx.ModelProto without names or paths of the machine that made it.

    Args:
        model: onnxscript.ir.Model.
        path: see :func:`export_stage`.
    """
    weights = (value.const_value for value in model.graph.initializers.values())
    if path is not None and sum(tensor.nbytes for tensor in weights) > LARGEST_WEIGHTS:
        ir.save(model, path, external_data=weights_of(path).name)
        proto = onnx.load(path, load_external_data=False)
    else:
        proto = onnx.ModelProto.FromString(ir.serde.serialize_model(model).SerializeToString())
    _strip(proto)
    return proto


def without_probes(model: Any, stage: Stage) -> Any:
    """A copy of the graph as it is released: the stage's outputs, and what they need, alone."""
    released = onnx.ModelProto.FromString(model.SerializeToString())
    graph = released.graph
    needed = {spec.name for spec in stage.outputs}
    for field, names in ((graph.output, _name), (graph.node, _results), (graph.initializer, _name)):
        for i in reversed(range(len(field))):
            if needed.isdisjoint(names(field[i])):
                del field[i]
            elif names is _results:
                needed.update(field[i].input)
    return released


def _name(value: Any) -> list[str]:
    return [value.name]


def _results(node: Any) -> list[str]:
    return list(node.output)


def serialise(model: Any) -> bytes:
    """The bytes that are released; deterministic."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def weights_of(path: Path) -> Path:
    """The file of a graph's weights, where they are not in the graph."""
    return path.with_name(f"{path.name}.data")


def open_session(graph: bytes, path: Path | None = None) -> Any:
    """An onnxruntime.InferenceSession of a serialised graph on the CPU.

    Args:
        path: the file that it will be, where its weights are beside it.
    """
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False  # it would keep the most that any batch took
    if path is None or not weights_of(path).exists():
        return onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
    path.write_bytes(graph)
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


def example_inputs(stage: Stage, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Inputs that the stage accepts: random within the bounds of each, free axes small."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(_example(spec, batch, generator, seed % 2) for spec in stage.inputs)


def _example(spec: TensorSpec, batch: int, generator: torch.Generator, larger: int) -> Tensor:
    # Two axes of different lengths, or the exporter would take them for one.
    sizes = [
        size.example(larger + (size.name == "width")) if isinstance(size, Axis) else size
        for size in spec.shape
    ]
    shape = (batch, *sizes)
    if spec.dtype == "float32" and spec.example is None:
        return torch.randn(shape, generator=generator)
    low, high = spec.example or (0, 255)
    if spec.dtype == "float32":
        return low + (high - low) * torch.rand(shape, generator=generator)
    dtype = TORCH_DTYPE[spec.dtype]
    return torch.randint(int(low), int(high) + 1, shape, generator=generator, dtype=dtype)


def _free_axes(spec: TensorSpec) -> dict[int, Any]:
    return {
        i + 1: axis.multiple * torch.export.Dim(axis.name)
        if axis.multiple > 1
        else torch.export.Dim(axis.name)
        for i, axis in spec.axes.items()
    }


class _Positional(nn.Module):
    """Gives every stage the one signature that dynamic shapes are declared for."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)


def _strip(model: Any) -> None:
    """Removes what differs between machines: stack traces, paths, names of the exporter."""
    model.producer_name, model.producer_version, model.doc_string = "galatea", "", ""
    del model.metadata_props[:]
    graph = model.graph
    graph.name, graph.doc_string = "stage", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for entry in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        entry.doc_string = ""
        del entry.metadata_props[:]
    for tensor in (*graph.input, *graph.output):
        for i, dim in enumerate(tensor.type.tensor_type.shape.dim):
            if i == 0 or not dim.HasField("dim_value"):
                dim.dim_param = "batch" if i == 0 else f"axis {i}"


def _check(model: Any, stage: Stage) -> None:
    if not any(tensor.external_data for tensor in model.graph.initializer):
        onnx.checker.check_model(model)  # which otherwise looks for their file
    opset = max(entry.version for entry in model.opset_import)
    if model.ir_version > NEWEST_IR or opset > NEWEST_OPSET:
        raise ExportError(
            f"stage {stage.name!r} became IR {model.ir_version}, opset {opset}; "
            f"Triton's runtime reads IR ≤ {NEWEST_IR}, opset ≤ {NEWEST_OPSET}",
            "install the versions of torch and onnxscript that galatea[export] names",
        )
    random = sorted({node.op_type for node in model.graph.node if "Random" in node.op_type})
    if random:
        raise ExportError(
            f"stage {stage.name!r} draws its own noise ({', '.join(random)})",
            "make the noise an input of the stage, derived from the seed",
        )
    given = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    for spec in (*stage.inputs, *stage.outputs, *stage.probes):
        value = given.get(spec.name)
        dims = value.type.tensor_type.shape.dim[1:] if value is not None else []
        sizes = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
        if value is None or sizes != spec.dims:
            raise ExportError(
                f"stage {stage.name!r}: {spec.name} is not {['batch', *spec.dims]} in the graph, "
                f"but {['batch', *sizes] if value is not None else 'missing'}",
                "this is a fault of the family's declaration; please report it",
            )
