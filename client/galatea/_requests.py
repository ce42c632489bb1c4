"""What is asked of a model: the requests of one call, and the samples that answers become."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from galatea import _conditions, preparation
from galatea._wire.endpoint import Call
from galatea._wire.messages import DTYPES, Arrays
from galatea.card import ModelCard, Output
from galatea.errors import GalateaError, InvalidInput, MachineError
from galatea.pictures import Picture
from galatea.samples import Samples

Given = Mapping[str, Any]  # conditions by name, as a caller gives them
Empty = Callable[[tuple[int, ...], DTypeLike], NDArray[Any]]  # as numpy.empty

LARGEST_REPLY = 32 << 20  # bytes that one request asks for by default
# Samples that one request asks of a model that works in steps: several requests fill its engine,
# and each gives its images as soon as they are made.
STEPWISE_BATCH = 8
PREVIEWS = 10  # of a sample, by default
NEVER = 2**31 - 1  # the most model calls from one to the next that can be sent


@dataclass(frozen=True)
class Served:
    """A model as the server has it: its card and the largest batch of one request."""

    card: ModelCard
    max_batch: int

    def batch(self, size: int | None) -> int:
        """The size of a batch: the one asked for, or what is best for this model.

        Raises:
            InvalidInput: it is none, or the server does not take so many at once.
        """
        if size is None:
            each = self.reply(1, self._source_shape())
            most = self.max_batch if self.card.steps is None else STEPWISE_BATCH
            fitting = max(1, LARGEST_REPLY // each) if each else self.max_batch
            return min(self.max_batch, most, fitting)
        if whole(size, "batch_size") > self.max_batch:
            raise InvalidInput(
                f"a batch of {size} is larger than {self.card.name} takes at once",
                f"give a batch_size of at most {self.max_batch}",
            )
        return whole(size)

    def call(self, request: Request) -> Call:
        """What is sent for a request."""
        source = request.inputs.get("source")
        n = len(next(iter(request.inputs.values())))
        shape = None if source is None else source.shape[1:]
        outputs = {output.name: _bytes(output, n, shape) for output in self.card.outputs}
        version, stepwise = str(self.card.version), self.card.steps is not None
        return Call(self.card.name, version, request.inputs, outputs, stepwise)

    def streamed(self, previews: bool | int, request: Request) -> Call:
        """What is sent for a request whose answer comes in parts.

        Args:
            previews: whether there are any, or model calls from one to the next.
        """
        steps = request.inputs["steps"]
        some = np.maximum(1, -(-steps // PREVIEWS))
        every = some if previews is True else np.full_like(steps, min(previews, NEVER))
        inputs = {**request.inputs, "preview_every": every}
        return replace(self.call(request), model=self.stream_name, inputs=inputs)

    @property
    def stream_name(self) -> str:
        """The Triton model that answers in parts."""
        return f"{self.card.name}.stream"

    def reply(self, n: int, source: tuple[int, ...] | None = None) -> int | None:
        """Bytes of `n` samples; None where that depends on pictures that are not known."""
        sizes = [_bytes(output, n, source) for output in self.card.outputs]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def _source_shape(self) -> tuple[int, ...] | None:
        source = self.card.source_picture
        return None if source is None or min(source.shape) < 0 else source.shape


@dataclass(frozen=True)
class Request:
    """What is sent for some samples, and what is remembered of them.

    Attributes:
        inputs: by name, with the batch as first axis.
        seeds: int64 [n]; empty where no seed plays a part.
        names, masks: of the pictures to translate.
        first: index of the first of the samples in the call.
    """

    inputs: Arrays
    seeds: NDArray[np.int64]
    names: tuple[str, ...] = ()
    masks: NDArray[np.uint8] | None = None
    first: int = 0

    def only(self, row: int) -> Request:
        """What asks for one of the samples to be sampled."""
        inputs = {name: array[row : row + 1] for name, array in self.inputs.items()}
        return Request(inputs, self.seeds[row : row + 1], first=self.first + row)

    def answered(self, card: ModelCard, reply: Arrays, empty: Empty = np.empty) -> Samples:
        """The samples that the server made of it; the one copy of what came."""
        gathered = Gathered(card, len(reply["image"]), empty)
        gathered.add(self, reply)
        return gathered.samples()


class Gathered:
    """Samples of one call: each answer is copied once, to its place among all.

    Args:
        n: how many there will be.
        empty: makes an array for them.
    """

    def __init__(self, card: ModelCard, n: int, empty: Empty = np.empty) -> None:
        self._card, self._n, self._empty = card, n, empty
        self._filled = 0
        self._arrays: dict[str, NDArray[Any]] = {}
        self._requests: list[Request] = []

    def add(self, request: Request, reply: Arrays) -> int:
        """Takes in the next answer, and says how many samples it had."""
        size = len(reply["image"])
        for name in (output.name for output in self._card.outputs):
            array = reply[name]
            if name not in self._arrays:
                self._arrays[name] = self._room(array)
            self._arrays[name][self._filled : self._filled + size] = array
        self._filled += size
        self._requests.append(request)
        return size

    def _room(self, like: NDArray[Any]) -> NDArray[Any]:
        each = like.nbytes // len(like)
        try:
            if self._n * each > _memory():
                raise MemoryError
            return self._empty((self._n, *like.shape[1:]), like.dtype)
        except MemoryError as error:
            raise MachineError(
                f"{self._n} images of {self._card.name} need {self._n * each / 1e9:.3g} GB of "
                "memory, more than there is",
                "use stream, which yields batches, or galatea generate, which writes them",
            ) from error

    def samples(self) -> Samples:
        """All that came, as one batch."""
        requests = self._requests
        inputs = {name: self._joined([request.inputs[name] for request in requests])
                  for name in requests[0].inputs}  # fmt: skip
        masks = [request.masks for request in requests if request.masks is not None]
        return Samples(
            self._arrays["image"],
            self._arrays.get("mask", self._joined(masks) if len(masks) == len(requests) else None),
            self._joined([request.seeds for request in requests]),
            {name: value[:, 0] for name, value in inputs.items() if name not in ("seed", "source")},
            self._card,
            inputs.get("source"),
            tuple(name for request in requests for name in request.names),
        )

    @staticmethod
    def _joined(arrays: list[NDArray[Any]]) -> NDArray[Any]:
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


@dataclass(frozen=True)
class Source:
    """A picture that is prepared for a model; `index` counts the pictures of the call."""

    index: int
    name: str
    pixels: NDArray[Any]
    mask: NDArray[np.uint8] | None


def samplings(
    served: Served,
    n: int | None,
    batch_size: int | None,
    seed: int | None,
    given: Given,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Request]:
    """Requests for `n` samples, or endless ones, from the one with the index `start`.

    Of `shard` (k, N), the requests k, k + N, k + 2N … of these.

    Raises:
        InvalidInput: at the call: an argument that the card does not allow.
    """
    card = served.card
    if card.task == "extractor":
        raise InvalidInput(
            f"{card.name} makes features of images, and no images",
            "name a generator: galatea models; extractors are for: galatea evaluate run",
        )
    if card.source_picture is not None:
        raise InvalidInput(
            f"{card.name} makes pictures from pictures",
            f"call translate({card.name!r}, images), or run: galatea translate {card.name}",
        )
    size = served.batch(batch_size)
    if not isinstance(start, Integral) or isinstance(start, bool) or start < 0:
        raise InvalidInput(f"start is {start!r}", "give a whole number of at least 0")
    part, parts = shard
    if not 0 <= part < parts:
        raise InvalidInput(f"shard {part} of {parts}", f"give 0 … {max(parts, 1) - 1}")
    stop = None if n is None else int(start) + n
    seeds = _conditions.seeds(seed, stop)
    inputs = {"seed": seeds, **_conditions.conditions(card, given, stop, seeds)}
    return (
        Request(
            {name: value(index) for name, value in inputs.items()},
            seeds(index)[:, 0],
            first=int(index[0]),
        )
        for index in _indices(int(start), stop, size, part, parts)
    )


def amount(n: int | None, size: int, start: int = 0, shard: tuple[int, int] = (0, 1)) -> int | None:
    """How many samples these requests ask for; None: endless."""
    if n is None:
        return None
    stop, (part, parts) = start + n, shard
    begins = range(start + part * size, stop, parts * size)
    return sum(min(size, stop - begin) for begin in begins)


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


def slices(inputs: Arrays, size: int) -> Iterator[Request]:
    """Requests for rows of arrays, `size` at a time."""
    n = len(next(iter(inputs.values())))
    for start in range(0, n, size):
        part = {name: array[start : start + size] for name, array in inputs.items()}
        yield Request(part, np.zeros(0, np.int64))


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


def _indices(
    start: int, stop: int | None, size: int, part: int, parts: int
) -> Iterator[NDArray[np.int64]]:
    """Runs of `size` from `start` up to `stop`; of each `parts` runs the one at `part`."""
    begin, stride = start + part * size, parts * size
    for first in count(begin, stride) if stop is None else range(begin, stop, stride):
        last = first + size if stop is None else min(first + size, stop)
        yield np.arange(first, last, dtype=np.int64)


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


def _bytes(output: Output, n: int, source: tuple[int, ...] | None) -> int | None:
    """Bytes of an output; a size of -1 is that of the source."""
    size = n * DTYPES[output.dtype].itemsize
    for axis, length in enumerate(output.shape):
        if length < 0 and source is None:
            return None
        size *= length if length >= 0 or source is None else source[axis]
    return size


def _memory() -> float:
    """Bytes of this machine's memory, where the system tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return float("inf")


def whole(n: Any, what: str = "n") -> int:
    """A count that a caller gave.

    Raises:
        InvalidInput: it is no whole number of at least 1.
    """
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise InvalidInput(f"{what} is {n!r}", "give a whole number of at least 1")
    return int(n)
