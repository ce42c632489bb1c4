"""Continuous batching of diffusion: one thread owns all runs and makes one model call a step.

Each step takes rows of whatever samples there are, each row with its own timestep, calls the model
once, and moves every sample on. New jobs join at the next step, short ones leave early, a cancelled
one stops at the next step: the iteration-level scheduling of Orca (Yu et al. 2022, OSDI) with
denoising steps in the place of tokens. Classifier-free guidance (Ho & Salimans 2022) is two rows of
a sample in the same call.

A second thread decodes, and hands over previews, results and errors, so that neither the decoder
nor a slow caller holds up the steps. Whatever fails is tried again job by job: a bad job fails
alone. With a model and a decoder that treat rows independently, a sample's bits do not depend on
its neighbours.

Exports copy this file beside Triton's ``model.py``: it needs NumPy and Python 3.10 and nothing
else, and is given what it calls.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # never at run time: the two files lie beside each other in no package
    from galatea_exporter.sampler.jobs import Job, JobError, Row

Array = NDArray[Any]
COUNTERS = (
    *("calls", "rows", "decodes", "decoded", "retries"),
    *("completed", "cancelled", "expired", "failed", "refused", "closed"),
)


class Busy(Exception):
    """The engine is full; ``position`` is the place in the queue that the job would have had."""

    def __init__(self, position: int, samples: int, bound: int) -> None:
        super().__init__(
            f"busy: {samples} samples are here and at most {bound} may be; this job would be "
            f"number {position} in the queue; try again later"
        )
        self.position = position


class Closed(Exception):
    """The engine is shut down."""

    outcome = "closed"  # as of the errors of jobs.py


@dataclass
class _Latent:
    """A sample to decode and hand over."""

    job: Job
    row: Row
    values: Array
    final: bool
    step: int


_Work = TypeVar("_Work", "Row", _Latent)


class Engine:
    """Runs jobs in two threads of its own; a context manager.

    Args:
        call: the model: float32 x [n, C, ...], float32 t [n] and context arrays [n, ...] by name
            to the prediction [n, C or 2C, ...]. Called from one thread.
        max_rows: rows of a step at most. A job of more takes its turns.
        call_rows: rows of a call at most, where a step shall be several; None: as `max_rows`. The
            rows of one sample are never parted: at 1 each sample has calls of its own.
        decode: finished states [n, C, ...] to images [n, ...]; None: they are the images.
        decode_rows: rows of a decoder's call at most; None: as `call_rows`.
        max_samples: a job is refused when so many samples are in the engine already.
    """

    def __init__(
        self,
        call: Callable[[NDArray[np.float32], NDArray[np.float32], dict[str, Array]], Array],
        *,
        max_rows: int = 8,
        call_rows: int | None = None,
        decode: Callable[[NDArray[np.float32]], Array] | None = None,
        decode_rows: int | None = None,
        max_samples: int = 256,
    ) -> None:
        call_rows = max_rows if call_rows is None else call_rows
        decode_rows = call_rows if decode_rows is None else decode_rows
        if min(max_rows, max_samples, call_rows, decode_rows) < 1:
            raise ValueError("max_rows, call_rows, decode_rows and max_samples are at least 1")
        self._call, self._decode = call, decode
        self._max_rows, self._max_samples = max_rows, max_samples
        self._call_rows, self._decode_rows = call_rows, decode_rows
        self._changed = threading.Condition()  # guards everything below
        self._jobs: dict[Job, None] = {}  # those not ended, oldest first
        self._latents: list[_Latent] = []
        self._endings: list[tuple[Job, JobError | Closed | None]] = []
        self._turns: list[tuple[Any, ...]] = []
        self._counts: Counter[str] = Counter()
        self._seconds = {"step_seconds": 0.0, "call_seconds": 0.0}
        self._closing = self._stopped = False
        self._threads = [
            threading.Thread(target=self._forever, args=work, name=f"galatea-{name}", daemon=True)
            for name, work in {
                "steps": (self._has_steps, self._step),
                "deliveries": (self._has_deliveries, self._deliver),
            }.items()
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> Job:
        """Queues a job, and returns it.

        Raises:
            Busy: the engine is full.
            Closed: it is shut down.
        """
        with self._changed:
            if self._closing:
                raise Closed("the engine is shut down; send the request to another server")
            here = sum(other.missing for other in self._jobs)
            if here >= self._max_samples:
                self._counts["refused"] += 1
                raise Busy(len(self._jobs) + 1, here, self._max_samples)
            self._jobs[job] = None
            for row in job.rows:
                if not row.stepping:
                    self._latents.append(_Latent(job, row, row.x, True, 0))
            self._changed.notify_all()
        return job

    def metrics(self) -> dict[str, float]:
        """Counters since the start, and gauges.

        ``calls`` and ``rows`` of the model, ``decodes`` and ``decoded`` of the decoder, ``retries``
        job by job, ``step_seconds`` with ``call_seconds`` of it in the model; jobs by outcome:
        ``completed``, ``cancelled``, ``expired``, ``failed``, ``refused``, ``closed``; and now:
        ``jobs``, ``waiting`` ones without a call yet, ``samples`` not handed over.
        """
        with self._changed:
            return {
                **{name: self._counts[name] for name in COUNTERS},
                **self._seconds,
                "jobs": len(self._jobs),
                "waiting": sum(job.made == 0 for job in self._jobs),
                "samples": sum(job.missing for job in self._jobs),
            }

    def close(self, drain: float = 0.0) -> None:
        """Refuses new jobs, waits `drain` seconds for those here, ends the rest, joins the threads.

        A model call in progress is waited for. Not to be called from the engine's own callbacks.
        """
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: not self._jobs, drain)
            for job in list(self._jobs):
                self._end(job, Closed("the engine was shut down before the job was ready"))
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forever(self, has_work: Callable[[], bool], work: Callable[[], None]) -> None:
        """A thread: `work` as long as there is some. Idle, it must not hold on to any array."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or has_work())
                if not has_work():
                    return
            try:
                work()
            except Exception as error:  # a defect of ours must not leave callers waiting for ever
                self._fail_all(error)

    def _has_steps(self) -> bool:
        return any(row.stepping for job in self._jobs for row in job.rows)

    def _has_deliveries(self) -> bool:
        return bool(self._latents or self._endings)

    def _step(self) -> None:
        began = time.perf_counter()
        with self._changed:
            jobs = list(self._jobs)
        turn = self._counts["calls"] % len(jobs) if jobs else 0
        for place, job in enumerate(jobs):
            # Asking may cost a round trip to the server: of those that wait, one a step.
            self._let_leave(job, poll=job.made > 0 or place == turn)
        rows = [row for row in self._chosen(jobs) if self._prepare(row)]
        for row, prediction in self._isolated(rows, self._predict, "the model"):
            self._advance(row, prediction)
        for job in dict.fromkeys(row.job for row in rows):
            try:
                job.tell()
            except Exception as error:
                self._end(job, job.failure("reporting progress", error))
        with self._changed:
            self._seconds["step_seconds"] += time.perf_counter() - began

    def _chosen(self, jobs: Sequence[Job]) -> list[Row]:
        """Rows of one shape, oldest first, as many as fit; the shapes take turns."""
        groups: dict[tuple[Any, ...], list[Row]] = {}
        for row in (row for job in jobs for row in job.rows if row.stepping):
            groups.setdefault(row.key, []).append(row)
        if not groups:
            return []
        known = [key for key in self._turns if key in groups]
        key, *others = [*known, *(key for key in groups if key not in known)]
        self._turns = [*others, key]
        chosen, free = groups[key][:1], self._max_rows - len(groups[key][0].contexts)
        for row in groups[key][1:]:
            if free < 1:
                break
            if len(row.contexts) <= free:
                chosen.append(row)
                free -= len(row.contexts)
        return chosen

    def _prepare(self, row: Row) -> bool:
        try:
            row.x, row.t = row.sample.run.row()
        except Exception as error:
            self._end(row.job, row.job.failure("the sampler", error))
            return False
        return not row.job.ended

    def _predict(self, rows: Sequence[Row]) -> list[Array]:
        """The model's guided answer for each of `rows`."""
        answers: list[Array] = []
        for some in self._calls(rows):
            inputs = [(row.x, row.t, context) for row in some for context in row.contexts]
            xs, ts, contexts = zip(*inputs, strict=True)
            x = np.stack(xs)
            context = {name: np.stack([each[name] for each in contexts]) for name in contexts[0]}
            began = time.perf_counter()
            try:
                answer = np.asarray(self._call(x, np.array(ts, np.float32), context))
            finally:
                with self._changed:
                    self._counts.update(calls=1, rows=len(x))
                    self._seconds["call_seconds"] += time.perf_counter() - began
            if answer.shape[:1] + answer.shape[2:] != x.shape[:1] + x.shape[2:]:
                raise ValueError(f"the model gave {answer.shape} for {x.shape}")
            predictions = iter(answer)
            for row in some:
                own = [next(predictions) for _ in row.contexts]
                answers.append(row.sample.combined(own))
        return answers

    def _calls(self, rows: Sequence[Row]) -> list[list[Row]]:
        """`rows` in calls of at most ``call_rows``, or of one sample that has more."""
        calls: list[list[Row]] = []
        free = 0
        for row in rows:
            if not calls or len(row.contexts) > free:
                calls.append([])
                free = self._call_rows
            calls[-1].append(row)
            free -= len(row.contexts)
        return calls

    def _advance(self, row: Row, prediction: Array) -> None:
        run, job = row.sample.run, row.job
        try:
            run.advance(prediction)
            row.made += 1
            job.made += 1
            final = run.finished
            if not final and not job.wants_preview(row):
                return
            values = np.array(run.sample if final else run.preview, np.float32)
            if not np.isfinite(values).all():
                raise ValueError("the sample is not finite")
        except Exception as error:
            self._end(job, job.failure("the sampler", error))
            return
        with self._changed:
            row.stepping, row.previewed = not final, True
            if not job.ended:
                self._latents.append(_Latent(job, row, values, final, row.made))
                self._changed.notify_all()

    def _deliver(self) -> None:
        with self._changed:
            endings, self._endings = self._endings, []
        for job, error in endings:  # before anything else: nobody waits for a decoder to be told
            if error is None:
                job.future.set_result(job.images)
            else:
                job.future.set_exception(error)
        with self._changed:
            shape = self._latents[0].values.shape if self._latents else ()
            latents = [latent for latent in self._latents if latent.values.shape == shape]
            latents = latents[: self._decode_rows]
            taken = set(map(id, latents))
            self._latents = [latent for latent in self._latents if id(latent) not in taken]
        for job in dict.fromkeys(latent.job for latent in latents):
            self._let_leave(job, poll=True)
        latents = [latent for latent in latents if not latent.job.ended]
        for latent, image in self._isolated(latents, self._decoded, "the decoder"):
            self._hand_over(latent, image)

    def _decoded(self, latents: Sequence[_Latent]) -> list[Array]:
        states = np.stack([latent.values for latent in latents])
        images = states if self._decode is None else np.asarray(self._decode(states))
        with self._changed:
            self._counts.update(decodes=1, decoded=len(states))
        if len(images) != len(states):
            raise ValueError(f"the decoder gave {images.shape} for {states.shape}")
        return [np.array(image) for image in images]  # copies: a view would keep all the others

    def _hand_over(self, latent: _Latent, image: Array) -> None:
        job, row = latent.job, latent.row
        if latent.final:
            with self._changed:
                job.images[row.index] = image
                job.missing -= 1
            if job.missing == 0:
                self._end(job, None)
        elif not job.ended:
            try:
                job.hand_over(row, latent.step, image)
            except Exception as error:
                self._end(job, job.failure("handing over a preview", error))

    def _isolated(
        self, works: Sequence[_Work], attempt: Callable[[Sequence[_Work]], list[Array]], what: str
    ) -> list[tuple[_Work, Array]]:
        """Each of `works` with what `attempt` gives; ends the jobs for which it fails.

        All are tried together first, and then those that failed again job by job.
        """
        if not works:
            return []
        good: list[tuple[_Work, Array]] = []
        groups: dict[Job, list[_Work]] = {}
        for work in works:
            groups.setdefault(work.job, []).append(work)
        together, problem = _attempted(attempt, works)
        results = {id(work): value for work, value in zip(works, together, strict=True)}
        for job, own in groups.items():
            values = [results[id(work)] for work in own]
            if len(groups) > 1 and any(value is None for value in values):
                with self._changed:
                    self._counts["retries"] += 1
                values, problem = _attempted(attempt, own)
            pairs = [(w, v) for w, v in zip(own, values, strict=True) if v is not None]
            if len(pairs) < len(own):
                unfinite = ValueError("values are not finite")
                self._end(job, job.failure(what, problem or unfinite))
            else:
                good += pairs
        return good

    def _let_leave(self, job: Job, poll: bool) -> None:
        reason = None if job.ended else job.reason_to_leave(poll)
        if reason is not None:
            self._end(job, reason)

    def _end(self, job: Job, error: JobError | Closed | None) -> None:
        """Takes a job out, once; its future is set by the second thread."""
        with self._changed:
            if job.ended:
                return
            job.ended = True
            job.rows = []  # the caller may keep the job, not its arrays
            self._jobs.pop(job, None)
            self._endings.append((job, error))
            self._counts["completed" if error is None else error.outcome] += 1
            self._changed.notify_all()

    def _fail_all(self, error: Exception) -> None:
        with self._changed:
            for job in list(self._jobs):
                self._end(job, job.failure("the engine", error))


def _attempted(
    attempt: Callable[[Sequence[_Work]], list[Array]], works: Sequence[_Work]
) -> tuple[list[Array | None], Exception | None]:
    """What `attempt` gives, None for what is not finite; or the error."""
    try:
        values = attempt(works)
    except Exception as error:
        return [None] * len(works), error
    return [value if np.isfinite(value).all() else None for value in values], None
