"""One address: calls to Triton, with every lower-level error turned into one of ours."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from galatea._wire import parts
from galatea._wire.channel import SERVICE, open_channel
from galatea._wire.cuda import CudaRegion
from galatea._wire.lent import Lent, lend
from galatea._wire.memory import SharedMemory, SystemRegion
from galatea._wire.messages import Arrays, datatype, is_text, outputs, pack
from galatea._wire.security import Security, Token, is_local
from galatea._wire.status import translate
from galatea.card import CARD_PARAMETER, ModelCard
from galatea.errors import (
    GalateaError,
    InvalidInput,
    ModelUnavailable,
    ServerError,
    ServerUnreachable,
)

__all__ = ["Call", "Endpoint", "Reply", "TransportName"]

log = logging.getLogger("galatea")

TransportName = Literal["auto", "grpc", "shm", "cuda"]
Metadata = tuple[tuple[str, str], ...]

SHARED_FROM = 1 << 18  # bytes of an answer from which shared memory is worth its handshake
PAGE = 4096  # bytes of an input from which it goes there
CLOSING = 5.0  # seconds
REST = 0.25, 8.0  # seconds that a failing endpoint is left alone: at first, at most


@dataclass(frozen=True)
class Call:
    """What is asked of a model.

    Attributes:
        inputs: by name, with the batch as first axis.
        outputs: those that are wanted, with the bytes that each will have; None: not known before.
        stepwise: the model works in steps. It is told how long the caller waits, and giving the
            request up frees what it takes there; so no memory is lent to it.
        listen: told what comes before the result, in a thread of its own; None: nothing does.
    """

    model: str
    version: str
    inputs: Arrays
    outputs: Mapping[str, int | None]
    stepwise: bool = False
    listen: Callable[[Arrays], None] | None = None


@dataclass
class Reply:
    """What came back.

    Attributes:
        arrays: the outputs by name; read-only views that are valid until :meth:`release`.
        seconds: from sending to the last byte.
        received: bytes of the outputs.
    """

    arrays: Arrays
    seconds: float
    _release: Callable[[], None] = field(default=lambda: None)
    received: int = field(init=False)

    def __post_init__(self) -> None:
        self.received = sum(array.nbytes for array in self.arrays.values())

    def release(self) -> None:
        """Gives the memory back to the next request."""
        self.arrays = {}
        self._release()


class Endpoint:
    """One gRPC channel to one address. Safe to share between threads.

    Args:
        address: see :func:`galatea._wire.channel.check_address`.
        timeout: seconds that one call may take which does not say.
        trace: headers of a trace context for each call.

    Attributes:
        in_flight: requests that are on their way.
    """

    def __init__(
        self,
        address: str,
        security: Security,
        timeout: float,
        transport: TransportName = "auto",
        trace: Callable[[], Sequence[tuple[str, str]]] = tuple,
    ) -> None:
        self.address, self.timeout = address, timeout
        self.in_flight = 0
        self._token = Token(security.token) if security.token else None
        self._trace = trace
        self._channel = open_channel(address, security)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        # Without serialisers requests and answers are the bytes themselves.
        self._infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            f"/{SERVICE}/ModelInfer"
        )
        # A stream of one request: to a server it is the same.
        self._infer_in_parts: grpc.UnaryStreamMultiCallable[bytes, bytes] = (
            self._channel.unary_stream(f"/{SERVICE}/ModelStreamInfer")
        )
        self._memory: SharedMemory | None = None
        if transport in ("shm", "cuda") or (transport == "auto" and is_local(address)):
            make = CudaRegion if transport == "cuda" else SystemRegion
            self._memory = SharedMemory(
                self._stub, self._metadata, address, make, insist=transport != "auto"
            )
        self._smallest = SHARED_FROM if transport == "auto" else 0
        self._lock = threading.RLock()  # gRPC may answer within the call that asks
        self._failures = 0
        self._down_until = 0.0
        self._known: dict[str, ModelCard] = {}  # cards that this endpoint has now
        self._probes: dict[str, Future[None]] = {}

    def close(self) -> None:
        """Closes the channel; calls that are on their way are cancelled."""
        if self._memory is not None:
            self._memory.close()
        # gRPC waits for ever to close a channel where Ctrl-C came as it began a call.
        closing = threading.Thread(target=self._channel.close, daemon=True)
        closing.start()
        closing.join(CLOSING)

    def index(self) -> list[tuple[str, str, str, str]]:
        """(name, version, state, reason) of everything in the server's repository."""
        request = service_pb2.RepositoryIndexRequest()
        reply = self.call("RepositoryIndex", request)
        return [(entry.name, entry.version, entry.state, entry.reason) for entry in reply.models]

    def config(self, model: str) -> Any:
        """The ModelConfig protobuf of a model that is ready."""
        return self.call("ModelConfig", service_pb2.ModelConfigRequest(name=model)).config

    def know(self, card: ModelCard) -> None:
        """Remembers that the endpoint serves this very model."""
        self._known[card.name] = card

    def usable(self, card: ModelCard) -> bool:
        """Whether requests for this very model may go here now.

        An endpoint that has failed is left alone for a while; then, and when it is new, it is asked
        for the model's card in the background, because a restarted server may have other weights.
        """
        with self._lock:
            if time.monotonic() < self._down_until:
                return False
            known = self._known.get(card.name)
            if known is None and card.name not in self._probes:
                self._probe(card)
        return known == card

    def probes(self, card: ModelCard) -> list[Future[None]]:
        """The question for the model's card, while it is on its way."""
        probe = self._probes.get(card.name)
        return [] if probe is None else [probe]

    def has_other(self, card: ModelCard) -> bool:
        """Whether the endpoint is known to serve the model with another card."""
        return self._known.get(card.name, card) != card

    @property
    def rests_for(self) -> float:
        """Seconds until the endpoint may be asked again."""
        return max(0.0, self._down_until - time.monotonic())

    def failed(self) -> None:
        """Takes the endpoint out for a while, each time for longer."""
        with self._lock:
            now = time.monotonic()
            if now >= self._down_until:  # of many requests that fail together, the first counts
                rest = min(REST[0] * 2**self._failures, REST[1])
                self._failures += 1
                self._down_until = now + rest
                log.info("%s: left alone for %.2g s", self.address, rest)
            self._known.clear()
        if self._memory is not None:
            self._memory.forget()

    def infer(self, call: Call, timeout: float | None = None) -> Future[Reply]:
        """Sends one request without waiting for its answer.

        Args:
            timeout: seconds that it may take; None: the endpoint's.

        Returns:
            A future whose exception is one of ours. Cancelling it gives the request up.
        """
        seconds_left = self.timeout if timeout is None else timeout
        lent, head, arrays = self._prepare(call, seconds_left)
        if call.listen is not None:
            return self._listen(call, pack(head, arrays), seconds_left, call.listen)
        future: Future[Reply] = Future()
        begin = time.perf_counter()

        def answered(rpc: Any) -> None:
            seconds = time.perf_counter() - begin
            with self._lock:
                self.in_flight -= 1
            failure = (
                None
                if rpc.code() is grpc.StatusCode.OK
                else translate(rpc, self.address, seconds_left)
            )
            awaited = future.set_running_or_notify_cancel()
            if lent is not None and (failure or not awaited):
                # Only a server that has answered is surely done with the memory.
                done = failure is None or isinstance(failure, InvalidInput | ModelUnavailable)
                (lent.give if done else lent.retire)()
            if not awaited:
                return
            if failure is not None:
                future.set_exception(failure)
                return
            try:
                with self._reading(lent):
                    arrays = outputs(rpc.result(), None if lent is None else lent.read)
                    if missing := [name for name in call.outputs if name not in arrays]:
                        raise ValueError(f"no output {missing[0]!r}")
            except GalateaError as error:
                future.set_exception(error)
                return
            release = lent.give if lent is not None else lambda: None
            future.set_result(Reply(arrays, seconds, release))

        message, metadata = pack(head, arrays), self._metadata()
        with self._errors():
            rpc = self._infer.future(message, timeout=seconds_left, metadata=metadata)
        with self._lock:
            self.in_flight += 1
        rpc.add_done_callback(answered)
        if lent is None:
            future.add_done_callback(lambda done: rpc.cancel() if done.cancelled() else None)
        return future

    def _listen(
        self, call: Call, message: bytes, timeout: float, listen: Callable[[Arrays], None]
    ) -> Future[Reply]:
        """Sends a request whose answer comes in parts."""
        future: Future[Reply] = Future()
        begin = time.perf_counter()
        metadata = (*self._metadata(), *parts.METADATA)
        with self._errors():
            rpc = self._infer_in_parts(message, timeout=timeout, metadata=metadata)

        def read() -> None:
            made: Reply | GalateaError
            try:
                with self._reading():
                    arrays = parts.result(rpc, list(call.outputs), listen)
                made = Reply(arrays, time.perf_counter() - begin)
            except grpc.RpcError as error:
                made = translate(error, self.address, timeout)
            except GalateaError as error:
                made = error
            with self._lock:
                self.in_flight -= 1
            if not future.set_running_or_notify_cancel():
                return
            if isinstance(made, Reply):
                future.set_result(made)
            else:
                future.set_exception(made)

        with self._lock:
            self.in_flight += 1
        threading.Thread(target=read, name="galatea-parts", daemon=True).start()
        future.add_done_callback(lambda done: rpc.cancel() if done.cancelled() else None)
        return future

    def _prepare(
        self, call: Call, timeout: float
    ) -> tuple[Lent | None, service_pb2.ModelInferRequest, list[NDArray[Any]]]:
        """The request without its tensors, and those that travel with it."""
        head = service_pb2.ModelInferRequest(model_name=call.model, model_version=call.version)
        if call.stepwise:
            head.parameters["timeout"].int64_param = int(timeout * 1e6)
        lent = self._lend(call)
        arrays = []
        for name, array in call.inputs.items():
            tensor = head.inputs.add(name=name, datatype=datatype(array), shape=array.shape)
            if lent is not None and name in lent.places:
                lent.write(name, array)
                lent.point(tensor.parameters, name)
            else:
                arrays.append(array)
        # Of an answer in parts, those that are no result have other outputs.
        for name in call.outputs if call.listen is None else ():
            wanted = head.outputs.add(name=name)
            if lent is not None:
                lent.point(wanted.parameters, name)
        return lent, head, arrays

    def _lend(self, call: Call) -> Lent | None:
        """Memory for the large tensors of a request, where there is any."""
        if self._memory is None or call.stepwise:
            return None
        sizes = {name: size for name, size in call.outputs.items() if size is not None}
        if len(sizes) < len(call.outputs):
            return None
        sizes |= {
            name: array.nbytes
            for name, array in call.inputs.items()
            if array.nbytes >= PAGE and not is_text(array)
        }
        return lend(self._memory, sizes, self._smallest)

    @contextmanager
    def _reading(self, lent: Lent | None = None) -> Iterator[None]:
        try:
            yield
        except (DecodeError, ValueError, KeyError, TypeError, StopIteration) as error:
            if lent is not None:
                lent.retire()
            raise ServerError(
                f"{self.address}: the answer cannot be read: {error}",
                "run galatea doctor on the server's machine (numpy must be below 2)",
            ) from error

    def _probe(self, card: ModelCard) -> None:
        """Asks for the model's card; called with the lock held."""
        told: Future[None] = Future()
        with self._errors():
            rpc = self._stub.ModelConfig.future(
                service_pb2.ModelConfigRequest(name=card.name),
                timeout=min(self.timeout, 5.0),
                metadata=self._metadata(),
            )
        self._probes[card.name] = told

        def answered(rpc: Any) -> None:
            found: ModelCard | None = None
            if rpc.code() is grpc.StatusCode.OK:
                found = read_card(rpc.result().config)
            if found is None:
                self.failed()
            else:
                self._failures = 0
                self._known[card.name] = found
                if found != card:
                    log.warning(
                        "%s: left out, it serves another version or other weights of %s",
                        self.address,
                        card.name,
                    )
            self._probes.pop(card.name, None)
            told.set_result(None)

        rpc.add_done_callback(answered)

    def _metadata(self) -> Metadata:
        token = (self._token.header(),) if self._token else ()
        return (*token, *self._trace())

    def call(self, method: str, request: Any) -> Any:
        with self._errors():
            return getattr(self._stub, method)(
                request, timeout=self.timeout, metadata=self._metadata()
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise translate(error, self.address, self.timeout) from error
        except ValueError as error:  # gRPC's word for a closed channel
            raise ServerUnreachable(
                f"{self.address}: the client is closed", "make a new Client"
            ) from error


def read_card(config: Any) -> ModelCard | None:
    """The card in a ModelConfig protobuf; None where there is none, or none that can be read."""
    if CARD_PARAMETER not in config.parameters:
        return None
    try:
        return ModelCard.from_json(config.parameters[CARD_PARAMETER].string_value)
    except InvalidInput:
        return None
