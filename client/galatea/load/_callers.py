"""Who sends the requests of a load, and notes when each was answered."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from galatea.client import Client
from galatea.errors import ServerError
from galatea.load._arrivals import Arrivals, gaps
from galatea.load._requests import Asking

__all__ = ["Callers", "Done", "Rate", "Senders"]

PAUSE = 0.1  # seconds after a failure, so that a server that refuses everything is not flooded
CONNECTIONS = 4  # that requests which arrive by a rate share
WAITING = 256  # requests by a rate that are on their way at most; further ones are late


@dataclass(frozen=True)
class Done:
    """A request that has ended.

    Attributes:
        end: on the clock of :func:`time.perf_counter`.
        seconds: since it was sent.
        error: why it failed; None: it did not.
        late: seconds between when it should have been sent and when it was.
    """

    end: float
    seconds: float
    error: Exception | None = None
    late: float = 0.0


class Senders(ABC):
    """Sends requests until it is stopped.

    Args:
        open_client: makes a client.
        asking: what is sent.
        connections: number of clients.

    Attributes:
        done: the requests that have ended, in the order of their ends.
        crowd: requests that may end together; a window must have as many.
    """

    def __init__(
        self, open_client: Callable[[], Client], asking: Asking, connections: int, crowd: int
    ) -> None:
        self.done: list[Done] = []
        self.crowd = crowd
        self._open_client, self._asking, self._connections = open_client, asking, connections
        self._clients: list[Client] = []
        self._stopped = threading.Event()

    def start(self) -> None:
        """Connects, sends a first request on each connection, and begins.

        Raises:
            GalateaError: one of the first requests failed.
        """
        failures: list[Exception] = []

        def connect() -> None:
            try:
                client = self._open_client()
                self._clients.append(client)
                self._asking(client)
            except Exception as error:
                full = isinstance(error, ServerError) and error.passing
                if not full:
                    failures.append(error)

        for thread in (connecting := [_thread(connect) for _ in range(self._connections)]):
            thread.start()
        for thread in connecting:
            thread.join()
        if failures:
            raise failures[0]
        self._begin()

    def stop(self, *, wait: bool) -> None:
        """Sends no further requests, and closes the clients.

        Args:
            wait: for the requests that are on their way; else they are given up.
        """
        self._stopped.set()
        if wait:
            self._wait()
        for client in self._clients:
            client.close()

    @abstractmethod
    def _begin(self) -> None:
        """Begins to send."""

    @abstractmethod
    def _wait(self) -> None:
        """Waits for what is on its way."""

    def _send(self, client: Client, late: float = 0.0) -> Exception | None:
        """One request, noted; a thread that ended by an error of any kind would be waited for."""
        begin = time.perf_counter()
        error = None
        try:
            self._asking(client)
        except Exception as failure:
            error = failure
        end = time.perf_counter()
        self.done.append(Done(end, end - begin, error, late))
        return error


class Callers(Senders):
    """A closed loop: each caller sends its next request when it has the answer."""

    def __init__(self, open_client: Callable[[], Client], asking: Asking, callers: int) -> None:
        super().__init__(open_client, asking, callers, crowd=callers)
        self._threads: list[threading.Thread] = []

    def _begin(self) -> None:
        self._threads = [_thread(self._run, client) for client in self._clients]
        for thread in self._threads:
            thread.start()

    def _wait(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self, client: Client) -> None:
        while not self._stopped.is_set():
            if self._send(client) is not None:
                self._stopped.wait(PAUSE)


class Rate(Senders):
    """An open loop: requests arrive, whether or not earlier ones were answered."""

    def __init__(
        self,
        open_client: Callable[[], Client],
        asking: Asking,
        rate: float,
        arrivals: Arrivals,
        seed: int,
    ) -> None:
        super().__init__(open_client, asking, CONNECTIONS, crowd=1)
        self._gaps = gaps(rate, arrivals, seed)
        self._workers = ThreadPoolExecutor(WAITING, "galatea-request")
        self._clock = _thread(self._run)

    def stop(self, *, wait: bool) -> None:
        super().stop(wait=wait)
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        self._clock.start()

    def _wait(self) -> None:
        if self._clock.is_alive():
            self._clock.join()
        self._workers.shutdown(cancel_futures=True)

    def _run(self) -> None:
        due = time.perf_counter()
        for turn, gap in enumerate(self._gaps):
            due += gap
            if self._stopped.wait(max(0.0, due - time.perf_counter())):
                return
            client = self._clients[turn % len(self._clients)]
            self._workers.submit(self._arrived, client, due)

    def _arrived(self, client: Client, due: float) -> None:
        self._send(client, time.perf_counter() - due)


def _thread(run: Callable[..., None], *arguments: object) -> threading.Thread:
    return threading.Thread(target=run, args=arguments, name="galatea-caller", daemon=True)
