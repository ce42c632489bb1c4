"""What TensorRT 10 can run, from the public operator table of ONNX-TensorRT 10.15.

Source: ``docs/operators.md`` of the project onnx/onnx-tensorrt. Types that galatea's graphs never
have (FP16, BF16, FP8, INT8, …) are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from onnx import TensorProto

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
UINT8, BOOL = TensorProto.UINT8, TensorProto.BOOL

FLOATS = frozenset({FLOAT})
NUMBERS = frozenset({FLOAT, INT32, INT64})
ALL = frozenset({FLOAT, INT32, INT64, BOOL})

ON_FLOATS = """
    Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv
    ConvTranspose Cos Cosh CumSum Dropout Einsum Elu Erf Exp Floor Gemm GlobalAveragePool
    GlobalLpPool GlobalMaxPool GridSample GroupNormalization HardSigmoid HardSwish Hardmax
    InstanceNormalization LayerNormalization LeakyRelu Log LogSoftmax LRN LpNormalization
    LpPool MatMul MaxPool MeanVarianceNormalization Mish PRelu Reciprocal Resize Round Selu
    Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu
"""
ON_NUMBERS = """
    Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual IsInf IsNaN
    Less LessOrEqual Max Mean Min Mod Mul Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
    ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum TopK
"""
ON_ALL = """
    Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND
    Identity OneHot Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu
    Unsqueeze Where
"""
SUPPORTED = {
    **dict.fromkeys(ON_FLOATS.split(), FLOATS),
    **dict.fromkeys(ON_NUMBERS.split(), NUMBERS),
    **dict.fromkeys(ON_ALL.split(), ALL),
    **dict.fromkeys(("And", "Not", "Or", "Xor"), frozenset({BOOL})),
    **dict.fromkeys(("Cast", "CastLike"), ALL | {UINT8}),
}
# Comparisons take numbers and give BOOL; Where and the like take a BOOL beside their numbers.
GIVES_BOOL = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsInf", "IsNaN"}

MODES = {"nearest", "linear"}
COORDINATES = {
    "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners",
}  # fmt: skip
NEAREST = {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}


def obstacles(model: Any) -> Iterator[str]:
    """What in a graph TensorRT 10 would refuse; nothing for a graph that it takes."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    ends = {value.name for value in (*inferred.input, *inferred.output)}
    constants = {tensor.name for tensor in inferred.initializer}
    for node in inferred.node:
        known = SUPPORTED.get(node.op_type)
        if known is None or node.domain not in ("", "ai.onnx"):
            yield f"{node.op_type} is not supported"
            continue
        for name in filter(None, (*node.input, *node.output)):
            kind = types[name]
            if kind == UINT8 and (name not in ends or node.op_type not in ("Cast", "CastLike")):
                yield f"{node.op_type}: uint8 inside of the graph"
            elif kind not in ALL | {UINT8}:
                yield f"{node.op_type}: {TensorProto.DataType.Name(kind)}"
        main, result = types[node.input[0]] if node.input else FLOAT, types[node.output[0]]
        if main not in known and node.op_type != "Where":
            yield f"{node.op_type} on {TensorProto.DataType.Name(main)}"
        if result not in known and node.op_type not in (*GIVES_BOOL, "Shape", "Size"):
            yield f"{node.op_type} giving {TensorProto.DataType.Name(result)}"
        if node.op_type.startswith("Reduce") and not constants.issuperset(node.input[1:]):
            yield f"{node.op_type}: axes are no constant"
        if node.op_type == "Resize":
            yield from _resize(node)


def _resize(node: Any) -> Iterator[str]:
    given = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    for name, allowed, default in (
        ("mode", MODES, b"nearest"),
        ("coordinate_transformation_mode", COORDINATES, b"half_pixel"),
        ("nearest_mode", NEAREST, b"round_prefer_floor"),
        ("keep_aspect_ratio_policy", {"stretch"}, b"stretch"),
    ):
        if given.get(name, default).decode() not in allowed:
            yield f"Resize with {name} {given[name].decode()}"
    if given.get("antialias"):
        yield "Resize with antialias"
