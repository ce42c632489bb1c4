"""What a load was, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Breakdown", "Lateness", "Load", "Stage", "Usage", "rounded"]


@dataclass(frozen=True)
class Stage:
    """What a model of the server did: the generator itself, or a stage that it calls.

    Times are means over its requests, in milliseconds. A request of a caller may be several of a
    stage, such as one for each step of a diffusion model.

    Attributes:
        requests: that the model has answered.
        failures: that it has not.
        total_ms: from arrival to answer. That of a generator with stages has their queues in it,
            while its other times are theirs together without.
        queue_ms: from its arrival to its execution.
        input_ms, infer_ms, output_ms: gathering the inputs, computing, handing out the outputs.
        executions: runs of the model; dynamic batching makes one of several requests.
        mean_batch: samples of an execution.
        cache_hits: requests that Triton's response cache has answered.
    """

    model: str
    requests: int
    failures: int
    total_ms: float
    queue_ms: float
    input_ms: float
    infer_ms: float
    output_ms: float
    executions: int
    mean_batch: float
    cache_hits: int


@dataclass(frozen=True)
class Breakdown:
    """Where the time of a request goes, by Triton's statistics.

    Whoever else used the generator meanwhile is in them.

    Attributes:
        requests: that the servers have answered.
        server_ms: mean time of a request in the server.
        wire_ms: what remains of the callers' mean latency: the network and the client.
        cache_hits: requests that Triton's response cache has answered, over all stages.
        stages: the generator, then what it is made of, in the order of the data; without stages
            that had no requests.
    """

    requests: int
    server_ms: float
    wire_ms: float
    cache_hits: int
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Usage:
    """What an image takes; None is not available.

    Attributes:
        client_cpu_seconds: user and system time of this process an image.
        server_cpu_seconds: of the process trees of the servers, where all are on this machine.
        gpu_seconds: utilisation × seconds an image, summed over the GPUs.
        gpu_utilisation: mean of all GPUs that the server reports, from 0 to 1.
        gpus: number of them.
    """

    client_cpu_seconds: float | None = None
    server_cpu_seconds: float | None = None
    gpu_seconds: float | None = None
    gpu_utilisation: float | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class Lateness:
    """How late requests were sent that should arrive by a rate, in milliseconds.

    A large one means that this machine could not keep up, and that the load was less than asked.
    """

    p50_ms: float
    p95_ms: float
    max_ms: float


@dataclass(frozen=True)
class Load:
    """What was asked of a generator, and what came of it.

    Latencies are of the requests that succeeded, in milliseconds from sending to having the arrays.

    Attributes:
        model, version: the generator.
        batch: images of a request.
        callers: in a closed loop; None in an open one.
        rate: requests a second that should arrive; None in a closed loop.
        arrivals: "poisson" or "constant"; "" in a closed loop.
        seconds: that the figures are of, warm-up left out.
        windows: that were measured; the figures are of the last three.
        stable: whether these three agree; None where a time was given instead.
        requests: that succeeded.
        errors: those that did not, by the name of the error; see :mod:`galatea.errors`.
        images_per_second, requests_per_second: of those that succeeded.
        wire_bytes: bytes of an image, with its share of the messages' framing, over a network.
        lateness: in an open loop.
        breakdown: None where a server does not tell.
    """

    model: str
    version: int
    batch: int
    callers: int | None
    rate: float | None
    arrivals: str
    seconds: float
    windows: int
    stable: bool | None
    requests: int
    images_per_second: float
    requests_per_second: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    wire_bytes: int
    errors: Mapping[str, int] = field(default_factory=dict)
    lateness: Lateness | None = None
    usage: Usage = Usage()
    breakdown: Breakdown | None = None


def rounded(figure: float) -> float:
    """Five digits are more than any measurement has."""
    return float(f"{figure:.5g}")
