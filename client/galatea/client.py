"""The client: discovery and sampling."""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from numbers import Integral
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea import _conditions
from galatea._transport import Arrays, Transport
from galatea.card import CARD_PARAMETER, ModelCard
from galatea.errors import InvalidInput, ModelUnavailable
from galatea.samples import Samples

__all__ = ["DEFAULT_URL", "Client"]

DEFAULT_URL = "localhost:8001"
WINDOW = 4  # requests of one call that are on their way at once


@dataclass(frozen=True)
class Served:
    """A model as the server has it: its card and the largest batch of one request."""

    card: ModelCard
    max_batch: int


class Client:
    """Samples from the generators of a Triton server. Safe to share between threads.

    Args:
        url: ``host:port`` of the server's gRPC port.
        timeout: seconds that one request may take, connecting included.
    """

    def __init__(self, url: str = DEFAULT_URL, *, timeout: float = 60.0) -> None:
        if url.partition("://")[0] in ("http", "https", "grpc") or ":" not in url:
            raise InvalidInput(
                f"{url!r} is no address of a gRPC port", "give host:port, e.g. localhost:8001"
            )
        if not timeout > 0:
            raise InvalidInput(f"a timeout of {timeout!r} s leaves no time", "give seconds above 0")
        self._transport = Transport(url, timeout)
        self._known: dict[str, Served] = {}

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def models(self) -> list[ModelCard]:
        """Cards of all generators that are ready, by name.

        Raises:
            ServerUnreachable, DeadlineExceeded, ServerError: see :mod:`galatea.errors`.
        """
        ready = {name for name, _, state, _ in self._transport.index() if state == "READY"}
        served = [self._read(name) for name in sorted(ready)]
        return [entry.card for entry in served if entry is not None]

    def model(self, name: str) -> ModelCard:
        """The card of one generator.

        Raises:
            ModelUnavailable: there is none of this name, or it is not ready; says what there is.
            ServerUnreachable, DeadlineExceeded, ServerError: see :mod:`galatea.errors`.
        """
        return self._served(name).card

    def sample(
        self,
        name: str,
        n: int = 1,
        *,
        seed: int | None = None,
        label: Any = None,
        progress: Callable[[int], None] = lambda images: None,
        **conditions: Any,
    ) -> Samples:
        """Samples `n` images.

        Image i has the seed ``seed + i`` and depends on nothing else than the model's version, that
        seed and its conditions.

        Args:
            name: the model.
            n: number of images.
            seed: of the first image; by default random, and told in the result.
            label: for class-conditional models a class (number or name), a sequence of `n` of
                them, or "balanced", the default, which deals them out in turn.
            progress: called with the number of images that have newly arrived.
            conditions: other inputs of the model, as its card names them.

        Raises:
            InvalidInput: `n`, the seed or a condition is not valid for this model.
            ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
                see :mod:`galatea.errors`.
        """
        served = self._served(name)
        batches = []
        for batch in self._batches(served, _whole(n), None, seed, {"label": label, **conditions}):
            progress(len(batch))
            batches.append(batch)
        return _join(batches)

    def stream(
        self,
        name: str,
        n: int | None = None,
        *,
        batch_size: int | None = None,
        seed: int | None = None,
        label: Any = None,
        **conditions: Any,
    ) -> Iterator[Samples]:
        """Yields batches in the order of their seeds, in memory that does not grow with `n`.

        Arguments are those of :meth:`sample`; besides:

        Args:
            n: number of images, or None for an endless stream.
            batch_size: images a batch; by default the largest that the server takes at once.

        Raises:
            As :meth:`sample`.
        """
        served = self._served(name)
        total = None if n is None else _whole(n)
        given = {"label": label, **conditions}
        return self._batches(served, total, batch_size, seed, given)

    def _batches(
        self,
        served: Served,
        n: int | None,
        batch_size: int | None,
        seed: int | None,
        given: Mapping[str, Any],
    ) -> Iterator[Samples]:
        card = served.card
        size = served.max_batch if batch_size is None else _whole(batch_size, "batch_size")
        if size > served.max_batch:
            raise InvalidInput(
                f"a batch of {size} is larger than {card.name} takes at once",
                f"give a batch_size of at most {served.max_batch}",
            )
        inputs = {
            "seed": _conditions.seeds(seed, n),
            **_conditions.conditions(card, given, n),
        }
        outputs = tuple(output.name for output in card.outputs)

        def send(index: NDArray[np.int64]) -> tuple[Arrays, Future[Arrays]]:
            values = {name: value(index) for name, value in inputs.items()}
            return values, self._transport.infer(card.name, str(card.version), values, outputs)

        # A generator of its own, so that mistakes are told at the call and not at the first batch.
        return self._in_order(card, send, _indices(n, size))

    def _in_order(
        self,
        card: ModelCard,
        send: Callable[[NDArray[np.int64]], tuple[Arrays, Future[Arrays]]],
        indices: Iterator[NDArray[np.int64]],
    ) -> Iterator[Samples]:
        waiting: deque[tuple[Arrays, Future[Arrays]]] = deque()
        try:
            for index in indices:
                waiting.append(send(index))
                if len(waiting) >= WINDOW:
                    yield _samples(card, *waiting.popleft())
            while waiting:
                yield _samples(card, *waiting.popleft())
        except ModelUnavailable:
            self._known.pop(card.name, None)  # another version may be served by now
            raise
        finally:
            for _, future in waiting:
                future.cancel()

    def _served(self, name: str) -> Served:
        served = self._known.get(name) or self._read(name)
        if served is None:
            raise ModelUnavailable(
                f"{name!r} is a Triton model, but no generator of galatea", "run: galatea models"
            )
        self._known[name] = served
        return served

    def _read(self, name: str) -> Served | None:
        """The model from the server; None where it has no card (a stage, or a foreign model)."""
        try:
            config = self._transport.config(name)
        except ModelUnavailable as error:
            raise self._missing(name) from error
        if CARD_PARAMETER not in config.parameters:
            return None
        card = ModelCard.from_json(config.parameters[CARD_PARAMETER].string_value)
        return Served(card, max(1, config.max_batch_size))

    def _missing(self, name: str) -> ModelUnavailable:
        index = self._transport.index()
        state = {entry: (state, reason) for entry, _, state, reason in index}
        if name in state:
            what, reason = state[name]
            return ModelUnavailable(
                f"{self._transport.url}: the model {name!r} is not ready ({what}: {reason})",
                "see the log of the server",
            )
        public = sorted(entry for entry in state if "." not in entry)
        near = difflib.get_close_matches(name, public, 1)
        return ModelUnavailable(
            f"{self._transport.url}: no model {name!r}",
            f"did you mean {near[0]!r}?" if near else f"served are: {', '.join(public) or 'none'}",
        )


