"""Measured loads for people, for programs, and as a table of a spreadsheet."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import galatea
from galatea._files import write_atomically
from galatea.cli._connection import Connection
from galatea.cli._output import say, table
from galatea.errors import GalateaError, MachineError
from galatea.load import Load, here, server_version
from galatea.measured import Measured

__all__ = ["measured", "show", "to_dict", "write_csv"]

MISSING = "not available"
FEW = 30  # requests
CROWDED = 1.1  # times as many requests in the server than were sent: others use it too


def to_dict(
    connection: Connection, loads: Sequence[Load], conditions: Mapping[str, Any]
) -> dict[str, Any]:
    """All loads as plain JSON types, and the best of them for ``galatea plan``."""
    version = _version(connection)
    return {
        "model": loads[0].model,
        "version": loads[0].version,
        "url": connection.url,
        "server": version,
        "galatea": galatea.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "client": here()[0],
        "conditions": dict(conditions),
        "loads": [asdict(load) for load in loads],
        "measured": best.to_dict() if (best := measured(connection, loads, version)) else None,
    }


def measured(
    connection: Connection, loads: Iterable[Load], version: str | None = None
) -> Measured | None:
    """What the fastest of the closed loops has shown of one server; None where there is none."""
    closed = [load for load in loads if load.callers is not None]
    if not closed:
        return None
    load = max(closed, key=lambda load: load.images_per_second)
    servers, usage = len(connection.urls), load.usage
    gpus = (usage.gpus or 0) if usage.gpu_utilisation else 0
    device, cores = f"the server at {connection.url}", 0
    if gpus:
        device = f"{gpus} GPU{'s' * (gpus > 1)} of {device}"
    elif usage.server_cpu_seconds is not None:
        device, cores = here()
    return Measured.of(
        load, device=device, gpus=gpus, cores=cores, servers=servers,
        server=_version(connection) if version is None else version,
    )  # fmt: skip


def show(loads: Sequence[Load]) -> None:
    """The loads for a person, on stdout; what should make one doubt them on stderr."""
    late = any(load.lateness for load in loads)
    table(
        (*_what(loads), "IMAGES/S", "REQUESTS/S", "P50 MS", "P90", "P95", "P99", "ERRORS",
         *(["LATE P95"] if late else [])),
        (
            (
                *_which(load), _number(load.images_per_second), _number(load.requests_per_second),
                *map(_number, (load.p50_ms, load.p90_ms, load.p95_ms, load.p99_ms)),
                ", ".join(f"{count} {error}" for error, count in load.errors.items()) or "0",
                *([_number(load.lateness.p95_ms)] if load.lateness else []),
            )
            for load in loads
        ),
    )  # fmt: skip
    click.echo()
    table(
        (*_what(loads), "TIME OF A REQUEST", "MS", "QUEUE", "INPUT", "INFER", "OUTPUT",
         "REQUESTS", "EXECUTIONS", "IMAGES EACH", "CACHE HITS"),
        (row for load in loads for row in _times(load)),
    )  # fmt: skip
    click.echo()
    table(
        (*_what(loads), "CPU MS AN IMAGE: CLIENT", "SERVER", "GPU MS AN IMAGE", "GPU BUSY"),
        ((*_which(load), *_usage(load)) for load in loads),
    )
    for load in loads:
        for doubt in _doubts(load):
            say(f"{' × '.join(_which(load))}: {doubt}")


def write_csv(path: Path, loads: Sequence[Load]) -> None:
    """A line for each load, with a column for every figure.

    Raises:
        MachineError: the file cannot be written.
    """
    rows = [dict(_flat(load)) for load in loads]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    try:
        write_atomically(path, text.getvalue().encode())
    except OSError as error:
        raise MachineError(
            f"{path}: cannot be written: {error.strerror}", "name a file in a folder of yours"
        ) from error


def _what(loads: Sequence[Load]) -> tuple[str, str]:
    return ("CALLERS" if loads[0].callers else "RATE"), "BATCH"


def _which(load: Load) -> tuple[str, str]:
    return (str(load.callers) if load.callers else f"{load.rate:g}/s"), str(load.batch)


def _times(load: Load) -> list[tuple[str, ...]]:
    which = _which(load)
    whole = (*which, "all, as callers see it", _number(load.mean_ms), *[""] * 7)
    parts = load.breakdown
    if parts is None:
        return [whole, (*which, f"in the server: {MISSING}", *[""] * 8)]
    return [
        whole,
        *(
            (
                *which, stage.model,
                *map(_number, (stage.total_ms, stage.queue_ms, stage.input_ms, stage.infer_ms,
                               stage.output_ms)),
                str(stage.requests), str(stage.executions), f"{stage.mean_batch:.1f}",
                str(stage.cache_hits),
            )
            for stage in parts.stages
        ),
        (*which, "wire and client", _number(parts.wire_ms), *[""] * 7),
    ]  # fmt: skip


def _usage(load: Load) -> list[str]:
    usage = load.usage
    in_ms = (usage.client_cpu_seconds, usage.server_cpu_seconds, usage.gpu_seconds)
    busy = MISSING if usage.gpu_utilisation is None else f"{usage.gpu_utilisation:.0%}"
    return [*(MISSING if each is None else _number(each * 1e3) for each in in_ms), busy]


def _doubts(load: Load) -> Iterable[str]:
    if load.requests < FEW:
        yield f"{load.requests} requests say little of percentiles; measure longer (--seconds)"
    if load.stable is False:
        yield f"the last three of {load.windows} windows do not agree; measure longer (--window)"
    if load.lateness is not None and load.lateness.p95_ms > load.p50_ms / 10:
        yield "requests were sent late: this machine or the server does not keep up with the rate"
    if load.breakdown is not None and load.breakdown.requests > CROWDED * load.requests + 2:
        yield f"the server has answered {load.breakdown.requests} requests: others use it too"


def _flat(load: Load, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in asdict(load).items():
        if name == "errors":
            yield name, sum(value.values())
        elif name == "breakdown":
            for key, part in (value or {}).items():
                if key != "stages":
                    yield key if key.endswith("ms") else f"server_{key}", part
                    continue
                for stage in part:
                    model = stage.pop("model")
                    yield from ((f"{model} {figure}", each) for figure, each in stage.items())
        elif isinstance(value, dict):
            kind = "late_" if name == "lateness" else ""
            yield from ((f"{kind}{key}", part) for key, part in value.items())
        elif name != "lateness":
            yield name, value


def _number(figure: float) -> str:
    return f"{figure:.3g}" if abs(figure) < 100 else f"{figure:.0f}"


def _version(connection: Connection) -> str:
    """Of the server, where it still answers."""
    try:
        with connection.open() as client:
            return server_version(client)
    except GalateaError:
        return ""
