"""What the diffusion engine works on: a job of several samples, each with its run and conditions.

Exports copy this file beside Triton's ``model.py``: it needs NumPy and Python 3.10 and nothing
else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Context = Mapping[str, Array]
LOG = logging.getLogger(__name__)
TOLD = ("index", "step", "calls")  # outputs of the decoupled model beside the images
PROGRESS = 0.25  # seconds from one report to the next, at least


class JobError(Exception):
    """The root of what ends a job early; ``outcome`` is its name in the engine's metrics."""

    outcome: ClassVar[str] = "failed"


class Cancelled(JobError):
    """The caller cancelled the job."""

    outcome = "cancelled"


class Expired(JobError):
    """The job's deadline passed before its images were ready."""

    outcome = "expired"


class StepFailed(JobError):
    """The model, the sampler or the decoder failed on the job, or gave values not finite."""


class Run(Protocol):
    """One sample's way from noise to image; see ``samplers.py``."""

    @property
    def calls(self) -> int:
        """Model calls in all."""

    @property
    def finished(self) -> bool: ...

    @property
    def sample(self) -> NDArray[np.float32]:
        """The state [C, ...]; the result when finished."""

    @property
    def preview(self) -> NDArray[np.float32]:
        """The predicted clean sample [C, ...]."""

    def row(self) -> tuple[NDArray[np.float32], float]:
        """Model input [C, ...] and timestep of the next call."""

    def advance(self, prediction: NDArray[np.float32]) -> None:
        """Takes one step with the model's answer."""


@dataclass(frozen=True)
class Sample:
    """One image to make.

    Attributes:
        run: from noise to image.
        context: the model's further inputs by name, without the batch dimension.
        unconditional: the same for the unconditional (or negative) row; None: no guidance.
        guidance: scale of classifier-free guidance; at 1 the unconditional row is left out.
    """

    run: Run
    context: Context = field(default_factory=dict)
    unconditional: Context | None = None
    guidance: float = 1.0

    def contexts(self) -> list[Context]:
        """One for each row: the unconditional one first."""
        if self.unconditional is None or self.guidance == 1:
            return [self.context]
        return [self.unconditional, self.context]

    def combined(self, predictions: Sequence[Array]) -> NDArray[np.float32]:
        """One prediction [C or 2C, ...] of those of the rows.

        The channels after the sample's own are the learned variance: as in GLIDE (Nichol et al.
        2021) they are the conditional row's and not extrapolated.
        """
        # A copy: samplers keep predictions, and the caller's model may use its buffer again.
        result = np.array(predictions[-1], np.float32)
        if len(predictions) == 2:
            guided = result[: len(self.run.sample)]  # changed in place: large arrays cost time
            base = np.asarray(predictions[0][: len(guided)], np.float32)
            guided -= base
            guided *= np.float32(self.guidance)
            guided += base
        return result


@dataclass(frozen=True)
class Preview:
    """A sample on its way: which of its job, after how many of its model calls, decoded."""

    index: int
    step: int
    calls: int
    image: Array