def _whole(n: Any, what: str = "n") -> int:
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise InvalidInput(f"{what} is {n!r}", "give a whole number of at least 1")
    return int(n)


def _indices(n: int | None, size: int) -> Iterator[NDArray[np.int64]]:
    """0, 1, … in runs of `size`, up to `n`."""
    for start in count(0, size) if n is None else range(0, n, size):
        yield np.arange(start, start + size if n is None else min(start + size, n), dtype=np.int64)


def _samples(card: ModelCard, inputs: Arrays, reply: Future[Arrays]) -> Samples:
    arrays = reply.result()
    conditions = {name: value[:, 0] for name, value in inputs.items()}
    seeds = conditions.pop("seed")
    # The reply is read-only memory of the message: the one copy that makes it the caller's own.
    images = arrays["image"].copy()
    masks = arrays["mask"].copy() if "mask" in arrays else None
    return Samples(images, masks, seeds, conditions, card)


def _join(batches: list[Samples]) -> Samples:
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    masks = [batch.masks for batch in batches if batch.masks is not None]
    return Samples(
        np.concatenate([batch.images for batch in batches]),
        np.concatenate(masks) if masks else None,
        np.concatenate([batch.seeds for batch in batches]),
        {
            name: np.concatenate([batch.conditions[name] for batch in batches])
            for name in first.conditions
        },
        first.card,
    )
