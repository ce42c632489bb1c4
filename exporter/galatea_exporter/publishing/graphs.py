"""What the ONNX files of a release hold besides numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from galatea_exporter.graph import NEWEST_IR, NEWEST_OPSET, weights_of

__all__ = ["faults", "texts"]

NUMBERS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def faults(path: Path) -> Iterator[str]:
    """Why Triton's runtimes would refuse a graph, or should not be given it."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has errors of its own
        yield f"no ONNX graph can be read from it ({type(error).__name__})"
        return
    if model.ir_version > NEWEST_IR:
        yield f"has IR version {model.ir_version}; Triton reads {NEWEST_IR} at most"
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            yield f"has operators of {entry.domain!r}, which are not ONNX's own"
        elif entry.version > NEWEST_OPSET:
            yield f"has opset {entry.version}; Triton reads {NEWEST_OPSET} at most"
    if random := sorted({node.op_type for node in model.graph.node if "Random" in node.op_type}):
        yield f"draws its own noise ({', '.join(random)}), so a seed does not make the image"
    beside = weights_of(path).name
    places = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    if outside := sorted(places - {beside}):
        yield f"takes weights from {outside[0]!r}; only {beside} may be beside it"


def texts(path: Path) -> str:
    """Every text in a graph: names, documentation, metadata; none where it cannot be read."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # which is a fault of its own
        return ""
    return "\n".join(_texts(model))


def _texts(message: Any) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.name in NUMBERS:
            continue
        single = isinstance(value, str | bytes | int | float) or hasattr(value, "ListFields")
        for one in (value,) if single else value:
            if isinstance(one, str):
                yield one
            elif isinstance(one, bytes):
                yield one.decode("utf-8", "replace")
            elif hasattr(one, "ListFields"):
                yield from _texts(one)
