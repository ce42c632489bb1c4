"""The client: discovery, sampling and translation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any

from galatea._flow import Counting, drive
from galatea._progress import Made
from galatea._session import Session, with_labels
from galatea._wire.endpoint import TransportName
from galatea._wire.security import Security
from galatea.card import ModelCard
from galatea.latents import Latents, Space
from galatea.latents._calls import latent, synthesise
from galatea.measured import Measured
from galatea.samples import Samples
from galatea.search import Query

__all__ = ["DEFAULT_URL", "Client"]

DEFAULT_URL = "localhost:8001"


class Client:
    """Samples from the generators of one or several Triton servers. Safe to share between threads.

    A sample depends on the model's version, its seed and its conditions alone. So requests that
    fail for a passing reason are sent again, to another server where there are several; one that
    fails is left alone for a while and then tried again; and servers that have another version or
    other weights of a model get none of its requests.

    Args:
        url: ``host:port`` of the server's gRPC port, or gRPC's other spellings: behind
            ``dns:///name:8001`` each address of the name gets requests in turn. Or several of them,
            servers with the same models.
        timeout: seconds that one request may take, connecting and waiting for its turn included;
            default 60, and an hour of models that work in steps.
        patience: seconds that a request which fails for a passing reason is tried again. A server
            that is busy with others is asked again for as long as a request may take, unless this
            is 0.
        security: TLS, certificates and token; nothing by default.
        transport: "grpc" sends messages; "shm" lets a server on this machine write images into
            shared memory, "cuda" into that of a GPU that both have; "auto" does the former where
            the address is this machine's own and both see the same memory.
        hedge: a request that takes this many times longer than usual is sent to another server too,
            and the first answer counts; None: never.
        counters: told of every request, see :class:`galatea.telemetry.Counters`.

    Raises:
        InvalidInput: an address, a number or a choice that is none.
        MachineError: a certificate or token cannot be read.
    """

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        *,
        timeout: float | None = None,
        patience: float = 20.0,
        security: Security | None = None,
        transport: TransportName = "auto",
        hedge: float | None = None,
        counters: Counting | None = None,
    ) -> None:
        self._session = Session(url, timeout, patience, security, transport, hedge, counters)

    @property
    def url(self) -> str:
        """The address, or all of them."""
        return self._session.url

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()

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
        return self._session.models()

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
        return self._session.served(name).card

    def measured(self, name: str) -> Measured | None:
        """What was measured of a generator as it is served now; None where nothing was.

        ``galatea tune`` measures, and leaves the figures in the configuration that it writes.

        Raises:
            InvalidInput: the figures cannot be read.
            ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
                see :mod:`galatea.errors`.
        """
        return self._session.measured(name)

    def sample(
        self,
        name: str,
        n: int | None = None,
        *,
        seed: int | None = None,
        labels: Any = None,
        deadline: float | None = None,
        progress: Callable[[int], None] = lambda images: None,
        on_step: Callable[[int, int], None] | None = None,
        **conditions: Any,
    ) -> Samples:
        """Samples `n` images.

        Image i has the seed ``seed + i`` and depends on nothing else than the model's version, that
        seed and its conditions.

        Args:
            name: the model.
            n: number of images; by default one, or where a condition has one value for each, as
                many.
            seed: of the first image; by default random, and told in the result.
            labels: for class-conditional models a class (number or name), a sequence of `n` of
                them, "balanced", the default, which deals the classes out in turn, or a mapping
                from classes to weights, which deals them out in these proportions. The class of
                image i depends on i alone. ``label``, the condition's name on the wire, is the
                same.
            deadline: seconds for the whole.
            progress: called with the number of images that have newly arrived.
            on_step: of models that work in steps, called a few times a second with the calls of the
                network that were made for all the images, and how many there will be.
            conditions: other inputs of the model, as its card names them: a value for all, or a
                sequence with one for each. Of a diffusion model ``prompt``, ``steps``, ``guidance``
                and others.

        Raises:
            InvalidInput: `n`, the seed or a condition is not valid for this model.
            ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
                see :mod:`galatea.errors`.
        """
        steps = self._session.sample(
            name, n, seed=seed, labels=labels, deadline=deadline, stepwise=on_step is not None,
            **conditions,
        )  # fmt: skip
        return _last(drive(steps), progress, on_step)

    def stream(
        self,
        name: str,
        n: int | None = None,
        *,
        batch_size: int | None = None,
        seed: int | None = None,
        labels: Any = None,
        start: int = 0,
        shard: tuple[int, int] = (0, 1),
        deadline: float | None = None,
        previews: bool | int = False,
        on_step: Callable[[int, int], None] | None = None,
        **conditions: Any,
    ) -> Iterator[Samples]:
        """Yields batches in the order of their seeds, in memory that does not grow with `n`.

        Closing the iterator gives up what is on its way. Arguments are those of :meth:`sample`;
        besides:

        Args:
            n: number of images; by default the stream is endless, or where a condition has one
                value for each image, as long as that.
            batch_size: images a batch; by default the largest that the server takes at once, and
                few of models that work in steps.
            start: index of the first image in a larger job: it has the seed ``seed + start`` and
                the class that the image with this index has. A sequence of classes begins at 0.
            shard: (k, N): of all batches those numbered k, k + N, k + 2N …, so that N callers share
                a job. Give all of them the same seed and `batch_size`.
            previews: of models that work in steps, yield images on their way too, as they come: one
                each, with `progress`. True: about ten of every image; a number: one whenever so
                many calls of the network were made.

        Raises:
            As :meth:`sample`.
        """
        steps = self._session.stream(
            name, n, batch_size=batch_size, seed=seed, labels=labels, start=start, shard=shard,
            deadline=deadline, previews=previews, stepwise=on_step is not None, **conditions,
        )  # fmt: skip
        return _batches(drive(steps), on_step)

    def latent(
        self,
        name: str,
        seeds: int | Iterable[int],
        *,
        space: Space = "z",
        labels: Any = None,
        **conditions: Any,
    ) -> Latents:
        """What the images of these seeds are made of; see :mod:`galatea.latents`.

        Args:
            name: a model that starts from a seed.
            seeds: one, or any number of them in any order.
            space: "z", or "w" for the styles of a model with a mapping stage.
            labels, conditions: in space w those that the mapping takes, as of :meth:`sample`.

        Raises:
            InvalidInput: no seeds, no such space, or a condition that the card does not allow or
                that :meth:`synthesise` takes.
            ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
                see :mod:`galatea.errors`.
        """
        return latent(self, name, seeds, space=space, **with_labels(conditions, labels))

    def synthesise(
        self, name: str, latents: Latents, *, labels: Any = None, **conditions: Any
    ) -> Samples:
        """The images of latents: of those of a seed the same bytes as :meth:`sample` gives.

        Args:
            name: the model that the latents belong to.
            latents: from :meth:`latent`, perhaps interpolated, mixed or moved.
            labels, conditions: as of :meth:`sample`, without those that are in the styles already.
                What is not given is that of the image with the latent's place.

        Raises:
            InvalidInput: latents of another model or version, or a condition that the card does not
                allow or that is in the styles.
            ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
                see :mod:`galatea.errors`.
        """
        return synthesise(self, name, latents, **with_labels(conditions, labels))

    def translate(
        self,
        name: str,
        images: Any,
        *,
        seed: int | None = None,
        deadline: float | None = None,
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
            deadline: seconds for the whole.
            progress: called with the number of pictures that have newly arrived.
            conditions: other inputs of the model, as its card names them.

        Raises:
            InvalidInput: a picture cannot be read or does not suit the model, the prepared pictures
                are of different sizes, or the seed or a condition is not valid.
            MachineError: a package that reads this kind of file is not installed.
            ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
                see :mod:`galatea.errors`.
        """
        steps = self._session.translate(name, images, seed=seed, deadline=deadline, **conditions)
        return _last(drive(steps), progress)

    def translate_stream(
        self,
        name: str,
        images: Any,
        *,
        batch_size: int | None = None,
        seed: int | None = None,
        skip: Callable[[str], bool] = lambda picture: False,
        deadline: float | None = None,
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
        steps = self._session.translate_stream(
            name, images, batch_size=batch_size, seed=seed, skip=skip, deadline=deadline,
            **conditions,
        )  # fmt: skip
        return _batches(drive(steps))


OnStep = Callable[[int, int], None]


def _last(
    items: Generator[int | Samples | Made, None, None],
    progress: Callable[[int], None],
    on_step: OnStep | None = None,
) -> Samples:
    """The samples at the end; what comes before them is told."""
    made: Samples | None = None
    with closing(items):
        for item in items:
            if isinstance(item, Samples):
                made = item
            elif isinstance(item, int):
                progress(item)
            elif on_step is not None:
                on_step(item.calls, item.of)
    assert made is not None
    return made


def _batches(
    items: Generator[Samples | Made, None, None], on_step: OnStep | None = None
) -> Iterator[Samples]:
    """The samples; how far all is is told."""
    with closing(items):
        for item in items:
            if isinstance(item, Samples):
                yield item
            elif on_step is not None:
                on_step(item.calls, item.of)
