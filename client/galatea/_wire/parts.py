"""Answers in parts: what a request is told before its result, over a stream of gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from galatea._wire.messages import Arrays, outputs, unwrap

__all__ = ["METADATA", "result"]

# Without it Triton puts a failure into a message, as a sentence without a status.
METADATA = (("triton_grpc_error", "true"),)


def result(
    stream: Iterable[bytes],
    wanted: Sequence[str],
    listen: Callable[[Arrays], None],
) -> Arrays:
    """Waits for the wanted outputs of a request; `listen` is told what comes before them.

    Every message says how many calls of the network were made for a sample, ``step``, and how many
    there will be, ``calls``. The result has the outputs of every sample after its last call.

    Raises:
        DecodeError, ValueError, KeyError, TypeError: a message that cannot be read, or no result.
        grpc.RpcError: the stream broke.
    """
    made: Arrays | None = None
    for message in stream:
        arrays = outputs(unwrap(message))
        finished = all(name in arrays for name in wanted)
        if finished and np.array_equal(arrays["step"], arrays["calls"]):
            made = arrays
        else:
            listen(arrays)
    if made is None:
        raise ValueError("the stream ended before the result")
    return made
