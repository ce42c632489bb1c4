"""A doubling by nearest neighbours and the convolution behind it, as one transposed convolution.

Of the k × k values that such a convolution reads, most are repeated: at twice the size, 3 × 3 taps
fall on 2 × 2 different values. Added up beforehand they are the kernel of a transposed convolution
with stride 2, which multiplies 4/9 as often (8/27 in a volume).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea_exporter.passes.surgery import (
    attribute,
    constant,
    drop_unused,
    new_constant,
    new_node,
    replace,
    weights_of,
)

# With fewer channels, in two dimensions, reading and writing take longer than multiplying.
LEAST_CHANNELS = 128


def join_resized(graph: Any) -> int:
    """Joins all pairs that are worth it; returns how many."""
    joined = 0
    for node in list(graph):
        resize = node.inputs[0].producer() if node.op_type == "Conv" else None
        if resize is None or not _is_doubling(resize) or not _is_plain(node):
            continue
        weight, _ = weights_of(node) or (None, None)
        if weight is None or (weight.ndim == 4 and weight.shape[1] < LEAST_CHANNELS):
            continue
        name, size = node.inputs[1].name, weight.shape[2]
        kernel = new_constant(graph, f"{name}_joined", joined_kernel(weight))
        axes = weight.ndim - 2
        attributes = {
            "kernel_shape": [size + 1] * axes,
            "strides": [2] * axes,
            "pads": [(size - 1) // 2] * 2 * axes,
        }
        inputs = [resize.inputs[0], kernel, *node.inputs[2:]]
        replace(graph, node, [new_node("ConvTranspose", inputs, attributes, f"{node.name}_joined")])
        joined += 1
    drop_unused(graph)
    return joined


def joined_kernel(weight: NDArray[Any]) -> NDArray[Any]:
    """Weight [out, in, k, …] of a convolution → [in, out, k + 1, …] of the transposed one."""
    axes = tuple(range(2, weight.ndim))
    flipped = np.flip(weight, axes).astype(np.float64)
    shifts = product((0, 1), repeat=len(axes))
    kernel = sum(np.pad(flipped, [(0, 0)] * 2 + [(s, 1 - s) for s in shift]) for shift in shifts)
    return np.asarray(kernel, weight.dtype).swapaxes(0, 1)


def _is_doubling(node: Any) -> bool:
    if node.op_type != "Resize" or len(node.inputs) < 3:
        return False
    scales = constant(node.inputs[2])
    ways = ("mode", "nearest"), ("coordinate_transformation_mode", "asymmetric")
    floors = attribute(node, "nearest_mode", "round_prefer_floor") == "floor"
    return (
        scales is not None
        and [*scales] == [1, 1, *[2] * (len(scales) - 2)]
        and floors
        and all(attribute(node, name, None) == way for name, way in ways)
    )


def _is_plain(node: Any) -> bool:
    """An odd kernel, larger than 1, that keeps the size; no groups."""
    shape = node.inputs[1].shape
    kernel = {*shape[2:]} if shape is not None else set()
    if len(kernel) != 1 or (size := kernel.pop()) % 2 == 0 or size == 1:
        return False
    axes = len(shape) - 2
    return bool(
        attribute(node, "group", 1) == 1
        and attribute(node, "strides", [1] * axes) == [1] * axes
        and attribute(node, "dilations", [1] * axes) == [1] * axes
        and attribute(node, "pads", [0] * 2 * axes) == [(size - 1) // 2] * 2 * axes
        and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
    )
