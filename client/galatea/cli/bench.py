"""``galatea bench``: load a server with callers in closed loops and report what it gives."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass

import click
import numpy as np

from galatea.cli._options import Connection, complete_model, label_option, server_options
from galatea.cli._output import emit, output_options, progress
from galatea.errors import GalateaError, InvalidInput


@dataclass(frozen=True)
class Load:
    """What a number of callers got, each sending its next request when it has the answer.

    Times are in milliseconds from sending to having the arrays.
    """

    model: str
    batch: int
    callers: int
    seconds: float
    requests: int
    images_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def measure(
    connection: Connection, name: str, *, batch: int, callers: int, seconds: float,
    label: str | None,
) -> Load:  # fmt: skip
    """Runs `callers` threads, each with a connection of its own, for `seconds`.

    Raises:
        GalateaError: the first one that any caller met.
    """
    latencies: list[float] = []
    errors: list[GalateaError] = []
    start_together = threading.Barrier(callers + 1)
    stop = threading.Event()

    def caller(k: int) -> None:
        mine: list[float] = []
        with connection.open() as client:
            try:
                client.sample(name, batch, seed=k, label=label)  # connects, reads the card
            except GalateaError as error:
                errors.append(error)
            start_together.wait()
            while not stop.is_set() and not errors:
                begin = time.perf_counter()
                try:
                    client.sample(name, batch, seed=k + len(mine) * batch, label=label)
                except GalateaError as error:
                    errors.append(error)
                    break
                mine.append(time.perf_counter() - begin)
        latencies.extend(mine)

    threads = [threading.Thread(target=caller, args=(k,), daemon=True) for k in range(callers)]
    for thread in threads:
        thread.start()
    start_together.wait()
    begin = time.perf_counter()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begin
    if errors:
        raise errors[0]
    p50, p95, p99 = np.percentile(latencies, (50, 95, 99)) * 1e3
    return Load(name, batch, callers, round(elapsed, 2), len(latencies),
                round(len(latencies) * batch / elapsed, 1),
                round(p50, 2), round(p95, 2), round(p99, 2))  # fmt: skip


@click.command()
@click.argument("name", shell_complete=complete_model)
@click.option("--batch", type=int, default=32, show_default=True, help="Images a request.")
@click.option("--callers", type=int, default=2, show_default=True, help="Concurrent callers.")
@click.option("--seconds", type=float, default=5.0, show_default=True, help="How long.")
@label_option
@server_options
@output_options
def bench(
    name: str,
    batch: int,
    callers: int,
    seconds: float,
    label: str | None,
    connection: Connection,
) -> None:
    """Measure images per second and latency of the generator NAME."""
    if callers < 1 or not seconds > 0:
        raise InvalidInput(
            f"{callers} callers for {seconds:g} s measure nothing", "give at least 1 caller, 1 s"
        )
    with progress(None, f"{callers} × batch {batch}"):
        load = measure(connection, name, batch=batch, callers=callers, seconds=seconds, label=label)
    emit(
        asdict(load),
        lambda: click.echo(
            f"{load.images_per_second:.1f} images/s from {callers} callers with batch {batch}; "
            f"a request takes {load.p50_ms:.1f} ms (p95 {load.p95_ms:.1f}, p99 {load.p99_ms:.1f})"
        ),
    )
