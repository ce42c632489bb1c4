"""What the passes share: reading constants and attributes of nodes, and replacing nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxscript import ir


def attribute(node: Any, name: str, default: Any) -> Any:
    """The value of an attribute; lists of numbers as lists."""
    given = node.attributes.get(name)
    if given is None:
        return default
    return list(given.value) if isinstance(given.value, list | tuple) else given.value


def constant(value: Any) -> NDArray[Any] | None:
    """The array of a constant input; None where it is missing or computed."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    array: NDArray[Any] = value.const_value.numpy()
    return array


def weights_of(node: Any) -> tuple[NDArray[Any], NDArray[Any] | None] | None:
    """Weight and bias of a convolution whose weights are constants; None of another."""
    weight = constant(node.inputs[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or (bias is not None and constant(bias) is None):
        return None
    return weight, constant(bias)


def new_constant(graph: Any, name: str, array: NDArray[Any]) -> Any:
    """A constant of the graph under a name that is not taken."""
    while name in graph.initializers:
        name += "_"
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
    )
    graph.register_initializer(value)
    return value


def new_node(
    operator: str, inputs: list[Any], attributes: dict[str, Any], name: str, like: Any = None
) -> Any:
    """A node with one output, whose name is its own, typed as the value `like`."""
    made = ir.Value(name=name)
    if like is not None:
        made.shape, made.type = like.shape, like.type
    ir.node(operator, inputs, attributes, outputs=[made], name=name)
    return made.producer()


def replace(graph: Any, old: Any, nodes: list[Any]) -> None:
    """Puts nodes in the place of one; the last of them makes what it made, under its name."""
    before, after = old.outputs[0], nodes[-1].outputs[0]
    graph.insert_before(old, nodes)
    after.shape, after.type = before.shape, before.type
    name, before.name = before.name, f"{before.name}_before"
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    after.name = name
    graph.remove(old, safe=True)


def drop_unused(graph: Any) -> None:
    """Removes nodes and constants that nothing uses."""
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]
