"""Trace contexts: requests belong to the trace of the program that sends them."""

from __future__ import annotations

import sys

__all__ = ["trace_headers"]


def trace_headers() -> list[tuple[str, str]]:
    """Headers that carry the current trace context to a server.

    W3C ``traceparent``, ``tracestate`` and ``baggage``, or whatever OTEL_PROPAGATORS names; none
    where opentelemetry-api is not installed, or nothing is being traced. Triton continues the trace
    (``--trace-config mode=opentelemetry``).

    Returns:
        Entries of gRPC metadata; their keys are in lower case, as gRPC demands.
    """
    if "opentelemetry.context" not in sys.modules:  # nobody can have begun a trace
        return []
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return [(key.lower(), value) for key, value in carrier.items()]
