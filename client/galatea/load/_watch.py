"""What is noted at the edges of a window, and the figures between two edges."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from galatea.client import Client
from galatea.load._callers import Done
from galatea.load._gpus import Gpus
from galatea.load._load import Breakdown, Lateness, Load, Usage, rounded
from galatea.load._processes import cpu_seconds, server_processes
from galatea.load._requests import Asking, canvas
from galatea.load._statistics import Statistics, breakdown, read_statistics, stages
from galatea.load._wire import bytes_per_image

__all__ = ["Moment", "Watch"]


@dataclass(frozen=True)
class Moment:
    """An edge of a window.

    Attributes:
        time: on the clock of :func:`time.perf_counter`.
        done: requests that had ended.
        client_cpu, server_cpu: seconds since the processes began; None is not available.
        readings: of GPUs so far.
        statistics: of the servers' models; None is not available.
    """

    time: float
    done: int
    client_cpu: float
    server_cpu: float | None
    readings: int
    statistics: Statistics | None


class Watch:
    """Watches servers and processes while requests are sent.

    Args:
        client: of the servers.
        asking: what is sent.
        metrics_url: see :func:`galatea.load.closed_loop`.
        asked: callers, rate and arrivals: fields of :class:`Load` that say what the load is.
    """

    def __init__(
        self, client: Client, asking: Asking, metrics_url: str | None, **asked: Any
    ) -> None:
        self._client, self._asking, self._asked = client, asking, asked
        urls = client.url.split(", ")
        self._models = stages(client, asking.card.name)
        self._servers = server_processes(urls)
        self._gpus = Gpus(metrics_url, urls[0], asking.card.name)

    def moment(self, done: Sequence[Done], *, lightly: bool = False) -> Moment:
        """Notes how far everything is.

        Args:
            done: requests that have ended.
            lightly: without the servers' statistics.
        """
        self._gpus.read()
        statistics = None if lightly else read_statistics(self._client, self._models)
        return Moment(
            time.perf_counter(), len(done), time.process_time(),
            None if self._servers is None else cpu_seconds(self._servers),
            len(self._gpus), statistics,
        )  # fmt: skip

    def load(
        self,
        done: Sequence[Done],
        first: Moment,
        last: Moment,
        *,
        windows: int,
        stable: bool | None = None,
    ) -> Load:
        """The figures between two moments.

        Requests end in clusters, so time counts from the last end before `first` to the last one
        before `last`.

        Raises:
            GalateaError: all requests failed; the last one's.
        """
        ended = done[first.done : last.done]
        good = [request for request in ended if request.error is None]
        failed = [request.error for request in ended if request.error is not None]
        if not good:
            raise failed[-1]
        begin = done[first.done - 1].end if first.done else first.time
        seconds = max(ended[-1].end - begin, 1e-9)
        card, batch = self._asking.card, self._asking.batch
        latencies = np.array([request.seconds for request in good]) * 1e3
        p50, p90, p95, p99 = np.percentile(latencies, (50, 90, 95, 99))
        source = canvas(card) if card.source_picture is not None else None
        return Load(
            model=card.name,
            version=card.version,
            batch=batch,
            **self._asked,
            seconds=rounded(seconds),
            windows=windows,
            stable=stable,
            requests=len(good),
            images_per_second=rounded(len(good) * batch / seconds),
            requests_per_second=rounded(len(good) / seconds),
            mean_ms=rounded(latencies.mean()),
            p50_ms=rounded(p50),
            p90_ms=rounded(p90),
            p95_ms=rounded(p95),
            p99_ms=rounded(p99),
            max_ms=rounded(latencies.max()),
            wire_bytes=bytes_per_image(card, batch, source),
            errors=dict(Counter(type(error).__name__ for error in failed)),
            lateness=_lateness(ended) if self._asked.get("rate") else None,
            usage=self._usage(first, last, len(good) * batch),
            breakdown=_breakdown(first, last, float(latencies.mean())),
        )

    def _usage(self, first: Moment, last: Moment, images: int) -> Usage:
        server = None
        if first.server_cpu is not None and last.server_cpu is not None:
            server = rounded((last.server_cpu - first.server_cpu) / images)
        client = rounded((last.client_cpu - first.client_cpu) / images)
        seen = self._gpus.utilisation(first.readings)
        if seen is None:
            return Usage(client, server)
        share, gpus = seen
        busy = share * gpus * (last.time - first.time)
        return Usage(client, server, rounded(busy / images), rounded(share), gpus)


def _lateness(requests: Sequence[Done]) -> Lateness:
    late = np.array([request.late for request in requests]) * 1e3
    p50, p95 = np.percentile(late, (50, 95))
    return Lateness(rounded(p50), rounded(p95), rounded(late.max()))


def _breakdown(first: Moment, last: Moment, mean_ms: float) -> Breakdown | None:
    if first.statistics is None or last.statistics is None:
        return None
    return breakdown(first.statistics, last.statistics, mean_ms)
