"""What the page of a model shows: its state, which is the page's address."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from galatea.card import ModelCard
from galatea.errors import InvalidInput
from galatea.latents import Space
from galatea.latents._latents import ranges
from galatea.search import size
from galatea.ui import _settings
from galatea.ui._look import Look
from galatea.ui._query import Query, address, shortest
from galatea.ui._settings import Settings
from galatea.ui._tile import FRAMES, SEEDS, Tile, depth, has_latents, layers, moves

__all__ = ["MOST", "View", "modes"]

MOST = 64  # images of a page
FRAME_COUNT = 8
MIXED = 8  # rows, and columns, of a sheet of mixtures


@dataclass(frozen=True)
class View:
    """What a page shows.

    Attributes:
        card: of the model.
        mode: "grid", "walk", "mixing" or "translate".
        seed, n: the first seed of a grid, and how many images it has.
        seeds: of a walk, or the rows of a sheet of mixtures.
        columns: seeds that give the styles of a mixture.
        frames, space: of a walk.
        layers: of a mixture.
        settings: conditions that are not the default.
        moves: along directions, of a grid.
        look: how images are shown.
        beside, other: the model whose images stand beside those of a grid: what it is called, and
            its card.
        source: digest of the picture that is translated.
    """

    card: ModelCard
    mode: str
    seed: int = 0
    n: int = 1
    seeds: tuple[int, ...] = (0, 1, 2)
    columns: tuple[int, ...] = ()
    frames: int = FRAME_COUNT
    space: Space = "z"
    layers: tuple[int, ...] = ()
    settings: Settings = field(default_factory=dict)
    moves: tuple[float, ...] = ()
    look: Look = field(default_factory=Look)
    beside: str = ""
    other: ModelCard | None = None
    source: str = ""

    @classmethod
    def read(cls, card: ModelCard, query: Query, cards: Mapping[str, ModelCard]) -> View:
        """What an address says.

        Args:
            cards: of the models that may stand beside this one.

        Raises:
            InvalidInput: something is not what it has to be.
        """
        mode = query.choice("mode", modes(card))
        seed, n = query.whole("seed", 0), query.whole("n", usual(card), 1, MOST)
        n = min(n, 2**63 - seed)
        view = cls(
            card, mode, settings=_settings.read(query, card), look=Look.read(query, card), seed=seed
        )
        if mode == "grid":
            name = query.text("with")
            if name and name not in cards:
                raise InvalidInput(f"no model {name!r} to compare with", "choose one of the list")
            shown = moves(query) if has_latents(card) else ()
            return replace(view, n=n, moves=shown, beside=name, other=cards.get(name))
        if mode == "translate":
            n = n if query.text("n") and _has_seed(card) else 1
            return replace(view, n=n, source=query.text("source"))
        if mode == "walk":
            seeds = query.wholes("seeds", (0, 1, 2), SEEDS)
            if len(seeds) < 2:
                raise InvalidInput("one seed is no walk", "give at least 2 seeds")
            where: Space = "z"
            if "mapping" in card.graphs and query.choice("space", ("w", "z")) == "w":
                where = "w"
            frames = query.whole("frames", FRAME_COUNT, 2, FRAMES)
            return replace(view, seeds=seeds, frames=frames, space=where)
        chosen = layers(query.text("layers"), card) or tuple(range(depth(card) // 2, depth(card)))
        rows = query.wholes("seeds", (0, 1, 2), MIXED)
        columns = query.wholes("columns", rows, MIXED)
        return replace(view, seeds=rows, columns=columns, layers=chosen)

    def address(self) -> str:
        """Of the page."""
        return address(("models", self.card.name, self.card.version), self._pairs())

    def turned(self, pages: int) -> str | None:
        """Address of the page so many further; None where there are no such seeds."""
        first = self.seed + pages * self.n
        if self.mode != "grid" or not -(2**63) <= first <= 2**63 - self.n:
            return None
        return replace(self, seed=first).address()

    def in_mode(self, mode: str) -> str:
        """Address of the same conditions in another mode."""
        kept = View(self.card, mode, settings=self.settings, look=self.look)
        start = (self.seed, self.seed + 1, self.seed + 2) if self.mode == "grid" else self.seeds
        columns = start if mode == "mixing" else ()
        chosen = tuple(range(depth(self.card) // 2, depth(self.card)))
        where: Space = "w" if "mapping" in self.card.graphs else "z"
        return replace(
            kept, seed=start[0], n=usual(self.card), seeds=start[:MIXED], columns=columns[:MIXED],
            layers=chosen, space=where,
        ).address()  # fmt: skip

    def tiles(self) -> list[Tile]:
        """All pictures, row by row; of two models each image beside the other's."""
        missing = _settings.missing(self.card, self.settings)
        if missing or (self.mode == "translate" and not self.source):
            return []
        if self.mode == "walk":
            return [
                Tile(self.card, self.seeds, self._of(0), space=self.space, frame=k,
                     frames=self.frames, look=self.look)
                for k in range(self.frames)
            ]  # fmt: skip
        if self.mode == "mixing":
            return [
                Tile(self.card, (row, column), self._of(0), layers=self.layers, look=self.look)
                for row in self.seeds
                for column in self.columns
            ]
        tiles = []
        if self.source:
            tiles.append(
                Tile(self.card, (self.seed,), self._of(0), source=self.source, shows_source=True)
            )
        for k in range(self.n):
            seeds = (self.seed + k,)
            tiles.append(
                Tile(self.card, seeds, self._of(k), self.moves, source=self.source, look=self.look)
            )
            if self.other is not None:
                mine = _settings.suited(self.other, self._of(k))
                tiles.append(Tile(self.other, seeds, _settings.of_place(self.other, mine, k)))
        return tiles

    def _of(self, place: int) -> Settings:
        return _settings.of_place(self.card, self.settings, place)

    def _pairs(self) -> list[tuple[str, str]]:
        pairs = [] if self.mode == modes(self.card)[0] else [("mode", self.mode)]
        if self.mode in ("grid", "translate"):
            pairs += [("seed", str(self.seed)), ("n", str(self.n))]
        else:
            pairs.append(("seeds", ",".join(map(str, self.seeds))))
        if self.mode == "walk":
            pairs.append(("frames", str(self.frames)))
            pairs += [("space", self.space)] if "mapping" in self.card.graphs else []
        if self.mode == "mixing":
            pairs.append(("columns", ",".join(map(str, self.columns))))
            pairs.append(("layers", ranges(self.layers)))
        pairs += _settings.pairs(self.card, self.settings)
        pairs += [(f"d{k + 1}", shortest(x)) for k, x in enumerate(self.moves) if x]
        pairs += self.look.pairs()
        pairs += [("with", self.beside)] if self.beside else []
        pairs += [("source", self.source)] if self.source else []
        return pairs


def modes(card: ModelCard) -> list[str]:
    """What can be done with a model, the usual first."""
    if card.source_picture is not None:
        return ["translate"]
    if not has_latents(card):
        return ["grid"]
    return ["grid", "walk", *(["mixing"] if depth(card) else [])]


def usual(card: ModelCard) -> int:
    """How many images a page shows, unless it is asked for another number."""
    if card.source_picture is not None or card.steps is not None:
        return 1
    height, width = size(card) or (256, 256)
    return 12 if math.prod((height, width)) <= 256 * 256 else 6


def _has_seed(card: ModelCard) -> bool:
    return any(entry.name == "seed" for entry in card.inputs)
