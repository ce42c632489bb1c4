"""gRPC's status codes and Triton's words as errors of ours."""

from __future__ import annotations

from typing import Any

import grpc

from galatea.errors import (
    DeadlineExceeded,
    GalateaError,
    InvalidInput,
    ModelUnavailable,
    ServerError,
    ServerUnreachable,
)

__all__ = ["translate"]

BUSY = "busy"  # a server's first word when it has as many requests as it takes


def translate(error: Any, address: str, timeout: float) -> GalateaError:
    """A call that has failed as an error of ours."""
    status: grpc.StatusCode = error.code()
    message = " ".join(str(error.details() or status.name).split()).rstrip(".")
    if "shared memory region" in message:  # forgotten by a server that was restarted
        return ServerUnreachable(f"{address}: {message}", "use transport='grpc'")
    if "unknown model" in message or status is grpc.StatusCode.NOT_FOUND or "not ready" in message:
        missing = ModelUnavailable(f"{address}: {message}", "run: galatea models")
        # What a server that ends says on connections it has; another one may take its place.
        missing.passing = "not at ready state" in message
        return missing
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(
            f"{address}: no answer within {timeout:g} s",
            "allow more time with timeout=… (--timeout), or ask for less at once",
        )
    if status is grpc.StatusCode.UNAVAILABLE and message.startswith(BUSY):
        full = ServerError(f"{address}: {message}", "allow more time, or name more servers: --url")
        full.passing = True
        return full
    if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ServerUnreachable(
            f"{address}: {message}",
            "start a server (galatea serve), or name it with --url",
        )
    if status is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidInput(f"{address}: {message}", "see the model's inputs: galatea show")
    if status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return ServerError(
            f"{address}: {message}", "give a token that the server accepts: --token-file"
        )
    return ServerError(f"{address}: {message} ({status.name})", "see the log of the server")
