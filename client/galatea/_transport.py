"""The wire: calls to Triton over gRPC, with every lower-level error turned into one of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from galatea.errors import (
    DeadlineExceeded,
    GalateaError,
    InvalidInput,
    ModelUnavailable,
    ServerError,
    ServerUnreachable,
)

Arrays = Mapping[str, NDArray[Any]]

# tritonclient sets its message sizes only when it is given no channel arguments of ours.
CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.primary_user_agent", "galatea"),
]
TRITON_DTYPE = {
    np.dtype("int64"): "INT64",
    np.dtype("int32"): "INT32",
    np.dtype("float32"): "FP32",
    np.dtype("uint8"): "UINT8",
}


class Transport:
    """One gRPC channel to one Triton server.

    Args:
        url: ``host:port`` of Triton's gRPC port.
        timeout: seconds that one call may take.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self._client = triton.InferenceServerClient(url, channel_args=CHANNEL)

    def close(self) -> None:
        """Closes the channel; calls that are on their way are cancelled."""
        self._client.close()

    def index(self) -> list[tuple[str, str, str, str]]:
        """(name, version, state, reason) of everything in the server's repository."""
        with self._errors():
            reply = self._client.get_model_repository_index(client_timeout=self.timeout)
        return [(entry.name, entry.version, entry.state, entry.reason) for entry in reply.models]

    def config(self, model: str) -> Any:
        """The ModelConfig protobuf of a model that is ready."""
        with self._errors():
            return self._client.get_model_config(model, client_timeout=self.timeout).config

    def infer(
        self, model: str, version: str, inputs: Arrays, outputs: tuple[str, ...]
    ) -> Future[Arrays]:
        """Sends one request without waiting for its answer.

        Returns:
            A future of the outputs; read-only views on the reply. Its exception is one of ours.
        """
        tensors = []
        for name, array in inputs.items():
            tensor = triton.InferInput(name, array.shape, TRITON_DTYPE[array.dtype])
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        future: Future[Arrays] = Future()

        def answered(result: Any, error: Any) -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if error is not None:
                    raise self._translate(error)
                future.set_result({name: result.as_numpy(name) for name in outputs})
            except GalateaError as failure:
                future.set_exception(failure)
            except ValueError as failure:  # fewer bytes than the shape says
                broken = ServerError(
                    f"{self.url}: the answer cannot be read: {failure}",
                    "run galatea doctor on the server's machine (numpy must be below 2)",
                )
                broken.__cause__ = failure
                future.set_exception(broken)

        with self._errors():
            call = self._client.async_infer(
                model,
                tensors,
                answered,
                model_version=version,
                outputs=[triton.InferRequestedOutput(name) for name in outputs],
                client_timeout=self.timeout,
            )
        future.add_done_callback(lambda done: call.cancel() if done.cancelled() else None)
        return future

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            raise self._translate(error) from error

    def _translate(self, error: InferenceServerException) -> GalateaError:
        """Triton's and gRPC's status codes as errors of ours."""
        status = str(error.status() or "").removeprefix("StatusCode.")
        message = " ".join(str(error.message()).split()).rstrip(".")
        if "unknown model" in message or status == "NOT_FOUND" or "not ready" in message:
            return ModelUnavailable(f"{self.url}: {message}", "run: galatea models")
        if status == "DEADLINE_EXCEEDED":
            return DeadlineExceeded(
                f"{self.url}: no answer within {self.timeout:g} s",
                "allow more time with timeout=… (--timeout), or ask for less at once",
            )
        if status in ("UNAVAILABLE", "CANCELLED"):
            return ServerUnreachable(
                f"{self.url}: {message}", "start a server (galatea serve), or name it with --url"
            )
        if status == "INVALID_ARGUMENT":
            return InvalidInput(f"{self.url}: {message}", "see the model's inputs: galatea show")
        return ServerError(
            f"{self.url}: {message} ({status or 'no status'})", "see the log of the server"
        )
