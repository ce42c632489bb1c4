"""Triton's statistics of models, before and after a load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tritonclient.grpc import service_pb2

from galatea.client import Client
from galatea.errors import GalateaError
from galatea.load._load import Breakdown, Stage, rounded

__all__ = ["Counts", "Statistics", "breakdown", "read_statistics", "server_version", "stages"]

NS_PER_MS = 1e6


@dataclass(frozen=True)
class Counts:
    """What a model has done since its server was started; times are summed up, in ns."""

    requests: int = 0
    failures: int = 0
    total: int = 0
    queue: int = 0
    input: int = 0
    infer: int = 0
    output: int = 0
    executions: int = 0
    samples: int = 0
    cache_hits: int = 0

    @classmethod
    def of(cls, told: Any) -> Counts:
        """From Triton's ModelStatistics."""
        inference = told.inference_stats
        return cls(
            inference.success.count, inference.fail.count, inference.success.ns,
            inference.queue.ns, inference.compute_input.ns, inference.compute_infer.ns,
            inference.compute_output.ns, told.execution_count, told.inference_count,
            inference.cache_hit.count,
        )  # fmt: skip

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


Statistics = Mapping[str, Counts]  # by the name of the model


def stages(client: Client, name: str) -> list[str]:
    """Names of the Triton models that requests for a generator may reach, itself first."""
    config = client._session.config(name)
    steps = [step.model_name for step in config.ensemble_scheduling.step]
    return [name, *dict.fromkeys(steps)]


def read_statistics(client: Client, models: Sequence[str]) -> Statistics | None:
    """What the models have done on all servers of a client; None where a server does not tell.

    Args:
        models: the generator first. Models that are called after it, ``<generator>.<stage>``, are
            read too.
    """
    try:
        replies = client._session.ask("ModelStatistics", service_pb2.ModelStatisticsRequest())
    except GalateaError:
        return None
    counts: dict[str, Counts] = {name: Counts() for name in models}
    for told in (entry for reply in replies for entry in reply.model_stats):
        if told.name in counts or told.name.startswith(f"{models[0]}."):
            counts[told.name] = counts.get(told.name, Counts()) + Counts.of(told)
    return counts


def server_version(client: Client) -> str:
    """Name and version of the (first) server of a client."""
    reply = client._session.ask("ServerMetadata", service_pb2.ServerMetadataRequest())[0]
    return f"{reply.name} {reply.version}"


def breakdown(before: Statistics, after: Statistics, mean_ms: float) -> Breakdown | None:
    """Where the time of requests went between two readings; None where there were none.

    Args:
        before, after: of the same models, the generator first.
        mean_ms: mean latency that the callers saw.
    """
    did = {name: counts - before.get(name, Counts()) for name, counts in after.items()}
    public = next(iter(did.values()))
    if not public.requests:
        return None
    server_ms = public.total / public.requests / NS_PER_MS
    return Breakdown(
        public.requests, rounded(server_ms), rounded(mean_ms - server_ms), _hits(did.values()),
        tuple(_stage(name, counts) for name, counts in did.items() if counts.requests),
    )  # fmt: skip


def _hits(models: Iterable[Counts]) -> int:
    return sum(counts.cache_hits for counts in models)


def _stage(model: str, counts: Counts) -> Stage:
    def mean_ms(total: int) -> float:
        return rounded(total / counts.requests / NS_PER_MS)

    return Stage(
        model=model,
        requests=counts.requests,
        failures=counts.failures,
        total_ms=mean_ms(counts.total),
        queue_ms=mean_ms(counts.queue),
        input_ms=mean_ms(counts.input),
        infer_ms=mean_ms(counts.infer),
        output_ms=mean_ms(counts.output),
        executions=counts.executions,
        mean_batch=rounded(counts.samples / max(counts.executions, 1)),
        cache_hits=counts.cache_hits,
    )
