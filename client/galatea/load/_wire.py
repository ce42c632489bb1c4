"""Bytes that a request and its answer take on a network."""

from __future__ import annotations

import numpy as np
from tritonclient.grpc import service_pb2

from galatea._wire.messages import DTYPES
from galatea.card import Input, ModelCard, Output

__all__ = ["bytes_per_image"]

TEXT = 64  # bytes of a prompt, about
FRAME, FRAME_HEAD = 16384, 9  # of HTTP/2
MESSAGE_HEAD = 5  # of gRPC


def bytes_per_image(card: ModelCard, batch: int, source: tuple[int, int] | None = None) -> int:
    """Bytes of an image over the network, both ways, with its share of the framing.

    Exact for tensors, protobuf, gRPC and the frames of HTTP/2; headers, TCP/IP and TLS are left
    out, and a prompt counts as 64 characters. Nothing of this travels through shared memory.

    Args:
        card: of the generator.
        batch: images of a request.
        source: height and width of pictures, for models that take any size.
    """
    request = service_pb2.ModelInferRequest(model_name=card.name, model_version=str(card.version))
    response = service_pb2.ModelInferResponse(model_name=card.name, model_version=str(card.version))
    sent = received = 0
    for entry in card.inputs:
        shape = (batch, *_sized(entry.shape, source))
        request.inputs.add(name=entry.name, datatype=entry.dtype, shape=shape)
        sent += _framed(_size(entry, shape))
    for output in card.outputs:
        shape = (batch, *_sized(output.shape, source))
        request.outputs.add(name=output.name)
        response.outputs.add(name=output.name, datatype=output.dtype, shape=shape)
        received += _framed(_size(output, shape))
    whole = _message(request.ByteSize() + sent) + _message(response.ByteSize() + received)
    return round(whole / batch)


def _sized(shape: tuple[int, ...], source: tuple[int, int] | None) -> tuple[int, ...]:
    """A shape without the batch; free sizes, which are the first ones, are those of the source."""
    free = source or (0, 0)
    return tuple(size if size >= 0 else free[min(axis, 1)] for axis, size in enumerate(shape))


def _size(entry: Input | Output, shape: tuple[int, ...]) -> int:
    if entry.dtype == "BYTES":
        return int(np.prod(shape)) * (4 + TEXT)
    return int(np.prod(shape)) * DTYPES[entry.dtype].itemsize


def _framed(size: int) -> int:
    """A tensor as a field of a message: key, length, content."""
    return 1 + max(1, -(-size.bit_length() // 7)) + size


def _message(size: int) -> int:
    """A message with what gRPC and HTTP/2 put around it."""
    whole = size + MESSAGE_HEAD
    return whole + FRAME_HEAD * -(-whole // FRAME)
