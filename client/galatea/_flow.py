"""Requests on their way: several at once, tried again where they fail, their answers in order.

A flow is a generator of steps and waits for nothing itself: it yields what a caller must wait for,
or an answer. :func:`drive` waits in the calling thread, :mod:`galatea.aio` in an event loop.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from galatea._window import Window
from galatea._wire.endpoint import Call, Endpoint, Reply
from galatea._wire.messages import Arrays
from galatea._wire.pool import Pool
from galatea.card import ModelCard
from galatea.errors import (
    DeadlineExceeded,
    GalateaError,
    ModelUnavailable,
    ServerError,
    ServerUnreachable,
)

__all__ = ["Counting", "Flow", "Rules", "Wait", "drive"]

R = TypeVar("R")
T = TypeVar("T")

BACKOFF = 0.1, 2.0  # seconds before a request is sent again: at first, at most
SOON = 0.1  # seconds after which others than the oldest request are looked at again at the earliest
SERVER_FAILURES = 2  # times that a request is sent again which a server failed to compute


class Counting(Protocol):
    """Who counts requests; see :mod:`galatea.telemetry`."""

    def watch(self, connected: Pool) -> None: ...

    def request(
        self, model: str, outcome: str, seconds: float, images: int, received: int
    ) -> None: ...

    def retry(self, model: str) -> None: ...


@dataclass(frozen=True)
class Rules:
    """How a client treats its requests.

    Attributes:
        patience: seconds that a request is tried again which fails for a passing reason.
        hedge: a request that takes this many times longer than usual is sent to another server too;
            None: never.
        counters: told of every request.
    """

    patience: float = 20.0
    hedge: float | None = None
    counters: Counting | None = None


@dataclass(frozen=True)
class Wait:
    """Go on when one of the futures is done, or when `seconds` have passed."""

    futures: tuple[Future[Any], ...]
    seconds: float

    def block(self) -> None:
        """Waits in the calling thread."""
        if self.futures:
            wait(self.futures, self.seconds, FIRST_COMPLETED)
        else:
            time.sleep(self.seconds)


def drive(steps: Generator[Wait | T, None, None]) -> Generator[T, None, None]:
    """What a flow yields but the waiting, which is done here."""
    try:
        for step in steps:
            if isinstance(step, Wait):
                step.block()
            else:
                yield step
    finally:
        steps.close()


@dataclass
class _Job(Generic[R]):
    """One request with its attempts; all give the same answer, the first one counts."""

    request: R
    call: Call
    attempts: list[tuple[Endpoint, Future[Reply], float]] = field(default_factory=list)
    hedged: bool = False
    failing_since: float | None = None
    not_before: float = 0.0
    failures: int = 0
    error: GalateaError | None = None  # the last one
    final: bool = False  # that error is not worth another attempt
    answered: bool = False

    def reply(self) -> Reply | None:
        """The answer, once it is there."""
        for _, future, _ in self.attempts:
            if future.done() and future.exception() is None:
                return future.result()
        return None

    def abandon(self, but: Reply | None = None) -> None:
        """Gives all attempts up, except the one that `but` came from."""
        for _, future, _ in self.attempts:
            if not future.cancel() and future.done() and future.exception() is None:
                reply = future.result()
                if reply is not but:
                    reply.release()


class _Parts(Generic[R]):
    """What comes before the results of requests, from the threads that read it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: deque[tuple[_Job[R], Arrays]] = deque()
        self.some: Future[None] = Future()  # done while there are any

    def put(self, job: _Job[R], arrays: Arrays) -> None:
        with self._lock:
            self._parts.append((job, arrays))
            if not self.some.done():
                self.some.set_result(None)

    def take(self) -> Iterator[tuple[R, Arrays]]:
        """All that are there of requests that have no answer yet."""
        with self._lock:
            taken, self._parts = self._parts, deque()
            if taken:
                self.some = Future()
        return ((job.request, arrays) for job, arrays in taken if not job.answered)


