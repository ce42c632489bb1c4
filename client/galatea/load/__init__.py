"""Measuring what servers give under load: throughput, latency, and where the time goes.

>>> from galatea import Client
>>> from galatea.load import closed_loop
>>> load = closed_loop(lambda: Client("localhost:8001"), "phantom", batch=8, callers=4, seconds=5)
>>> load.images_per_second, load.p95_ms, load.breakdown.stages  # doctest: +SKIP

:func:`closed_loop` has callers that send their next request when they have the answer,
:func:`open_loop` requests that arrive at a rate, whatever the server does.
"""

from galatea.load._arrivals import Arrivals
from galatea.load._load import Breakdown, Lateness, Load, Stage, Usage
from galatea.load._measure import Timing, closed_loop, open_loop
from galatea.load._processes import here
from galatea.load._requests import canvas, synthetic
from galatea.load._statistics import server_version
from galatea.load._wire import bytes_per_image

__all__ = [
    "Arrivals",
    "Breakdown",
    "Lateness",
    "Load",
    "Stage",
    "Timing",
    "Usage",
    "bytes_per_image",
    "canvas",
    "closed_loop",
    "here",
    "open_loop",
    "server_version",
    "synthetic",
]
