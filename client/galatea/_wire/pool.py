"""Several endpoints that serve the same models: which one gets the next request."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import TypeVar

from galatea._wire.channel import check_address
from galatea._wire.endpoint import Endpoint, TransportName
from galatea._wire.security import Security
from galatea.card import ModelCard
from galatea.errors import (
    DeadlineExceeded,
    GalateaError,
    InvalidInput,
    ModelUnavailable,
    ServerUnreachable,
)

__all__ = ["Pool"]

T = TypeVar("T")


class Pool:
    """The endpoints of one client. Safe to share between threads.

    Args:
        addresses: see :func:`galatea._wire.channel.check_address`.
        timeout: seconds that one call may take.

    Raises:
        InvalidInput: there is no address, one twice, or one that is none.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        security: Security,
        timeout: float,
        transport: TransportName,
        trace: Callable[[], Sequence[tuple[str, str]]],
    ) -> None:
        checked = [check_address(address) for address in addresses]
        if not checked or len(set(checked)) < len(checked):
            raise InvalidInput(
                f"{', '.join(checked) or 'no address'}: not a list of different servers",
                "give each server's host:port once",
            )
        self.endpoints = [
            Endpoint(address, security, timeout, transport, trace) for address in checked
        ]
        self._turn = itertools.count()

    @property
    def url(self) -> str:
        """All addresses, for messages."""
        return ", ".join(endpoint.address for endpoint in self.endpoints)

    @property
    def in_flight(self) -> int:
        """Requests that are on their way."""
        return sum(endpoint.in_flight for endpoint in self.endpoints)

    def close(self) -> None:
        """Closes all channels; calls that are on their way are cancelled."""
        for endpoint in self.endpoints:
            endpoint.close()

    def first(self, ask: Callable[[Endpoint], T]) -> T:
        """The first answer that an endpoint gives; those that have failed are asked last.

        Raises:
            GalateaError: none answers; of one that does, rather than of one that cannot be reached.
        """
        failures: list[GalateaError] = []
        for endpoint in sorted(self.endpoints, key=lambda endpoint: endpoint.rests_for):
            try:
                return ask(endpoint)
            except (ServerUnreachable, DeadlineExceeded) as error:
                if len(self.endpoints) > 1:
                    endpoint.failed()
                failures.append(error)
            except ModelUnavailable as error:
                failures.insert(0, error)
        raise failures[0]

    def pick(self, card: ModelCard, busy: Collection[Endpoint] = ()) -> Endpoint | None:
        """The endpoint with the fewest requests on their way; None while no one is usable.

        Args:
            busy: endpoints that get the request only if there is no other.
        """
        usable = [endpoint for endpoint in self.endpoints if endpoint.usable(card)]
        if not usable:
            return None
        turn = next(self._turn) % len(usable)
        return min(
            usable[turn:] + usable[:turn],
            key=lambda endpoint: (endpoint in busy, endpoint.in_flight),
        )

    def probes(self, card: ModelCard) -> list[Future[None]]:
        """Questions on their way that may make an endpoint usable."""
        return [probe for endpoint in self.endpoints for probe in endpoint.probes(card)]

    def has_others_only(self, card: ModelCard) -> bool:
        """Whether every endpoint is known to serve the model with another card."""
        return all(endpoint.has_other(card) for endpoint in self.endpoints)

    @property
    def rests_for(self) -> float:
        """Seconds until the first of the endpoints may be asked again."""
        return min(endpoint.rests_for for endpoint in self.endpoints)
