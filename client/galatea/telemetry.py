"""Counters of a client's requests for Prometheus."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Protocol

from galatea.errors import InvalidInput
from galatea.extras import needs_extra

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Counters"]

# From a batch of small images in shared memory to a diffusion model on a CPU.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Connected(Protocol):
    """What knows how many requests it has on their way."""

    @property
    def in_flight(self) -> int: ...


class Counters:
    """Counts what clients send and get. Safe to share between clients and threads.

    ::

        galatea_client_requests_total{model, outcome}   requests that were answered or failed
        galatea_client_request_seconds{model}           how long those took that were answered
        galatea_client_images_total{model}              images that arrived
        galatea_client_received_bytes_total{model}      bytes of these
        galatea_client_retries_total{model}             requests that were sent again
        galatea_client_in_flight                        requests that are on their way now

    Args:
        registry: of prometheus_client; by default the one that its exporters show.

    Raises:
        InvalidInput: the registry has these counters already.
        MachineError: prometheus-client is not installed.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        with needs_extra("telemetry"):
            from prometheus_client import REGISTRY, Counter, Gauge, Histogram
        within = REGISTRY if registry is None else registry
        try:
            self._requests = Counter(
                "galatea_client_requests", "Requests, by what became of them.",
                ("model", "outcome"), registry=within,
            )  # fmt: skip
        except ValueError as error:  # prometheus_client's word for a name that is taken
            raise InvalidInput(
                "the registry has the counters of galatea already",
                "make one Counters and share it between the clients",
            ) from error
        self._seconds = Histogram(
            "galatea_client_request_seconds", "Seconds from sending to the last byte.",
            ("model",), registry=within, buckets=SECONDS,
        )  # fmt: skip
        self._images = Counter(
            "galatea_client_images", "Images that arrived.", ("model",), registry=within
        )
        self._received = Counter(
            "galatea_client_received_bytes", "Bytes of images and other outputs that arrived.",
            ("model",), registry=within,
        )  # fmt: skip
        self._retries = Counter(
            "galatea_client_retries", "Requests that were sent again.", ("model",), registry=within
        )
        # Weakly, so that a client that was forgotten is not kept by its counters.
        self._watched: weakref.WeakSet[Connected] = weakref.WeakSet()
        Gauge(
            "galatea_client_in_flight", "Requests that are on their way.", registry=within
        ).set_function(lambda: sum(connected.in_flight for connected in list(self._watched)))

    def watch(self, connected: Connected) -> None:
        """Lets the gauge count what something has on its way, as long as that lives."""
        self._watched.add(connected)

    def request(self, model: str, outcome: str, seconds: float, images: int, received: int) -> None:
        """A request was answered, or has failed.

        Args:
            outcome: "ok", or the name of an error of :mod:`galatea.errors`.
            seconds: from sending to the last byte.
            images: number of them in the answer.
            received: bytes of the answer's outputs.
        """
        self._requests.labels(model, outcome).inc()
        if outcome == "ok":
            self._seconds.labels(model).observe(seconds)
            self._images.labels(model).inc(images)
            self._received.labels(model).inc(received)

    def retry(self, model: str) -> None:
        """A request for a model is sent again."""
        self._retries.labels(model).inc()
