"""What a client and its twin for asyncio share: which calls lead to which requests."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from galatea import _conditions, pictures
from galatea._blocks import Blocks
from galatea._flow import Counting, Flow, Rules, Wait, drive
from galatea._progress import Hearing, Made
from galatea._requests import (
    Gathered,
    Request,
    Served,
    amount,
    prepared,
    samplings,
    slices,
    translations,
    whole,
)
from galatea._telemetry import trace_headers
from galatea._wire.endpoint import Call, Endpoint, TransportName
from galatea._wire.messages import Arrays
from galatea._wire.pool import Pool
from galatea._wire.security import Security
from galatea.card import CARD_PARAMETER, ModelCard
from galatea.errors import InvalidInput, ModelUnavailable
from galatea.measured import MEASURED_PARAMETER, Measured
from galatea.samples import Samples

__all__ = ["Session", "Steps", "with_labels"]

T = TypeVar("T")
Steps = Generator[Wait | T, None, None]

# Seconds that a request may take by default: of most models, and of those that work in steps.
TIMEOUT, STEPWISE_TIMEOUT = 60.0, 3600.0


class Session:
    """The servers of a client, and the steps of each of its calls.

    Arguments are those of :class:`galatea.Client`. Steps are for :func:`galatea._flow.drive`, or
    another that waits.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        timeout: float | None,
        patience: float,
        security: Security | None,
        transport: TransportName,
        hedge: float | None,
        counters: Counting | None,
    ) -> None:
        if timeout is not None and not (_is_number(timeout) and timeout > 0):
            raise InvalidInput(f"a timeout of {timeout!r} s leaves no time", "give seconds above 0")
        if not _is_number(patience) or not patience >= 0:
            raise InvalidInput(f"a patience of {patience!r} s is none", "give 0 s or more")
        if hedge is not None and not (_is_number(hedge) and hedge >= 1):
            raise InvalidInput(f"a hedge of {hedge!r} is too early", "give a factor of at least 1")
        if transport not in get_args(TransportName):
            raise InvalidInput(
                f"no transport {transport!r}",
                f"choose one of: {', '.join(get_args(TransportName))}",
            )
        addresses = [url] if isinstance(url, str) else list(url)
        self._timeout = timeout
        self._pool = Pool(
            addresses, security or Security(), timeout or TIMEOUT, transport, trace_headers
        )
        self._rules = Rules(patience, hedge, counters)
        if counters is not None:
            counters.watch(self._pool)
        self._known: dict[str, Served] = {}

    @property
    def url(self) -> str:
        """The address, or all of them."""
        return self._pool.url

    def close(self) -> None:
        """Closes the connections."""
        self._pool.close()

    def models(self) -> list[ModelCard]:
        """Cards of all generators that are ready, by name."""
        index = self._pool.first(Endpoint.index)
        ready = {name for name, _, state, _ in index if state == "READY"}
        served = [self.read(name) for name in sorted(ready)]
        cards = [entry.card for entry in served if entry is not None]
        return [card for card in cards if card.task != "extractor"]

    def sample(
        self, name: str, n: int | None = None, *, seed: int | None = None, labels: Any = None,
        deadline: float | None = None, stepwise: bool = False, **conditions: Any,
    ) -> Steps[int | Samples | Made]:  # fmt: skip
        served = self.served(name)
        given = with_labels(conditions, labels)
        n = whole(_conditions.count(given) or 1 if n is None else n)
        requests = samplings(served, n, None, seed, given)
        hearing = self._hearing(served, n) if stepwise else None
        return self._all(served, requests, n, deadline, hearing)

    def stream(
        self, name: str, n: int | None = None, *, batch_size: int | None = None,
        seed: int | None = None, labels: Any = None, start: int = 0,
        shard: tuple[int, int] = (0, 1), deadline: float | None = None,
        previews: bool | int = False, stepwise: bool = False, **conditions: Any,
    ) -> Steps[Samples | Made]:  # fmt: skip
        served = self.served(name)
        given = with_labels(conditions, labels)
        total = _conditions.count(given) if n is None else whole(n)
        requests = samplings(served, total, batch_size, seed, given, start, shard)
        size = served.batch(batch_size)
        hearing = None
        if previews is not False:
            stepwise = bool(previews is True or whole(previews, "previews"))
        if stepwise:
            hearing = self._hearing(served, amount(total, size, start, shard))
        return self._batches(served, requests, size, deadline, hearing, previews)

    def translate(
        self, name: str, images: Any, *, seed: int | None = None, deadline: float | None = None,
        **conditions: Any,
    ) -> Steps[int | Samples | Made]:  # fmt: skip
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
        return self._all(served, requests, len(sources), deadline)

    def translate_stream(
        self, name: str, images: Any, *, batch_size: int | None = None, seed: int | None = None,
        skip: Callable[[str], bool] = lambda picture: False, deadline: float | None = None,
        **conditions: Any,
    ) -> Steps[Samples | Made]:  # fmt: skip
        served = self._translator(name)
        n = len(images) if isinstance(images, np.ndarray) else None
        sources = prepared(pictures.pictures(images), served.card, skip)
        requests = translations(served, sources, n, batch_size, seed, conditions)
        return self._batches(served, requests, served.batch(batch_size), deadline)

    def _all(
        self,
        served: Served,
        requests: Iterator[Request],
        n: int,
        deadline: float | None,
        hearing: Hearing | None = None,
    ) -> Steps[int | Samples | Made]:
        """The number of samples in each answer, and at the end all of them."""
        gathered = Gathered(served.card, n)
        size = min(n, served.batch(None))
        yield from self._steps(served, requests, gathered.add, size, deadline, hearing)
        yield gathered.samples()

    def _batches(
        self,
        served: Served,
        requests: Iterator[Request],
        size: int,
        deadline: float | None,
        hearing: Hearing | None = None,
        previews: bool | int = False,
    ) -> Steps[Samples | Made]:
        blocks = Blocks()

        def received(request: Request, reply: Arrays) -> Samples:
            return request.answered(served.card, reply, blocks.empty)

        return self._steps(served, requests, received, size, deadline, hearing, previews)

    def _steps(
        self,
        served: Served,
        requests: Iterator[Request],
        receive: Callable[[Request, Arrays], T],
        size: int,
        deadline: float | None,
        hearing: Hearing | None,
        previews: bool | int = False,
    ) -> Steps[T | Samples | Made]:
        if deadline is not None and not (_is_number(deadline) and deadline > 0):
            raise InvalidInput(f"a deadline of {deadline!r} s has passed", "give seconds above 0")
        flow: Flow[Request] = Flow(
            self._pool,
            served.card,
            served.call if hearing is None else partial(served.streamed, previews),
            self._rules,
            timeout=self._allowed(served.card),
            reply=served.reply(size),
            deadline=deadline,
        )
        if hearing is None:
            return self._watched(served.card.name, flow.run(requests, receive))
        return self._watched(served.card.name, _heard(flow, requests, receive, hearing))

    def _hearing(self, served: Served, n: int | None) -> Hearing:
        """What listens to a model that works in steps.

        Raises:
            InvalidInput: it does not.
            ModelUnavailable: its export has nothing that tells of its steps.
        """
        name = served.card.name
        if served.card.steps is None:
            raise InvalidInput(
                f"{name} makes an image at once, not in steps", "leave previews and on_step out"
            )
        try:
            self.config(served.stream_name)
        except ModelUnavailable as error:
            raise ModelUnavailable(
                f"{self.url}: {name} is served without {served.stream_name}, which tells of steps",
                "export it again, or leave previews and on_step out",
            ) from error
        return Hearing(served.card, n)

    def _allowed(self, card: ModelCard) -> float:
        """Seconds that a request to a model may take."""
        return self._timeout or (TIMEOUT if card.steps is None else STEPWISE_TIMEOUT)

    def _watched(self, name: str, steps: Steps[T]) -> Steps[T]:
        try:
            yield from steps
        except ModelUnavailable:
            self.forget(name)  # another version may be served by now
            raise

    def run(
        self,
        model: str,
        version: int,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        card: ModelCard,
    ) -> dict[str, NDArray[Any]]:
        """Outputs of a stage for the rows of `inputs`; `card` is that of the generator."""
        wanted = dict.fromkeys(outputs)
        made: dict[str, list[NDArray[Any]]] = {name: [] for name in outputs}

        def call(request: Request) -> Call:
            return Call(model, str(version), request.inputs, wanted)

        def received(_: Request, reply: Arrays) -> None:
            for name, array in reply.items():
                made[name].append(array.copy())

        size = max(1, self.config(model).max_batch_size)
        flow: Flow[Request] = Flow(self._pool, card, call, self._rules, timeout=self._allowed(card))
        for _ in drive(flow.run(slices(inputs, size), received)):
            pass
        return {name: np.concatenate(parts) for name, parts in made.items()}

    def _translator(self, name: str) -> Served:
        served = self.served(name)
        if served.card.source_picture is None:
            raise InvalidInput(
                f"{name} makes pictures from seeds and takes none",
                f"call sample({name!r}), or run: galatea sample {name}",
            )
        return served

    def served(self, name: str) -> Served:
        if not _is_name(name):
            raise InvalidInput(f"{name!r} is no name of a model", "run: galatea models")
        served = self._known.get(name) or self.read(name)
        if served is None:
            raise ModelUnavailable(
                f"{name!r} is a Triton model, but no generator of galatea", "run: galatea models"
            )
        self._known[name] = served
        return served

    def read(self, name: str) -> Served | None:
        """The model from a server; None where it has no card (a stage, or a foreign model)."""

        def read(endpoint: Endpoint) -> Served | None:
            config = endpoint.config(name)
            if CARD_PARAMETER not in config.parameters:
                return None
            card = ModelCard.from_json(config.parameters[CARD_PARAMETER].string_value)
            endpoint.know(card)
            return Served(card, max(1, config.max_batch_size))

        try:
            return self._pool.first(read)
        except ModelUnavailable as error:
            raise self._missing(name) from error

    def config(self, name: str) -> Any:
        """The ModelConfig protobuf of a generator or a stage."""
        return self._pool.first(lambda endpoint: endpoint.config(name))

    def forget(self, name: str) -> None:
        """Has the card of a model read anew for the next request."""
        self._known.pop(name, None)

    def measured(self, name: str) -> Measured | None:
        """The figures in the configuration of a generator; None where there are none."""
        self.served(name)
        parameters = self.config(name).parameters
        if MEASURED_PARAMETER not in parameters:
            return None
        return Measured.from_json(parameters[MEASURED_PARAMETER].string_value)

    def ask(self, method: str, request: Any) -> list[Any]:
        """What each server answers to a call of Triton's that is about the server."""
        return [endpoint.call(method, request) for endpoint in self._pool.endpoints]

    def _missing(self, name: str) -> ModelUnavailable:
        index = self._pool.first(Endpoint.index)
        state = {entry: (state, reason) for entry, _, state, reason in index}
        if name in state:
            what, reason = state[name]
            return ModelUnavailable(
                f"{self.url}: the model {name!r} is not ready ({what}: {reason})",
                "see the log of the server",
            )
        public = sorted(entry for entry in state if "." not in entry)
        near = difflib.get_close_matches(name, public, 1)
        return ModelUnavailable(
            f"{self.url}: no model {name!r}",
            f"did you mean {near[0]!r}?" if near else f"served are: {', '.join(public) or 'none'}",
        )


def _heard(
    flow: Flow[Request],
    requests: Iterator[Request],
    receive: Callable[[Request, Arrays], T],
    hearing: Hearing,
) -> Steps[T | Samples | Made]:
    """What a flow yields, with the parts of its answers between them."""

    def received(request: Request, reply: Arrays) -> T:
        hearing.count(request, reply)
        return receive(request, reply)

    for step in flow.run(requests, received, hearing.part):
        yield step
        if not isinstance(step, Wait | Made):
            yield hearing.made


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_name(name: Any) -> bool:
    """Whether it can be sent."""
    try:
        return isinstance(name, str) and bool(name.encode())
    except UnicodeEncodeError:
        return False


def with_labels(conditions: dict[str, Any], labels: Any) -> dict[str, Any]:
    """Conditions with the classes among them, under their name on the wire.

    Raises:
        InvalidInput: they are given under that name too.
    """
    if labels is None:
        return conditions
    if conditions.get("label") is not None:
        raise InvalidInput("both label and labels are given", "give one of them")
    return {**conditions, "label": labels}
