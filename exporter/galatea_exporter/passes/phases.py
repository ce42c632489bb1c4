"""A transposed convolution that doubles large maps, as a convolution and a rearrangement.

Rows and columns of the result that are even come from one half of the kernel, the odd ones from the
other (Shi et al. 2016, arXiv:1609.05158 and 1609.07009). All four phases are channels of one
convolution of half the kernel, and DepthToSpace puts them in their places. On a CPU the convolution
is faster than what a transposed one becomes, a product of matrices and a scattered sum.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea_exporter.passes.surgery import (
    attribute,
    drop_unused,
    new_constant,
    new_node,
    replace,
    weights_of,
)

# Products for each tap; with fewer, the rearrangement takes longer than it saves.
LEAST_WORK = 2**25


def in_phases(graph: Any) -> int:
    """Rewrites the transposed convolutions that are worth it; returns how many."""
    rewritten = 0
    for node in list(graph):
        if node.op_type != "ConvTranspose" or not _is_doubling(node):
            continue
        weight, bias = weights_of(node) or (None, None)
        if weight is None or not _is_large(node.inputs[0].shape, weight.shape):
            continue
        name, half = node.name, weight.shape[2] // 2
        inputs = [node.inputs[0], new_constant(graph, f"{name}_phases", phases_of(weight))]
        if bias is not None:
            inputs.append(new_constant(graph, f"{name}_phases_bias", np.repeat(bias, 4)))
        attributes = {"kernel_shape": [half, half], "pads": [half // 2] * 4}
        conv = new_node("Conv", inputs, attributes, f"{name}_phases_made")
        depth = new_node(
            "DepthToSpace", [*conv.outputs], {"blocksize": 2, "mode": "CRD"}, f"{name}_placed"
        )
        # The windows of the two phases of an axis lie one apart: a row is left over on each side.
        ends = [
            new_constant(graph, f"{name}_{key}", np.array(values, np.int64))
            for key, values in (("first", [1, 1]), ("last", [-1, -1]), ("axes", [2, 3]))
        ]
        crop = new_node("Slice", [depth.outputs[0], *ends], {}, f"{name}_cropped")
        replace(graph, node, [conv, depth, crop])
        rewritten += 1
    drop_unused(graph)
    return rewritten


def phases_of(weight: NDArray[Any]) -> NDArray[Any]:
    """Weight [in, out, 2m, 2m] of the transposed convolution → [4 · out, in, m, m]."""
    c_in, c_out, size, _ = weight.shape
    # In the grid of windows, the first row of each block is the odd phase.
    taps = [range(size - 2 + place, -1, -2) for place in (0, 1)]
    phases = np.empty((c_out, 2, 2, c_in, size // 2, size // 2), weight.dtype)
    for row in (0, 1):
        for column in (0, 1):
            part = weight[:, :, taps[row]][:, :, :, taps[column]]
            phases[:, row, column] = part.swapaxes(0, 1)
    return phases.reshape(4 * c_out, c_in, size // 2, size // 2)


def _is_doubling(node: Any) -> bool:
    """A square kernel of 4, 8, … that makes twice the size; no groups."""
    shape = node.inputs[1].shape
    if shape is None or len(shape) != 4 or shape[2] != shape[3] or shape[2] % 4:
        return False
    return bool(
        attribute(node, "group", 1) == 1
        and attribute(node, "strides", [1, 1]) == [2, 2]
        and attribute(node, "dilations", [1, 1]) == [1, 1]
        and attribute(node, "pads", [0] * 4) == [shape[2] // 2 - 1] * 4
        and attribute(node, "output_padding", [0, 0]) == [0, 0]
        and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
    )


def _is_large(features: Any, weight: tuple[int, ...]) -> bool:
    """Whether the map is; one of a free size may be small."""
    sides = [] if features is None else [*features[2:]]
    if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        return False
    return bool(prod([*weight[:2], *sides]) >= LEAST_WORK)
