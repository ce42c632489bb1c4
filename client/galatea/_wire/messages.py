"""Inference messages between arrays and bytes, with one copy at most.

A protobuf library copies tensors into its own memory and out of it again. Here it reads and writes
the small fields alone; the tensors, which are the last fields of both messages, are joined to the
rest before sending, and an answer's are views of the bytes that came. Texts, which are arrays of
objects here, travel as Triton's BYTES: before each the number of its bytes, in 4 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)

__all__ = ["Arrays", "datatype", "is_text", "outputs", "pack", "unpack", "unwrap"]

Arrays = Mapping[str, NDArray[Any]]

DTYPES: dict[str, np.dtype[Any]] = {
    "INT64": np.dtype("int64"),
    "INT32": np.dtype("int32"),
    "FP32": np.dtype("float32"),
    "UINT8": np.dtype("uint8"),
    "UINT16": np.dtype("uint16"),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
TEXT = np.dtype(object)

BYTES = 2  # protobuf's wire type of strings, bytes and messages
RAW_INPUT = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | BYTES
RAW_OUTPUT = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | BYTES
WRAPPED = ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER << 3 | BYTES


def is_text(array: NDArray[Any]) -> bool:
    """Whether an array holds texts."""
    return array.dtype == TEXT


def datatype(array: NDArray[Any]) -> str:
    """Triton's name of what an array holds.

    Raises:
        KeyError: it has none here.
    """
    return "BYTES" if is_text(array) else NAMES[array.dtype]


def pack(head: ModelInferRequest, arrays: Sequence[NDArray[Any]]) -> bytes:
    """The bytes of a request whose inputs hold these arrays.

    Args:
        head: the request without raw contents.
        arrays: of the inputs that do not lie in shared memory, in the order of `head`.
    """
    parts: list[Any] = [head.SerializeToString()]
    for array in arrays:
        content = _texts(array) if is_text(array) else np.ascontiguousarray(array).data
        parts += (_varint(RAW_INPUT), _varint(memoryview(content).nbytes), content)
    return b"".join(parts)


def unpack(message: bytes | memoryview) -> tuple[ModelInferResponse, list[memoryview]]:
    """The answer without its tensors, and views of these in their order.

    Raises:
        DecodeError: not such a message.
    """
    head, raw = [], []
    for key, field, content in _fields(memoryview(message)):
        if key == RAW_OUTPUT:
            raw.append(content)
        else:
            head.append(field)
    return ModelInferResponse.FromString(b"".join(head)), raw


def outputs(
    message: bytes | memoryview,
    read: Callable[[str, np.dtype[Any], tuple[int, ...]], NDArray[Any]] | None = None,
) -> Arrays:
    """The tensors of an answer by name.

    Args:
        read: gives those that lie in shared memory; None: they are views of the message.

    Raises:
        DecodeError, ValueError, KeyError, StopIteration: it cannot be read.
    """
    head, raw = unpack(message)
    contents = iter(raw)
    arrays = {}
    for tensor in head.outputs:
        shape, dtype = tuple(tensor.shape), DTYPES[tensor.datatype]
        arrays[tensor.name] = (
            np.frombuffer(next(contents), dtype).reshape(shape)
            if read is None
            else read(tensor.name, dtype, shape)
        )
    return arrays


def unwrap(message: bytes) -> memoryview:
    """The answer in a message of a stream.

    Raises:
        DecodeError: there is none.
    """
    for key, _, content in _fields(memoryview(message)):
        if key == WRAPPED:
            return content
    raise DecodeError("no answer in it")


def _texts(array: NDArray[Any]) -> bytes:
    encoded = [text.encode() for text in array.ravel()]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Key, whole field and content of each field; all of an answer's have a length."""
    at = 0
    while at < len(message):
        begin = at
        key, at = _read_varint(message, at)
        size, at = _read_varint(message, at)
        if key & 7 != BYTES or at + size > len(message):
            raise DecodeError("a field that an answer does not have, or half of one")
        yield key, message[begin : at + size], message[at : at + size]
        at += size


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise DecodeError("half a number")
