"""Requests on their way: a few at once, their answers in order, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import count
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea import _conditions, preparation
from galatea._transport import Arrays
from galatea.card import ModelCard
from galatea.errors import GalateaError, InvalidInput
from galatea.pictures import Picture
from galatea.samples import Samples

Given = Mapping[str, Any]  # conditions by name, as a caller gives them

WINDOW = 4  # requests of one call that are on their way at once


@dataclass(frozen=True)
class Served:
    """A model as the server has it: its card and the largest batch of one request."""

    card: ModelCard
    max_batch: int

    def batch(self, size: int | None) -> int:
        """The size of a batch: the one asked for, or the largest.

        Raises:
            InvalidInput: it is none, or the server does not take so many at once.
        """
        if size is None:
            return self.max_batch
        if whole(size, "batch_size") > self.max_batch:
            raise InvalidInput(
                f"a batch of {size} is larger than {self.card.name} takes at once",
                f"give a batch_size of at most {self.max_batch}",
            )
        return whole(size)


@dataclass(frozen=True)
class Request:
    """What is sent for some samples, and what is remembered of them.

    Attributes:
        inputs: by name, with the batch as first axis.
        seeds: int64 [n]; empty where no seed plays a part.
        names, masks: of the pictures to translate.
    """

    inputs: Arrays
    seeds: NDArray[np.int64]
    names: tuple[str, ...] = ()
    masks: NDArray[np.uint8] | None = None

    def answered(self, card: ModelCard, reply: Arrays) -> Samples:
        """The samples that the server made of it."""
        conditions = {name: value[:, 0] for name, value in self.inputs.items()
                      if name not in ("seed", "source")}  # fmt: skip
        # The reply is read-only memory of the message: the one copy makes it the caller's own.
        return Samples(
            reply["image"].copy(),
            reply["mask"].copy() if "mask" in reply else self.masks,
            self.seeds,
            conditions,
            card,
            self.inputs.get("source"),
            self.names,
        )


@dataclass(frozen=True)
class Source:
    """A picture that is prepared for a model; `index` counts the pictures of the call."""

    index: int
    name: str
    pixels: NDArray[Any]
    mask: NDArray[np.uint8] | None


def in_order(
    send: Callable[[Arrays], Future[Arrays]], requests: Iterator[Request], card: ModelCard
) -> Iterator[Samples]:
    """Sends requests and yields their answers.

    When the next request cannot be made, what was asked before is still answered; then its error is
    raised.
    """
    waiting: deque[tuple[Request, Future[Arrays]]] = deque()
    failure: GalateaError | None = None

    def oldest() -> Samples:
        request, reply = waiting.popleft()
        return request.answered(card, reply.result())

    try:
        while True:
            try:
                request = next(requests, None)
                if request is None:
                    break
                waiting.append((request, send(request.inputs)))
            except GalateaError as error:
                failure = error
                break
            if len(waiting) >= WINDOW:
                yield oldest()
        while waiting:
            yield oldest()
        if failure is not None:
            raise failure
    finally:
        for _, reply in waiting:
            reply.cancel()


def samplings(
    served: Served, n: int | None, batch_size: int | None, seed: int | None, given: Given
) -> Iterator[Request]:
    """Requests for `n` samples, or endless ones.

    Raises:
        InvalidInput: at the call: an argument that the card does not allow.
    """
    card = served.card
    if card.source_picture is not None:
        raise InvalidInput(
            f"{card.name} makes pictures from pictures",
            f"call translate({card.name!r}, images), or run: galatea translate {card.name}",
        )
    size = served.batch(batch_size)
    seeds = _conditions.seeds(seed, n)
    inputs = {"seed": seeds, **_conditions.conditions(card, given, n, seeds)}
    return (
        Request({name: value(index) for name, value in inputs.items()}, seeds(index)[:, 0])
        for index in _indices(n, size)
    )


def translations(
    served: Served,
    sources: Iterable[Source],
    n: int | None,
    batch_size: int | None,
    seed: int | None,
    given: Given,
) -> Iterator[Request]:
    """Requests for pictures of one size each, in the order of the pictures.

    Raises:
        InvalidInput: at the call: an argument that the card does not allow.
    """
    card = served.card
    size = served.batch(batch_size)
    seeds = _conditions.seeds(seed, n)
    inputs = _conditions.conditions(card, given, n, seeds)
    if any(entry.name == "seed" for entry in card.inputs):
        inputs["seed"] = seeds
    used = _conditions.needs_seed(card, given)

    def request(run: list[Source]) -> Request:
        index = np.array([source.index for source in run], np.int64)
        values = {name: value(index) for name, value in inputs.items()}
        values["source"] = np.stack([source.pixels for source in run])
        masks = [source.mask for source in run if source.mask is not None]
        return Request(
            values,
            seeds(index)[:, 0] if used else np.zeros(0, np.int64),
            tuple(source.name for source in run),
            np.stack(masks)[:, :, :, None] if masks else None,
        )

    return map(request, _runs(sources, size))


def prepared(
    pictures: Iterable[Picture],
    card: ModelCard,
    skip: Callable[[str], bool] = lambda picture: False,
) -> Iterator[Source]:
    """Pictures as the model takes them, but those whose name `skip` says to leave out.

    Raises:
        InvalidInput: a picture does not suit the model; it is named.
    """
    for index, picture in enumerate(pictures):
        if not skip(picture.name):
            pixels = preparation.prepare(picture, card)
            mask = picture.mask
            if mask is not None and mask.shape != pixels.shape[:2]:
                mask = None  # resizing or cropping has moved the picture away from it
            yield Source(index, picture.name, pixels, mask)


def _indices(n: int | None, size: int) -> Iterator[NDArray[np.int64]]:
    """0, 1, … in runs of `size`, up to `n`."""
    for start in count(0, size) if n is None else range(0, n, size):
        stop = start + size if n is None else min(start + size, n)
        yield np.arange(start, stop, dtype=np.int64)


def _runs(sources: Iterable[Source], size: int) -> Iterator[list[Source]]:
    run: list[Source] = []
    try:
        for source in sources:
            first = run[0] if run else source
            alike = first.pixels.shape == source.pixels.shape
            if not alike or len(run) == size or (first.mask is None) != (source.mask is None):
                yield run
                run = []
            run.append(source)
    except GalateaError:
        # What came before a picture that cannot be used is still translated.
        if run:
            yield run
        raise
    if run:
        yield run


def join(batches: list[Samples]) -> Samples:
    """Samples of one model as one batch."""
    if len(batches) == 1:
        return batches[0]
    first = batches[0]

    def joined(arrays: list[NDArray[Any] | None]) -> NDArray[Any] | None:
        there = [array for array in arrays if array is not None]
        return np.concatenate(there) if len(there) == len(batches) else None

    return replace(
        first,
        images=np.concatenate([batch.images for batch in batches]),
        masks=joined([batch.masks for batch in batches]),
        seeds=np.concatenate([batch.seeds for batch in batches]),
        conditions={
            name: np.concatenate([batch.conditions[name] for batch in batches])
            for name in first.conditions
        },
        sources=joined([batch.sources for batch in batches]),
        names=tuple(name for batch in batches for name in batch.names),
    )


def whole(n: Any, what: str = "n") -> int:
    """A count that a caller gave.

    Raises:
        InvalidInput: it is no whole number of at least 1.
    """
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise InvalidInput(f"{what} is {n!r}", "give a whole number of at least 1")
    return int(n)
