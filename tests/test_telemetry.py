"""Requests belong to the caller's trace, and are counted for Prometheus where that is wanted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer, format_span_id, format_trace_id
from prometheus_client import CollectorRegistry, generate_latest
from tritonclient.grpc import service_pb2

from galatea import Client
from galatea._telemetry import trace_headers
from galatea._wire.endpoint import Call, Endpoint
from galatea._wire.security import Security
from galatea.errors import InvalidInput, ModelUnavailable, ServerError
from galatea.telemetry import Counters
from galatea_server.server import EmbeddedServer


class Recorder(grpc.GenericRpcHandler):
    """A server without models that keeps the headers of each call."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str | bytes]] = []

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Answers every method with the empty index of a repository."""
        self.headers.append(dict(call.invocation_metadata))
        answer = service_pb2.RepositoryIndexResponse().SerializeToString()
        return grpc.unary_unary_rpc_method_handler(lambda request, context: answer)


@pytest.fixture
def recorder() -> Iterator[tuple[Recorder, Client]]:
    """The server and a client of it."""
    handler = Recorder()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}", transport="grpc") as client:
        yield handler, client
    server.stop(None).wait()


@pytest.fixture(scope="module")
def tracer() -> Tracer:
    return TracerProvider().get_tracer("galatea")


def test_a_request_carries_the_callers_trace(
    recorder: tuple[Recorder, Client], tracer: Tracer
) -> None:
    handler, client = recorder
    with tracer.start_as_current_span("epoch") as span:
        client.models()
    (headers,) = handler.headers
    ids = span.get_span_context()
    trace, parent = format_trace_id(ids.trace_id), format_span_id(ids.span_id)
    assert str(headers["traceparent"]).startswith(f"00-{trace}-{parent}-")


def test_an_inference_carries_it_like_any_other_call(
    recorder: tuple[Recorder, Client], tracer: Tracer
) -> None:
    handler, client = recorder
    endpoint = Endpoint(client.url, Security(), 5.0, "grpc", trace_headers)
    call = Call("masses", "1", {"seed": np.zeros((1, 1), np.int64)}, {"image": None})
    with tracer.start_as_current_span("epoch"):
        answer = endpoint.infer(call)
    with pytest.raises(ServerError):  # this server has no images
        answer.result(5)
    endpoint.close()
    assert "traceparent" in handler.headers[0]


def test_baggage_travels_too(recorder: tuple[Recorder, Client]) -> None:
    handler, client = recorder
    token = context.attach(baggage.set_baggage("study", "breast 7"))
    try:
        client.models()
    finally:
        context.detach(token)
    assert handler.headers[0]["baggage"] == "study=breast+7"


def test_without_a_trace_there_is_no_header(recorder: tuple[Recorder, Client]) -> None:
    handler, client = recorder
    client.models()
    assert not {"traceparent", "tracestate", "baggage"} & set(handler.headers[0])


def test_a_program_that_traces_nothing_does_not_load_opentelemetry() -> None:
    code = (
        "import sys; from galatea._telemetry import trace_headers; assert trace_headers() == []; "
        "import galatea.telemetry; "
        "print([m for m in sys.modules if m.startswith(('opentelemetry', 'prometheus'))])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_counters_tell_what_was_asked_and_what_came(server: EmbeddedServer) -> None:
    registry = CollectorRegistry()
    counters = Counters(registry)
    with Client(server.grpc_url, counters=counters) as client:
        samples = client.sample("masses", 20, seed=1)
    assert samples.masks is not None

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"galatea_client_{name}", labels)

    assert value("images_total", model="masses") == 20
    assert value("received_bytes_total", model="masses") == samples.images.nbytes * 2
    requests = value("requests_total", model="masses", outcome="ok")
    assert requests == value("request_seconds_count", model="masses") == 3
    seconds = value("request_seconds_sum", model="masses")
    assert seconds is not None
    assert seconds > 0


def test_failures_count_by_their_error_and_bring_no_images() -> None:
    registry = CollectorRegistry()
    counters = Counters(registry)
    counters.request("masses", ModelUnavailable.__name__, 0.1, 0, 0)
    counters.retry("masses")
    shown = generate_latest(registry).decode()
    assert 'requests_total{model="masses",outcome="ModelUnavailable"} 1.0' in shown
    assert 'retries_total{model="masses"} 1.0' in shown
    assert "galatea_client_images_total{" not in shown


def test_the_gauge_shows_what_is_on_its_way_and_keeps_no_client_alive() -> None:
    class Connected:
        in_flight = 3

    registry = CollectorRegistry()
    counters = Counters(registry)
    first, second = Connected(), Connected()
    counters.watch(first)
    counters.watch(second)
    assert registry.get_sample_value("galatea_client_in_flight") == 6
    del first
    assert registry.get_sample_value("galatea_client_in_flight") == 3


def test_counters_are_made_once_and_shared() -> None:
    registry = CollectorRegistry()
    Counters(registry)
    with pytest.raises(InvalidInput, match="has the counters of galatea already; make one"):
        Counters(registry)
