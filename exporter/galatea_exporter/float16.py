"""Graphs in float16, for GPUs: convolutions and matrix products over maps, and what lies between.

As in mixed-precision training (Micikevicius et al. 2017, arXiv:1710.03740), what is sensitive stays
float32: statistics (means, squares, roots, norms of vectors), the vectors of styles and timesteps,
whatever a sine, or inside of a network a threshold or a rounding is taken of, and the end of a
network, its last convolution included.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxscript import ir

__all__ = ["in_half", "rehearsal"]

PRODUCTS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
# These take the precision of what they are given. Norms and Softmax are among them because GPUs'
# kernels keep their sums in float32.
FOLLOW = """
    Add AveragePool Clip Concat DepthToSpace Div Elu Erf Expand Flatten Gather Gelu
    GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization
    LeakyRelu Max MaxPool Min Mish Mul Neg PRelu Pad Relu Reshape Resize Sigmoid Slice Softmax
    Softplus Split Squeeze Sub Sum Tanh Transpose Unsqueeze Where
"""
NEUTRAL = frozenset(FOLLOW.split())
WAVES = frozenset({"Sin", "Cos"})
STEPS = frozenset({
    "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Round", "Sign",
})  # fmt: skip
BLIND = frozenset({"Shape", "Size"})  # to their input's precision
WHOLE_INPUTS = {"Resize": (1, 2)}  # float32 by the operators' definition

# Pictures are precise, and below 8 channels there is nothing for a tensor core to do.
LEAST_CHANNELS = 8

FULL, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def in_half(model: Any, folder: Path) -> Any:
    """The graph with its heavy part in float16; inputs and outputs as they were.

    Args:
        model: onnx.ModelProto in float32.
        folder: where its weights are, if they lie beside it.

    Returns:
        onnxscript.ir.Model; None where nothing is worth it.
    """
    # Shapes and types are what the choice needs; weights are no part of that.
    half = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(model, data_prop=True))
    ir.external_data.set_base_dir(half.graph, folder)
    chosen = _chosen(half.graph)
    if not chosen:
        return None
    _Casts(half.graph).convert(chosen)
    return half


def rehearsal(model: Any) -> Any:
    """The same arithmetic for a CPU: float32 sums, every result rounded to float16.

    ONNX Runtime's CPU computes a float16 graph in float32 and leaves the rounding between its
    operators out, and with it every overflow: it would tell how good the weights are, not how good
    the images will be.

    Args:
        model: onnxscript.ir.Model of :func:`in_half`; it is changed.
    """
    graph = model.graph
    for value in graph.initializers.values():
        if value.dtype == HALF:
            value.const_value = ir.tensor(_array(value).astype(np.float32), name=value.name)
            value.dtype = FULL
    for node in list(graph):
        for output in node.outputs:
            if output.dtype == HALF:
                narrow = output
                if node.op_type != "Cast":
                    output.dtype = FULL
                    narrow = _cast(output, HALF, f"{output.name}_narrow")
                    graph.insert_after(node, narrow.producer())
                wide = _cast(narrow, FULL, f"{output.name}_rounded")
                graph.insert_after(narrow.producer(), wide.producer())
                for user, index in list(output.uses()):
                    if user not in (narrow.producer(), wide.producer()):
                        user.replace_input_with(index, wide)
    return model


def _chosen(graph: Any) -> set[Any]:
    """The nodes that run in float16."""
    worth = {node for node in graph if _is_worth_it(node)}
    inside = _before(worth)
    # A step inside of a network makes a large difference of a small one.
    exact = _before(
        node
        for node in graph
        if node.op_type in WAVES or (node.op_type in STEPS and node in inside)
    )
    products = worth - exact
    inside = _before(products) - exact
    chosen: set[Any] = set()
    for node in graph:
        follows = (
            node.op_type in NEUTRAL
            and node in inside
            and all(output.dtype == FULL for output in node.outputs)
            and any(value is not None and value.producer() in chosen for value in node.inputs)
            and not _is_square(node)
        )
        if (node in products or follows) and all(map(_fits, node.inputs)):
            chosen.add(node)
    return chosen if chosen & products else set()


def _before(nodes: Iterable[Any]) -> set[Any]:
    """All nodes that these are computed from."""
    found: set[Any] = set()
    ahead = list(nodes)
    while ahead:
        for node in ahead.pop().predecessors():
            if node not in found:
                found.add(node)
                ahead.append(node)
    return found


def _is_worth_it(node: Any) -> bool:
    """Whether it is a product over maps or rows of vectors, not of single vectors."""
    if node.op_type not in PRODUCTS or node.outputs[0].dtype != FULL:
        return False
    shape = node.outputs[0].shape
    if shape is None or len(shape) < 3:
        return False
    weight = node.inputs[1].shape
    if node.op_type == "Conv":
        made = weight[0]
    elif node.op_type == "ConvTranspose":
        made = weight[1] * _attribute(node, "group", 1)
    else:
        made = LEAST_CHANNELS
    return isinstance(made, int) and made >= LEAST_CHANNELS


def _is_square(node: Any) -> bool:
    """Squares of numbers above 255 are beyond float16."""
    return node.op_type == "Mul" and node.inputs[0] is node.inputs[1]


def _fits(value: Any) -> bool:
    """Whether a constant stays finite, and not 0 where it is one small number."""
    if value is None or value.dtype != FULL or not value.is_initializer():
        return True
    array = _array(value)
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float16)
    lost = np.isfinite(array) & ~np.isfinite(rounded)
    return not lost.any() and (array.size > 1 or bool(np.all((rounded == 0) == (array == 0))))


class _Casts:
    """Gives the nodes of a graph what they take; each value is cast once."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.made: dict[tuple[Any, Any], Any] = {}

    def convert(self, chosen: set[Any]) -> None:
        """Lets the nodes that were chosen run in float16."""
        for node in list(self.graph):
            for index, value in enumerate(node.inputs):
                if value is not None and value.dtype in (FULL, HALF) and node.op_type not in BLIND:
                    whole = node not in chosen or index in WHOLE_INPUTS.get(node.op_type, ())
                    node.replace_input_with(index, self._as(value, FULL if whole else HALF))
            if node in chosen:
                for output in node.outputs:
                    output.dtype = HALF
        for index, value in enumerate(self.graph.outputs):
            if value.dtype == HALF:
                name, value.name = value.name, f"{value.name}_half"
                self.graph.outputs[index] = wide = self._as(value, FULL)
                wide.name = name
                wide.shape = value.shape
        for name, value in list(self.graph.initializers.items()):
            if not value.uses():
                del self.graph.initializers[name]

    def _as(self, value: Any, dtype: Any) -> Any:
        if value.dtype == dtype:
            return value
        if (value, dtype) not in self.made:
            name = f"{value.name}_{'half' if dtype == HALF else 'full'}"
            self.made[value, dtype] = self._new(value, dtype, name)
        return self.made[value, dtype]

    def _new(self, value: Any, dtype: Any, name: str) -> Any:
        if value.is_initializer():
            tensor = ir.tensor(_array(value).astype(np.float16), name=name)
            constant = ir.Value(
                name=name, type=ir.TensorType(dtype), shape=tensor.shape, const_value=tensor
            )
            self.graph.register_initializer(constant)
            return constant
        made = _cast(value, dtype, name)
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], made.producer())
        else:
            self.graph.insert_after(producer, made.producer())
        return made


def _cast(value: Any, dtype: Any, name: str) -> Any:
    """The result of a new node."""
    made = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
    ir.node("Cast", [value], {"to": dtype}, outputs=[made], name=f"cast_{name}")
    return made


def _array(value: Any) -> NDArray[Any]:
    array: NDArray[Any] = value.const_value.numpy()
    return array


def _attribute(node: Any, name: str, default: int) -> int:
    given = node.attributes.get(name)
    return default if given is None else int(given.value)