class Flow(Generic[R]):
    """The requests of one call to the client.

    Args:
        card: of the model; servers that have it with another card get none of the requests.
        call: what is sent for a request.
        timeout: seconds that a request may take.
        reply: bytes of an answer, where they are known.
        deadline: seconds for the whole, from now on.
    """

    def __init__(
        self,
        pool: Pool,
        card: ModelCard,
        call: Callable[[R], Call],
        rules: Rules,
        *,
        timeout: float,
        reply: int | None = None,
        deadline: float | None = None,
    ) -> None:
        self._pool, self._card, self._call, self._rules = pool, card, call, rules
        self._timeout = timeout
        self._parts: _Parts[R] = _Parts()
        self._window = Window(len(pool.endpoints), reply)
        self._deadline = deadline
        self._end = None if deadline is None else time.monotonic() + deadline
        self._answered = 0

    def run(
        self,
        requests: Iterator[R],
        receive: Callable[[R, Arrays], T],
        hear: Callable[[R, Arrays], T] | None = None,
    ) -> Generator[Wait | T, None, None]:
        """Yields what `receive` makes of each answer, in the order of the requests.

        With `hear` answers come in parts: it also yields what that makes of each part which is no
        result, as they come. Both must copy what they keep. When the next request cannot be made,
        what was asked before is still answered; then its error is raised.
        """
        waiting: deque[_Job[R]] = deque()
        failure: GalateaError | None = None
        more = True
        try:
            while True:
                while more and len(waiting) < self._window.size:
                    try:
                        request = next(requests, None)
                    except GalateaError as error:
                        request, failure = None, error
                    if request is None:
                        more = False
                    else:
                        waiting.append(self._job(request, listens=hear is not None))
                if not waiting:
                    break
                self._check_deadline()
                full = len(waiting) >= self._window.size
                for job in waiting:
                    self._tend(job)
                head = waiting[0]
                reply = head.reply()
                if hear is not None:  # all that came before that reply
                    for request, arrays in self._parts.take():
                        yield hear(request, arrays)
                if reply is None:
                    if head.final and head.error is not None:
                        raise head.error
                    yield self._wait(waiting)
                    continue
                waiting.popleft()
                head.answered = True
                head.abandon(but=reply)
                self._window.answered(reply.seconds, full=full)
                self._count("ok", reply.seconds, len(next(iter(reply.arrays.values()))), reply)
                self._answered += 1
                made = receive(head.request, reply.arrays)
                reply.release()
                yield made
            if failure is not None:
                raise failure
        finally:
            for job in waiting:
                job.abandon()

    def _job(self, request: R, *, listens: bool) -> _Job[R]:
        job = _Job(request, self._call(request))
        if listens:
            job.call = replace(job.call, listen=partial(self._parts.put, job))
        return job

    def _tend(self, job: _Job[R]) -> None:
        """Sends a request that is not on its way, unless it has failed for good."""
        now = time.monotonic()
        for attempt in list(job.attempts):
            asked, future, sent = attempt
            if future.done() and (error := future.exception()) is not None:
                job.attempts.remove(attempt)
                assert isinstance(error, GalateaError)
                self._count(type(error).__name__, now - sent, 0, None)
                self._note(job, asked, error, now)
        if job.final or (job.attempts and not self._wants_hedge(job, now)):
            return
        if now < job.not_before:
            return
        tried = [endpoint for endpoint, _, _ in job.attempts]
        endpoint = self._pool.pick(self._card, busy=tried)
        if endpoint is None:
            self._note_that_nobody_is_there(job, now)
        elif not job.attempts or endpoint not in tried:
            job.hedged = bool(job.attempts)
            if job.failures or job.hedged:
                self._count_retry()
            left = self._timeout if self._end is None else max(self._end - now, 0.001)
            seconds = min(self._timeout, left)
            job.attempts.append((endpoint, endpoint.infer(job.call, seconds), now))

    def _note(self, job: _Job[R], endpoint: Endpoint, error: GalateaError, now: float) -> None:
        """Remembers a failed attempt, and decides whether there will be another one."""
        job.error = error
        job.failures += 1
        job.failing_since = job.failing_since or now
        pause = min(BACKOFF[0] * 2 ** (job.failures - 1), BACKOFF[1])
        job.not_before = now + pause * random.random()  # noqa: S311 - spreads callers, no secret
        others = len(self._pool.endpoints) > 1
        if isinstance(error, ServerError):
            # A server that is full works, and has room when what it has is done.
            waits = self._rules.patience > 0 and now - job.failing_since < self._timeout
            job.final = not waits if error.passing else job.failures > SERVER_FAILURES
            if error.passing:
                self._window.failed()
            return
        passing = error.passing or (
            others and isinstance(error, ModelUnavailable | DeadlineExceeded)
        )
        if passing:
            endpoint.failed()
            self._window.failed()
        job.final = not passing or now - job.failing_since >= self._rules.patience

    def _note_that_nobody_is_there(self, job: _Job[R], now: float) -> None:
        job.failing_since = job.failing_since or now
        if self._pool.has_others_only(self._card):
            job.final, job.error = (
                True,
                ModelUnavailable(
                    f"{self._pool.url}: version {self._card.version} of {self._card.name} is not "
                    "served any more, but another version or other weights",
                    "call again to get the one that is served now",
                ),
            )
        elif now - job.failing_since >= self._rules.patience:
            job.final, job.error = (
                True,
                job.error
                or ServerUnreachable(
                    f"{self._pool.url}: no server answers for {self._card.name}",
                    "start a server (galatea serve), or name another one with --url",
                ),
            )

    def _wants_hedge(self, job: _Job[R], now: float) -> bool:
        after = self._hedge_after()
        return after is not None and not job.hedged and now - job.attempts[0][2] >= after

    def _hedge_after(self) -> float | None:
        usual = self._window.usual()
        if self._rules.hedge is None or usual is None:
            return None
        return self._rules.hedge * usual

    def _wait(self, waiting: deque[_Job[R]]) -> Wait:
        """What may happen next to the oldest request."""
        head = waiting[0]
        now = time.monotonic()
        seconds = 60.0
        if head.attempts:
            futures: list[Future[Any]] = [future for _, future, _ in head.attempts]
            after = self._hedge_after()
            if after is not None and not head.hedged:
                seconds = max(0.001, head.attempts[0][2] + after - now)
        else:
            futures = list(self._pool.probes(self._card))
            seconds = max(0.001, head.not_before - now, 0 if futures else self._pool.rests_for)
            seconds = min(seconds, 0.5) if not futures else 0.5
        if head.call.stepwise:  # it may take minutes, in which others fail or can be sent again
            others = [job for job in waiting if job is not head]
            futures += [f for job in others for _, f, _ in job.attempts if not f.done()]
            pauses = [job.not_before - now for job in others if not (job.attempts or job.final)]
            seconds = min(seconds, max(SOON, min(pauses, default=seconds)))
        if self._end is not None:
            seconds = min(seconds, max(0.0, self._end - now))
        if head.call.listen is not None:
            futures.append(self._parts.some)
        return Wait(tuple(futures), seconds)

    def _check_deadline(self) -> None:
        if self._end is not None and time.monotonic() >= self._end:
            raise DeadlineExceeded(
                f"{self._pool.url}: {self._answered} batches of {self._card.name} came within "
                f"{self._deadline:g} s, and that was not all",
                "allow more time with deadline=…, or ask for fewer",
            )

    def _count(self, outcome: str, seconds: float, images: int, reply: Reply | None) -> None:
        if self._rules.counters is not None:
            received = reply.received if reply is not None else 0
            self._rules.counters.request(self._card.name, outcome, seconds, images, received)

    def _count_retry(self) -> None:
        if self._rules.counters is not None:
            self._rules.counters.retry(self._card.name)
