"""Requests that wait for the engine, and how they are answered.

Exports copy this file beside Triton's ``model.py``: it needs NumPy and Triton's Python backend.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils
from engine import Busy
from jobs import TOLD, Cancelled, Expired

if TYPE_CHECKING:
    from jobs import Preview

Array = np.ndarray[Any, Any]


class Ticket:
    """A request that waits for its answer.

    The engine's threads ask whether it is cancelled, and Triton crashes when it is asked that of a
    request that was answered.

    Args:
        tensors: makes the outputs of decoded samples [n, ..., channels].
    """

    def __init__(self, request: Any, tensors: Callable[[Array], list[Any]]) -> None:
        self._request, self._tensors = request, tensors
        self._sender = request.get_response_sender()
        self._lock = threading.Lock()
        self._answered = False

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        with self._lock:
            return self._answered or bool(self._request.is_cancelled())

    def wishes(self, tensors: dict[str, Array]) -> dict[str, Any]:
        """Further arguments of the request's job."""
        return {}

    def answer(self, calls: list[int], future: Any) -> None:
        """Sends what the engine made, or why it did not.

        Args:
            calls: that each sample needed.
        """
        error = future.exception()
        if error is not None:
            self.fail(error)
            return
        made = self._result(np.stack(future.result()), calls)
        self._send(pb_utils.InferenceResponse(made), final=True)

    def fail(self, error: BaseException) -> None:
        """Sends why there is no image."""
        self._send(pb_utils.InferenceResponse(error=failure(error)), final=True)

    def _result(self, images: Array, calls: list[int]) -> list[Any]:
        tensors: list[Any] = self._tensors(images)
        return tensors

    def _send(self, response: Any, final: bool) -> None:
        with self._lock:
            if self._answered:
                return
            self._answered = final
            flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
            self._sender.send(response, flags=flags)


class Streamed(Ticket):
    """A request that is told how far it is.

    Its answers have the outputs ``index`` (which samples of the request), ``step`` and ``calls``
    (model calls made, and in all), INT32 [n, 1] each: now and then those of all samples and no
    image; every ``preview_every`` calls those of one sample with its predicted image; and at the
    end those of all with all images.
    """

    def wishes(self, tensors: dict[str, Array]) -> dict[str, Any]:
        every = int(tensors["preview_every"].max()) if "preview_every" in tensors else 0
        wishes: dict[str, Any] = {"on_progress": self._progress}
        if every > 0:
            wishes |= {"on_preview": self._preview, "preview_every": every}
        return wishes

    def _progress(self, made: list[int], calls: list[int]) -> None:
        told = self._told(range(len(made)), made, calls)
        self._send(pb_utils.InferenceResponse(told), final=False)

    def _preview(self, preview: Preview) -> None:
        told = self._told([preview.index], [preview.step], [preview.calls])
        images = self._tensors(preview.image[None])
        self._send(pb_utils.InferenceResponse([*images, *told]), final=False)

    def _result(self, images: Array, calls: list[int]) -> list[Any]:
        told = self._told(range(len(images)), calls, calls)
        return [*super()._result(images, calls), *told]

    def _told(self, *values: Sequence[int]) -> list[Any]:
        return [
            pb_utils.Tensor(name, np.array(value, np.int32)[:, None])
            for name, value in zip(TOLD, values, strict=True)
        ]


def failure(error: BaseException) -> Any:
    """An error as Triton's, with a code that tells callers whether to come again."""
    codes = pb_utils.TritonError
    if isinstance(error, Busy):
        return codes(str(error), codes.UNAVAILABLE)
    if isinstance(error, Cancelled | Expired):
        return codes(str(error), codes.CANCELLED)
    if isinstance(error, ValueError | KeyError):
        return codes(str(error), codes.INVALID_ARG)
    return codes(str(error), codes.INTERNAL)
