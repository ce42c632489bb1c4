"""Making the images of tiles, and keeping the last ones."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from galatea._conditions import needs_seed
from galatea.aio import AsyncClient
from galatea.card import ModelCard
from galatea.errors import GalateaError, InvalidInput, ModelUnavailable
from galatea.latents import Latents
from galatea.preparation import prepare
from galatea.samples import Samples
from galatea.ui import _directions, _settings
from galatea.ui._look import render, source
from galatea.ui._sources import Sources
from galatea.ui._tile import Tile, release, space

__all__ = ["Studio", "while_asked"]

T = TypeVar("T")

KEPT = 128 << 20  # bytes of images that are kept, for another look at them
BEFORE = ("label", "truncation", "truncation_cutoff")  # what a mapping stage takes


class Studio:
    """Samples what a tile asks for, with one client for all.

    Methods raise the errors of :class:`galatea.Client`.

    Args:
        client: of the servers whose models are shown.
        beside: of others, whose images may stand beside them.
    """

    def __init__(
        self, client: AsyncClient, beside: Sequence[AsyncClient], sources: Sources
    ) -> None:
        self.client, self.sources = client, sources
        self._clients = [client, *beside]
        self._homes: dict[tuple[str, str], AsyncClient] = {}
        self._kept: OrderedDict[Any, Samples] = OrderedDict()
        self._bytes = 0
        self._directions: dict[str, asyncio.Task[Any]] = {}

    async def newest(self, name: str) -> ModelCard:
        """The card of a model as it is served now."""
        card = await _newest(self.client, name)
        if card.task == "extractor":
            raise InvalidInput(f"{name} makes no images, but features of them", "begin at /")
        return card

    async def card(self, name: str, told: str) -> ModelCard:
        """The card of a release, from whichever server has it; else of what is served now."""
        for ask in (AsyncClient.model, _newest):
            for client in self._clients:
                with suppress(ModelUnavailable):
                    card = await ask(client, name)
                    if release(card) == told:
                        self._homes[name, told] = client
                        return card
        return await self.newest(name)

    async def comparable(self) -> dict[str, ModelCard]:
        """All models by what they are called when they stand beside another one.

        Those of other servers have their release in their name. A server that does not answer has
        none.
        """
        found = {card.name: card for card in await self.client.models()}
        for client in self._clients[1:]:
            with suppress(GalateaError):
                cards = await client.models()
                found |= {f"{card.name}@{release(card)}": card for card in cards}
        return {name: card for name, card in found.items() if card.source_picture is None}

    def _home(self, card: ModelCard) -> AsyncClient:
        return self._homes.get((card.name, release(card)), self.client)

    async def drawn(self, tile: Tile) -> bytes:
        """The PNG file of a tile."""
        if tile.shows_source:
            picture = await self.sources.picture(tile.source)
            return source(await asyncio.to_thread(prepare, picture, tile.card))
        samples = await self.made(tile)
        mask = None if samples.masks is None else samples.masks[0]
        return await asyncio.to_thread(render, samples.images[0], mask, tile.look, tile.card)

    async def made(self, tile: Tile) -> Samples:
        """The image of a tile, alone in its batch."""
        known = (tile.file("image"), tile.card.name)
        if known in self._kept:
            self._kept.move_to_end(known)
            return self._kept[known]
        samples = await self._make(tile)
        if known not in self._kept:  # another request may have been quicker
            self._bytes += _size(samples)
        self._kept[known] = samples
        while len(self._kept) > 1 and self._bytes > KEPT:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return samples

    async def _make(self, tile: Tile) -> Samples:
        client, name, settings = self._home(tile.card), tile.card.name, dict(tile.settings)
        if tile.source:
            picture = await self.sources.picture(tile.source)
            seed = tile.seeds[0] if needs_seed(tile.card, settings) else None
            return await client.translate(name, [picture], seed=seed, **settings)
        if tile.layers:
            return await self._synthesised(tile, "w", lambda keys: _mixed(keys, tile.layers))
        if tile.frames:
            return await self._synthesised(
                tile, tile.space, lambda keys: keys.interpolate(tile.frames)[tile.frame]
            )
        if any(tile.moves):
            directions = await self._found(tile.card)
            return await self._synthesised(
                tile, space(tile.card),
                lambda keys: _directions.moved(keys, directions, tile.moves),
            )  # fmt: skip
        return await client.sample(name, 1, seed=tile.seeds[0], **settings)

    async def _synthesised(
        self, tile: Tile, where: Any, change: Callable[[Latents], Latents]
    ) -> Samples:
        """The image of the latents of a tile's seeds after a change of these."""
        card = tile.card
        settings = _settings.of_place(card, tile.settings, 0)
        before = {k: v for k, v in settings.items() if where == "w" and k in BEFORE}
        behind = {k: v for k, v in settings.items() if k not in before}
        client = self._home(card)
        keys = await client.latent(card.name, tile.seeds, space=where, **before)
        return await client.synthesise(card.name, change(keys), **behind)

    async def _found(self, card: ModelCard) -> Any:
        """The directions of a model, which are looked for once."""
        told = f"{card.name} {release(card)}"
        task = self._directions.get(told)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = asyncio.create_task(_directions.find(self._home(card), card))
            self._directions[told] = task
        return await asyncio.shield(task)


async def while_asked(gone: Awaitable[None], work: Awaitable[T]) -> T | None:
    """The work's result; None, and the work is given up, once nobody asks for it any more."""
    waiting, working = asyncio.ensure_future(gone), asyncio.ensure_future(work)
    try:
        await asyncio.wait({waiting, working}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        waiting.cancel()
        working.cancel()
        await asyncio.gather(waiting, working, return_exceptions=True)


async def _newest(client: AsyncClient, name: str) -> ModelCard:
    """The card of a model as it is served now."""
    # A client keeps to a version that it knows for as long as that is there.
    client._session.forget(name)
    return await client.model(name)


def _mixed(keys: Latents, layers: tuple[int, ...]) -> Latents:
    return keys[[0]].mix(keys[[1]], layers)


def _size(samples: Samples) -> int:
    return samples.images.nbytes + (0 if samples.masks is None else samples.masks.nbytes)
