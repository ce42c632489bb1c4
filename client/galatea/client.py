"""The client: discovery, sampling and translation."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import numpy as np

from galatea import pictures
from galatea._requests import (
    Request,
    Served,
    in_order,
    join,
    prepared,
    samplings,
    translations,
    whole,
)
from galatea._transport import Arrays, Transport
from galatea.card import CARD_PARAMETER, ModelCard
from galatea.errors import InvalidInput, ModelUnavailable
from galatea.samples import Samples
from galatea.search import Query

__all__ = ["DEFAULT_URL", "Client"]

DEFAULT_URL = "localhost:8001"


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

    def search(
        self,
        words: str = "",
        *,
        modality: str = "",
        organ: str = "",
        task: str = "",
        family: str = "",
        licence: str = "",
        size: str = "",
        rank: str = "",
    ) -> list[ModelCard]:
        """Cards of the ready generators that match, in the vocabulary of the catalogue.

        Args:
            words: every word must begin a word of the card's texts.
            modality, organ, task, family, licence, size: see :class:`galatea.search.Query`.
            rank: name of a metric; then the best come first, and those without it last.

        Raises:
            InvalidInput: no such task, no size, or no card that matches has the metric.
            ServerUnreachable, DeadlineExceeded, ServerError: see :mod:`galatea.errors`.
        """
        query = Query(words, modality, organ, task, family, licence, size)
        return query.search(self.models(), rank)

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
        requests = samplings(served, whole(n), None, seed, {"label": label, **conditions})
        return self._all(served, requests, progress)

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
        total = None if n is None else whole(n)
        given = {"label": label, **conditions}
        return self._in_order(served, samplings(served, total, batch_size, seed, given))

    def translate(
        self,
        name: str,
        images: Any,
        *,
        seed: int | None = None,
        progress: Callable[[int], None] = lambda images: None,
        **conditions: Any,
    ) -> Samples:
        """Translates pictures with an image-to-image model.

        Each picture is prepared as the model's card says (:mod:`galatea.preparation`); the result
        has the prepared ones as ``sources``.

        Args:
            name: the model.
            images: an array [n, H, W] or [n, H, W, C]; a file or folder; or an iterable of arrays,
                Pillow images, paths and :class:`galatea.pictures.Picture`.
            seed: of the first picture, the next one has ``seed + 1``; for models that are random,
                or draw conditions that are not given.
            progress: called with the number of pictures that have newly arrived.
            conditions: other inputs of the model, as its card names them.

        Raises:
            InvalidInput: a picture cannot be read or does not suit the model, the prepared pictures
                are of different sizes, or the seed or a condition is not valid.
            MachineError: a package that reads this kind of file is not installed.
            ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
                see :mod:`galatea.errors`.
        """
        served = self._translator(name)
        sources = list(prepared(pictures.pictures(images), served.card))
        if not sources:
            raise InvalidInput("there are no pictures to translate", "give at least one")
        other = next((s for s in sources if s.pixels.shape != sources[0].pixels.shape), None)
        if other is not None:
            sizes = [" × ".join(map(str, s.pixels.shape[:2])) for s in (sources[0], other)]
            raise InvalidInput(
                f"{sources[0].name} is {sizes[0]} and {other.name} {sizes[1]} pixels large: "
                "not one array",
                "use translate_stream, which yields pictures of one size together",
            )
        requests = translations(served, sources, len(sources), None, seed, conditions)
        return self._all(served, requests, progress)

    def translate_stream(
        self,
        name: str,
        images: Any,
        *,
        batch_size: int | None = None,
        seed: int | None = None,
        skip: Callable[[str], bool] = lambda picture: False,
        **conditions: Any,
    ) -> Iterator[Samples]:
        """Translates pictures of any sizes and number, in memory that does not grow with them.

        Yields batches in the order of the pictures, each of one size: neighbours of equal size
        travel together. Arguments are those of :meth:`translate`; besides:

        Args:
            batch_size: pictures a batch; by default the most that the server takes at once.
            skip: called with the name of each picture; True leaves it out, which changes nothing
                for the others.

        Raises:
            As :meth:`translate`. Pictures before one that cannot be used are yielded first.
        """
        served = self._translator(name)
        n = len(images) if isinstance(images, np.ndarray) else None
        sources = prepared(pictures.pictures(images), served.card, skip)
        requests = translations(served, sources, n, batch_size, seed, conditions)
        return self._in_order(served, requests)

    def _all(
        self, served: Served, requests: Iterator[Request], progress: Callable[[int], None]
    ) -> Samples:
        batches = []
        for batch in self._in_order(served, requests):
            progress(len(batch))
            batches.append(batch)
        return join(batches)

    def _in_order(self, served: Served, requests: Iterator[Request]) -> Iterator[Samples]:
        card = served.card
        outputs = tuple(output.name for output in card.outputs)

        def send(values: Arrays) -> Future[Arrays]:
            return self._transport.infer(card.name, str(card.version), values, outputs)

        try:
            yield from in_order(send, requests, card)
        except ModelUnavailable:
            self._known.pop(card.name, None)  # another version may be served by now
            raise

    def _translator(self, name: str) -> Served:
        served = self._served(name)
        if served.card.source_picture is None:
            raise InvalidInput(
                f"{name} makes pictures from seeds and takes none",
                f"call sample({name!r}), or run: galatea sample {name}",
            )
        return served

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
