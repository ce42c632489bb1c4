"""Loads from beginning to end: warm-up, windows until they agree, figures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from galatea.client import Client
from galatea.errors import InvalidInput
from galatea.load._arrivals import Arrivals
from galatea.load._callers import Callers, Rate, Senders
from galatea.load._load import Load
from galatea.load._requests import Asking
from galatea.load._watch import Moment, Watch
from galatea.pictures import Picture

__all__ = ["Timing", "closed_loop", "open_loop"]

AGREEING = 3  # windows
TICK = 1.0  # seconds between reports
SOON = 0.05  # seconds after which it is looked again whether a window has seen enough

Report = Callable[[Load], None]


@dataclass(frozen=True)
class Timing:
    """How long is measured.

    Attributes:
        seconds: a fixed time; None measures windows until the last three agree.
        warmup: seconds before that, which do not count.
        window: seconds of a window. It lasts longer where it would see less than a request of each
            caller.
        stability: throughput and mean latency of three windows agree within this part of their
            mean.
        most: windows at most.

    Raises:
        InvalidInput: nothing could be measured in this time.
    """

    seconds: float | None = None
    warmup: float = 1.0
    window: float = 2.0
    stability: float = 0.1
    most: int = 10

    def __post_init__(self) -> None:
        length = self.window if self.seconds is None else self.seconds
        if not 0 < length < math.inf or not self.warmup >= 0:
            raise InvalidInput(
                f"{length:g} s after {self.warmup:g} s of warm-up measure nothing",
                "give a time above 0 s",
            )
        if not self.stability > 0 or self.most < AGREEING:
            raise InvalidInput(
                f"{self.most} windows that agree within {self.stability:.0%} are never stable",
                f"allow at least {AGREEING} windows, and more than 0",
            )


def closed_loop(
    open_client: Callable[[], Client],
    name: str,
    *,
    batch: int | None = None,
    callers: int,
    seconds: float | None = None,
    warmup: float = 1.0,
    timing: Timing | None = None,
    seed: int = 0,
    pictures: Sequence[Picture] | None = None,
    metrics_url: str | None = None,
    report: Report = lambda load: None,
    **conditions: Any,
) -> Load:
    """Callers that send their next request when they have the answer.

    Args:
        open_client: makes a client; each caller has its own.
        name: the generator.
        batch: images of a request, one Triton request each; by default what the server takes at
            once, and at most 32.
        callers: number of them, each in a thread.
        seconds: measure so long; None: until three windows agree, see :class:`Timing`.
        warmup: seconds before that.
        timing: says both in place of `seconds` and `warmup`, and more.
        seed: of the first image; no two requests have the same seeds.
        pictures: for image-to-image models, what they translate, used in turn; by default noise of
            the size that the card declares.
        metrics_url: of the server's metrics, for GPUs; by default port 8002 of the first server.
        report: told about once a second what was measured so far, without breakdown.
        conditions: other inputs of the generator; see :meth:`galatea.Client.sample`.

    Raises:
        InvalidInput: an argument that is none, or that the card does not allow.
        ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError: no request succeeded.
    """
    if callers < 1:
        raise InvalidInput(f"{callers} callers measure nothing", "give at least 1 caller")
    chosen = timing or Timing(seconds, warmup)
    with open_client() as client:
        asking = Asking(client, name, batch, seed, conditions, pictures)
        watch = Watch(client, asking, metrics_url, callers=callers, rate=None, arrivals="")
        return _Measurement(Callers(open_client, asking, callers), watch, chosen, report).run()


def open_loop(
    open_client: Callable[[], Client],
    name: str,
    *,
    batch: int | None = None,
    rate: float,
    arrivals: Arrivals = "poisson",
    seconds: float | None = None,
    warmup: float = 1.0,
    timing: Timing | None = None,
    seed: int = 0,
    pictures: Sequence[Picture] | None = None,
    metrics_url: str | None = None,
    report: Report = lambda load: None,
    **conditions: Any,
) -> Load:
    """Requests that arrive at a rate, whether or not earlier ones were answered.

    Args:
        rate: requests a second.
        arrivals: "poisson", by chance and the same for the same `seed`; or "constant".

    Other arguments and errors are those of :func:`closed_loop`.
    """
    if not 0 < rate < math.inf:
        raise InvalidInput(f"{rate:g} requests/s measure nothing", "give a rate above 0")
    if arrivals not in get_args(Arrivals):
        raise InvalidInput(
            f"no arrivals {arrivals!r}", f"choose one of: {', '.join(get_args(Arrivals))}"
        )
    chosen = timing or Timing(seconds, warmup)
    with open_client() as client:
        asking = Asking(client, name, batch, seed, conditions, pictures)
        watch = Watch(client, asking, metrics_url, callers=None, rate=rate, arrivals=arrivals)
        senders = Rate(open_client, asking, rate, arrivals, seed)
        return _Measurement(senders, watch, chosen, report).run()


@dataclass(frozen=True)
class _Measurement:
    """One load from its first request to its figures."""

    senders: Senders
    watch: Watch
    timing: Timing
    report: Report

    def run(self) -> Load:
        """Lets the senders go, and stops them when enough was seen."""
        try:
            self.senders.start()
            time.sleep(self.timing.warmup)
            load = self._windows() if self.timing.seconds is None else self._once()
        except KeyboardInterrupt:
            self.senders.stop(wait=False)
            raise
        except BaseException:
            self.senders.stop(wait=True)
            raise
        self.senders.stop(wait=True)
        return load

    def _once(self) -> Load:
        assert self.timing.seconds is not None
        first = self.watch.moment(self.senders.done)
        last = self._window([first], self.timing.seconds)
        return self.watch.load(self.senders.done, first, last, windows=1)

    def _windows(self) -> Load:
        """Windows until the last three agree, or there are enough of them."""
        edges = [self.watch.moment(self.senders.done)]
        single: list[Load] = []
        stable = False
        while not stable and len(single) < self.timing.most:
            edges.append(self._window(edges, self.timing.window))
            single.append(self.watch.load(self.senders.done, *edges[-2:], windows=1))
            stable = _agree(single[-AGREEING:], self.timing.stability)
        first, last = edges[-AGREEING - 1], edges[-1]
        return self.watch.load(self.senders.done, first, last, windows=len(single), stable=stable)

    def _window(self, edges: list[Moment], seconds: float) -> Moment:
        """Waits for the end of the window that begins at the last edge, and reports."""
        done, since = self.senders.done, edges[-1]
        end, told = since.time + seconds, time.perf_counter()
        while (left := end - time.perf_counter()) > 0 or not self._enough(since):
            time.sleep(min(TICK, left) if left > 0 else SOON)
            if time.perf_counter() - told >= TICK:
                self._tell(edges)
                told = time.perf_counter()
        return self.watch.moment(done)

    def _tell(self, edges: list[Moment]) -> None:
        """Reports what was seen since the beginning of the last three windows."""
        done, first = self.senders.done, edges[max(0, len(edges) - AGREEING)]
        now = self.watch.moment(done, lightly=True)
        if any(request.error is None for request in done[first.done : now.done]):
            self.report(self.watch.load(done, first, now, windows=len(edges) - 1))

    def _enough(self, since: Moment) -> bool:
        return len(self.senders.done) - since.done >= self.senders.crowd


def _agree(windows: Sequence[Load], within: float) -> bool:
    """Whether throughput and latency of the last windows are the same but for a part of them."""
    if len(windows) < AGREEING:
        return False
    for figures in (
        [load.images_per_second for load in windows],
        [load.mean_ms for load in windows],
    ):
        mean = sum(figures) / len(figures)
        if max(abs(figure - mean) for figure in figures) > within * mean:
            return False
    return True