class Job:
    """A request: its samples, and the future of their images.

    Args:
        samples: at least one; they may differ in shape, steps and guidance.
        timeout: seconds from now until the job expires.
        is_cancelled: asked once a step while the job runs, now and then while it waits, and before
            decoding; by two threads.
        on_preview: is given decoded previews, in the engine's second thread. While the decoder has
            one of a sample, further ones of it are left out.
        preview_every: model calls from one preview of a sample to the next.
        on_progress: is told now and then how many calls were made for each sample and how many it
            needs, in the engine's first thread.

    Attributes:
        future: the images in the order of the samples, or what ended the job instead. Its callbacks
            run in the engine's second thread, after the job's last preview.
        calls: model calls that its samples need in all, and ``calls_each`` that each needs.
        made: those made so far.
        rows, images, missing, ended: the engine's own.

    Raises:
        ValueError: no samples, or arguments that do not fit together.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        timeout: float | None = None,
        is_cancelled: Callable[[], bool] | None = None,
        on_preview: Callable[[Preview], None] | None = None,
        preview_every: int = 1,
        on_progress: Callable[[list[int], list[int]], None] | None = None,
    ) -> None:
        if not samples or preview_every < 1:
            raise ValueError("a job has at least one sample, and preview_every is at least 1")
        self.future: Future[list[Array]] = Future()
        self.future.set_running_or_notify_cancel()  # so that only the engine can end it
        self.calls_each = [sample.run.calls for sample in samples]
        self.calls = sum(self.calls_each)
        self.made = 0
        self.rows = [Row(self, index, sample) for index, sample in enumerate(samples)]
        self.images: list[Array] = [np.empty(0)] * len(samples)
        self.missing = len(samples)
        self.ended = False
        self._timeout = timeout
        self._deadline = float("inf") if timeout is None else time.monotonic() + timeout
        self._is_cancelled = is_cancelled
        self._on_preview = on_preview
        self._preview_every = preview_every
        self._on_progress = on_progress
        self._told = float("-inf")
        self._cancelled = False

    def cancel(self) -> None:
        """Frees the job's rows at the next step; ``future`` then raises :class:`Cancelled`."""
        self._cancelled = True

    def result(self, timeout: float | None = None) -> list[Array]:
        """Waits for the images at most `timeout` seconds; raises what ended the job instead."""
        return self.future.result(timeout)

    def reason_to_leave(self, poll: bool) -> JobError | None:
        """Whether the job is cancelled or late; `poll`: ask ``is_cancelled`` too."""
        try:
            polled = poll and self._is_cancelled is not None and self._is_cancelled()
        except Exception as error:
            return self.failure("asking whether the job is cancelled", error)
        if self._cancelled or polled:
            return Cancelled(f"cancelled after {self.made} of {self.calls} model calls")
        if time.monotonic() > self._deadline:
            return Expired(
                f"not ready after {self._timeout:g} s: {self.made} of {self.calls} model calls "
                "made; allow more time or fewer steps"
            )
        return None

    def wants_preview(self, row: Row) -> bool:
        """Whether one is due after the call that `row` has just made."""
        due = self._on_preview is not None and row.made % self._preview_every == 0
        return due and not row.previewed

    def hand_over(self, row: Row, step: int, image: Array) -> None:
        """Gives the caller a preview of `row` as it was after `step` calls."""
        row.previewed = False
        if self._on_preview is not None:
            self._on_preview(Preview(row.index, step, row.sample.run.calls, image))

    def tell(self) -> None:
        """Reports how far the samples are, if that is due."""
        rows, now = self.rows, time.monotonic()
        if self._on_progress is None or not rows or now < self._told + PROGRESS:
            return
        self._told = now
        self._on_progress([row.made for row in rows], self.calls_each)

    def failure(self, what: str, error: Exception) -> StepFailed:
        """What ends the job because `what` failed.

        The traceback goes to the log and not along: it would keep all arrays of a step alive.
        """
        LOG.warning("%s failed", what, exc_info=error)
        failed = StepFailed(f"{what} failed: {type(error).__name__}: {error}")
        failed.__cause__ = error.with_traceback(None)
        return failed


class Row:
    """A sample of a job in the engine, which has one row or, with guidance, two in a call.

    Attributes:
        key: rows of equal keys can share a call.
        stepping: there are steps left.
        made: model calls made.
        previewed: a preview waits for the decoder.
        x, t: the input of the call in progress.
    """

    def __init__(self, job: Job, index: int, sample: Sample) -> None:
        self.job, self.index, self.sample = job, index, sample
        self.contexts = sample.contexts()
        shapes = [_shapes(context) for context in self.contexts]
        if shapes[0] != shapes[-1]:
            raise ValueError(f"conditional and unconditional inputs differ: {shapes}")
        self.key = (sample.run.sample.shape, *shapes[0])
        self.stepping = not sample.run.finished
        self.made = 0
        self.previewed = False
        self.x: Array = sample.run.sample
        self.t = 0.0


def _shapes(context: Context) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    return tuple((name, value.shape, value.dtype.str) for name, value in sorted(context.items()))
