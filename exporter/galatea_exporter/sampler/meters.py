"""The engine's counters and gauges among Triton's metrics.

Exports copy this file beside Triton's ``model.py``: it needs Python 3.10 and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

PERIOD = 1.0  # seconds; Triton itself polls its metrics every two
OUTCOMES = ("completed", "cancelled", "expired", "failed", "refused", "closed")
COUNTERS = {
    "calls": "Calls of the diffusion network",
    "rows": "Rows of these calls; rows per call is how well requests were merged",
    "retries": "Requests that were tried again alone, because a call for several failed",
    "step_seconds": "Seconds in steps",
    "call_seconds": "Seconds of these in the network",
}
GAUGES = {
    "jobs": "Requests in the engine",
    "waiting": "Requests of these without a step yet",
    "samples": "Images that are not ready yet",
}


class Meters:
    """Tells Triton what the engine counts, once a second, in a thread of its own.

    Args:
        model: name of the model, the metrics' label.
        family: Triton's class ``MetricFamily``.
        read: the engine's counters and gauges by name.
    """

    def __init__(self, model: str, family: Any, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read
        self._closed = threading.Event()
        self._told: dict[str, float] = {}
        labels = {"model": model}
        self._families: dict[str, Any] = {}  # Triton forgets one that nothing holds

        def metric(name: str, description: str, kind: Any, **further: str) -> Any:
            if name not in self._families:
                full = f"galatea_sampler_{name}"
                self._families[name] = family(name=full, description=description, kind=kind)
            return self._families[name].Metric(labels=labels | further)

        self._counters = {
            name: metric(f"{name}_total", description, family.COUNTER)
            for name, description in COUNTERS.items()
        }
        self._counters |= {
            name: metric("requests_total", "Requests by outcome", family.COUNTER, outcome=name)
            for name in OUTCOMES
        }
        self._gauges = {
            name: metric(name, description, family.GAUGE) for name, description in GAUGES.items()
        }
        self._thread = threading.Thread(target=self._forever, name="galatea-meters", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()
        self._thread.join()

    def _forever(self) -> None:
        while not self._closed.wait(PERIOD):
            now = dict(self._read())
            for name, counter in self._counters.items():
                if now[name] > self._told.get(name, 0):
                    counter.increment(now[name] - self._told.get(name, 0))
            for name, gauge in self._gauges.items():
                if now[name] != self._told.get(name):
                    gauge.set(now[name])
            self._told = now
