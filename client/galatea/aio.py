"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

from galatea._flow import Wait
from galatea._progress import Made
from galatea._session import Steps
from galatea.card import ModelCard
from galatea.client import Client
from galatea.latents import Latents
from galatea.measured import Measured
from galatea.samples import Samples

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """:class:`galatea.Client` for coroutines: same arguments, same results, same errors.

    Only the waiting differs. Cancelling a task gives up what it has on its way. Several clients may
    be used in one event loop, but each in one alone.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._client = Client(*args, **options)
        self._session = self._client._session

    async def close(self) -> None:
        """Closes the connections."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def models(self) -> list[ModelCard]:
        """See :meth:`galatea.Client.models`."""
        return await asyncio.to_thread(self._client.models)

    async def search(self, words: str = "", **filters: str) -> list[ModelCard]:
        """See :meth:`galatea.Client.search`."""
        return await asyncio.to_thread(self._client.search, words, **filters)

    async def model(self, name: str) -> ModelCard:
        """See :meth:`galatea.Client.model`."""
        return await asyncio.to_thread(self._client.model, name)

    async def measured(self, name: str) -> Measured | None:
        """See :meth:`galatea.Client.measured`."""
        return await asyncio.to_thread(self._client.measured, name)

    async def sample(self, name: str, n: int | None = None, **arguments: Any) -> Samples:
        """See :meth:`galatea.Client.sample`."""
        return await _last(self._session.sample, name, n, **arguments)

    async def translate(self, name: str, images: Any, **arguments: Any) -> Samples:
        """See :meth:`galatea.Client.translate`."""
        return await _last(self._session.translate, name, images, **arguments)

    async def latent(self, name: str, seeds: int | Iterable[int], **arguments: Any) -> Latents:
        """See :meth:`galatea.Client.latent`; a task that is cancelled lets it be finished."""
        return await asyncio.to_thread(self._client.latent, name, seeds, **arguments)

    async def synthesise(self, name: str, latents: Latents, **arguments: Any) -> Samples:
        """See :meth:`galatea.Client.synthesise`; a task that is cancelled lets it be finished."""
        return await asyncio.to_thread(self._client.synthesise, name, latents, **arguments)

    def stream(self, name: str, n: int | None = None, **arguments: Any) -> AsyncIterator[Samples]:
        """See :meth:`galatea.Client.stream`; a mistake is told at the first batch."""
        return _told(self._session.stream, name, n, **arguments)

    def translate_stream(self, name: str, images: Any, **arguments: Any) -> AsyncIterator[Samples]:
        """See :meth:`galatea.Client.translate_stream`; a mistake is told at the first batch."""
        return _told(self._session.translate_stream, name, images, **arguments)


async def _drive(
    begin: Callable[..., Steps[T]], *args: Any, **arguments: Any
) -> AsyncGenerator[T, None]:
    """What a flow yields but the waiting, which the event loop does.

    A step may read a picture or ask for a card, so each is taken in a thread.
    """
    steps = await asyncio.to_thread(begin, *args, **arguments)
    alarm = _Alarm()
    try:
        while (step := await _finished(asyncio.to_thread(next, steps, None))) is not None:
            if isinstance(step, Wait):
                await alarm.ring(step)
            else:
                yield step
    finally:
        steps.close()


async def _finished(step: Any) -> Any:
    """The result of a thread; a task that is cancelled ends after it, because it cannot be left."""
    running = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise


class _Alarm:
    """Wakes a coroutine when one of some futures is done; each is asked to once."""

    def __init__(self) -> None:
        self._loop, self._rings = asyncio.get_running_loop(), asyncio.Event()
        self._asked: WeakSet[Future[Any]] = WeakSet()

    async def ring(self, step: Wait) -> None:
        """Waits as the step says."""
        self._rings.clear()
        for future in step.futures:
            if future not in self._asked:
                self._asked.add(future)
                future.add_done_callback(self._wake)
        if any(future.done() for future in step.futures):
            return
        # Python 3.11's wait_for swallows a cancellation that comes as the waiting ends.
        with suppress(TimeoutError):
            async with asyncio.timeout(step.seconds):
                await self._rings.wait()

    def _wake(self, _: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed, nobody waits any more
            self._loop.call_soon_threadsafe(self._rings.set)


async def _told(
    begin: Callable[..., Steps[Any]],
    *args: Any,
    on_step: Callable[[int, int], None] | None = None,
    **arguments: Any,
) -> AsyncGenerator[Any, None]:
    """What is yielded, but how far all is, which is told."""
    if on_step is not None:
        arguments["stepwise"] = True
    async with aclosing(_drive(begin, *args, **arguments)) as items:
        async for item in items:
            if not isinstance(item, Made):
                yield item
            elif on_step is not None:
                on_step(item.calls, item.of)


async def _last(
    begin: Callable[..., Steps[int | Samples | Made]], *args: Any, **arguments: Any
) -> Samples:
    progress = arguments.pop("progress", lambda images: None)
    made: Samples | None = None
    async with aclosing(_told(begin, *args, **arguments)) as items:
        async for item in items:
            if isinstance(item, Samples):
                made = item
            else:
                progress(item)
    assert made is not None
    return made
