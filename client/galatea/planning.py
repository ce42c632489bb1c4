"""What a large number of images takes: hours, bytes, money.

A plan counts with figures of one server that were measured (:class:`galatea.measured.Measured`),
and says everything that it takes for granted besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from galatea.card import ModelCard
from galatea.datasets.formats import Format, Shard
from galatea.errors import InvalidInput
from galatea.load import bytes_per_image, canvas
from galatea.measured import Measured
from galatea.samples import Samples

__all__ = ["Plan", "encoded_bytes", "plan"]


@dataclass(frozen=True)
class Plan:
    """What `n` images of a generator take.

    Attributes:
        servers: number of them, each like the one that was measured.
        images_per_second: of all servers together.
        hours: from the first image to the last.
        gpu_hours: of all GPUs; None on CPUs.
        core_hours: of all processor cores; None on GPUs, or where their number is not known.
        wire_bytes: that cross the network, both ways.
        disk_bytes: of the files, by the format of the data set.
        cost: in the currency of the price; None without a price.
        assumptions: sentences that must be true for the figures to be.
    """

    model: str
    version: int
    n: int
    servers: int
    images_per_second: float
    hours: float
    gpu_hours: float | None
    core_hours: float | None
    wire_bytes: int
    disk_bytes: dict[str, int]
    cost: float | None
    measured: Measured
    assumptions: tuple[str, ...]


def plan(
    card: ModelCard,
    measured: Measured,
    n: int,
    *,
    servers: int | None = None,
    gpus: int | None = None,
    rate: float | None = None,
    utilisation: float = 1.0,
    price_per_hour: float | None = None,
    samples: Samples | None = None,
    formats: Iterable[Format] = (),
) -> Plan:
    """Counts what `n` images take on servers like the one that was measured.

    Args:
        card: of the generator.
        measured: of it, on one server.
        n: number of images.
        servers, gpus: how many of them there are; by default one server.
        rate: images a second that are wanted, in place of these: as many servers as that takes.
        utilisation: part of the time in which servers compute, above 0 and at most 1.
        price_per_hour: of one server.
        samples: some images of the generator, to count bytes on disk by.
        formats: of data sets.

    Raises:
        InvalidInput: a number that is none, figures of another generator, or GPUs that were not
            measured or do not make whole servers.
    """
    if measured.model != card.name:
        raise InvalidInput(
            f"the figures are of {measured.model}, not of {card.name}",
            f"measure it: galatea bench {card.name} --json",
        )
    if n < 1 or not 0 < utilisation <= 1 or not measured.images_per_second > 0:
        raise InvalidInput(
            f"{n} images at {measured.images_per_second:g} images/s, busy {utilisation:.0%} of the "
            "time, are no plan",
            "give at least 1 image and a utilisation above 0 and at most 1",
        )
    each = measured.images_per_second * utilisation
    if rate is not None:
        if not 0 < rate < math.inf:
            raise InvalidInput(f"{rate:g} images/s are no rate", "give a number above 0")
        number, reached = math.ceil(rate / each), rate
    else:
        number = _servers(measured, servers, gpus)
        reached = number * each
    hours = n / reached / 3600
    source = canvas(card) if card.source_picture is not None else None
    encoded = {} if samples is None else {
        form.name: round(encoded_bytes(samples, form) / len(samples) * n) for form in formats
    }  # fmt: skip
    return Plan(
        model=card.name,
        version=card.version,
        n=n,
        servers=number,
        images_per_second=reached,
        hours=hours,
        gpu_hours=hours * number * measured.gpus if measured.gpus else None,
        core_hours=hours * number * measured.cores
        if measured.cores and not measured.gpus
        else None,
        wire_bytes=bytes_per_image(card, measured.batch, source) * n,
        disk_bytes=encoded,
        cost=None if price_per_hour is None else price_per_hour * number * hours,
        measured=measured,
        assumptions=tuple(
            _assumptions(card, measured, number, utilisation, price_per_hour, samples, encoded)
        ),
    )


def encoded_bytes(samples: Samples, form: Format) -> int:
    """Bytes of the files that a data set's format makes of some samples."""
    shard = Shard(0, 0, samples, dataset="0" * 32)
    return sum(memoryview(file.content).nbytes for file in form.files(shard))


def _servers(measured: Measured, servers: int | None, gpus: int | None) -> int:
    """Number of servers.

    Raises:
        InvalidInput: none, GPUs that were not measured, or no whole number of servers.
    """
    if gpus is None:
        number = 1 if servers is None else servers
        if number < 1:
            raise InvalidInput(f"{number} servers make nothing", "give at least 1")
        return number
    if not measured.gpus:
        raise InvalidInput(
            f"{measured.model} was measured on a CPU ({measured.device}), which says nothing of "
            "GPUs",
            "measure it on a server with one, or give --replicas",
        )
    if gpus < 1 or gpus % measured.gpus:
        raise InvalidInput(
            f"{gpus} GPUs are no servers of {measured.gpus} like the one that was measured",
            f"give a multiple of {measured.gpus}",
        )
    return gpus // measured.gpus


def _assumptions(
    card: ModelCard,
    measured: Measured,
    servers: int,
    utilisation: float,
    price: float | None,
    samples: Samples | None,
    encoded: dict[str, int],
) -> Iterable[str]:
    where = f", variant {measured.variant}" if measured.variant else ""
    how = "" if measured.callers is None else f", {measured.callers} callers"
    yield (
        f"a server gives {measured.images_per_second:g} images/s, as measured on "
        f"{measured.date[:10]} on {measured.device}{where}, with {measured.batch} images a "
        f"request{how}"
    )
    if measured.version != card.version:
        yield f"version {card.version} is as fast as version {measured.version}, which was measured"
    if servers > 1:
        yield f"{servers} servers give {servers} times what one gives"
    yield f"servers compute {utilisation:.0%} of the time"
    yield (
        "images cross a network: tensors by the card and the framing of gRPC, without TCP/IP and "
        "TLS"
    )
    if encoded and samples is not None:
        seeds = f", seeds {samples.seeds[0]} to {samples.seeds[-1]}" if len(samples.seeds) else ""
        yield (
            f"all images are as large on disk as {len(samples)} that were encoded{seeds}; a file "
            "system rounds each file up to its blocks"
        )
    if price is not None:
        yield f"a server costs {price:g} an hour, and no longer than it computes for this"
