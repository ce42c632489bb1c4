"""One picture: everything that made it, as an address."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from galatea.card import ModelCard
from galatea.errors import InvalidInput, ModelUnavailable
from galatea.latents import Space
from galatea.ui import _settings
from galatea.ui._look import Look
from galatea.ui._query import Query, address, shortest, wholes
from galatea.ui._settings import Settings

__all__ = [
    "FARTHEST",
    "FRAMES",
    "SEEDS",
    "SLIDERS",
    "Tile",
    "has_latents",
    "layers",
    "release",
    "space",
]

RENDERING = 1  # goes up when equal addresses begin to give other pixels
SEEDS, FRAMES, SLIDERS, FARTHEST = 32, 64, 8, 4.0


@dataclass(frozen=True)
class Tile:
    """One picture.

    Attributes:
        card: of the model.
        seeds: one; of a walk those it leads over; of a mixture that of the image, and that of which
            some layers have their styles.
        settings: the conditions that are not the default.
        moves: how far along each direction, in standard deviations.
        space, frame, frames: of a walk: through which latents, and which of how many images.
        layers: of a mixture, counted from 0.
        source: of a translation, the digest of the picture.
        shows_source: that picture is shown, as the model took it.
        look: how the image is shown.
    """

    card: ModelCard
    seeds: tuple[int, ...]
    settings: Settings = field(default_factory=dict)
    moves: tuple[float, ...] = ()
    space: Space = "z"
    frame: int = 0
    frames: int = 0
    layers: tuple[int, ...] = ()
    source: str = ""
    shows_source: bool = False
    look: Look = field(default_factory=Look)

    @classmethod
    def read(cls, card: ModelCard, told: str, seeds: str, query: Query) -> Tile:
        """What an address says.

        Args:
            told: the release that it names.

        Raises:
            InvalidInput: something is not what it has to be.
            ModelUnavailable: the address is of another release than that which is served.
        """
        if told != release(card):
            raise ModelUnavailable(
                f"{card.name} {told} is not served any more, but {release(card)}",
                f"open /models/{card.name}",
            )
        frames = query.whole("frames", 0, 0, FRAMES)
        return cls(
            card,
            wholes("seeds", seeds, SEEDS),
            _settings.read(query, card),
            moves(query),
            "w" if query.choice("space", "zw") == "w" else "z",
            query.whole("frame", 0, 0, max(0, frames - 1)),
            frames,
            layers(query.text("layers"), card),
            query.text("source"),
            query.choice("show", ("image", "source")) == "source",
            Look.read(query, card),
        )

    def pairs(self) -> list[tuple[str, str]]:
        """What made the picture, for an address."""
        found = _settings.pairs(self.card, self.settings)
        if any(self.moves):
            found.append(("moves", ",".join(map(shortest, self.moves))))
        if self.frames:
            found += [("space", self.space), ("frame", str(self.frame))]
            found.append(("frames", str(self.frames)))
        if self.layers:
            found.append(("layers", ",".join(map(str, self.layers))))
        if self.source:
            found.append(("source", self.source))
        return found

    def address(self) -> str:
        """Of the picture as it is shown."""
        seeds = ",".join(map(str, self.seeds))
        path = ("tiles", self.card.name, release(self.card), f"{seeds}.png")
        shown = [("show", "source")] if self.shows_source else self.look.pairs()
        return address(path, self.pairs() + shown)

    def file(self, kind: str) -> str:
        """Address of a file to keep: "image", "mask" or "dicom"."""
        seeds = ",".join(map(str, self.seeds))
        return address(("files", self.card.name, release(self.card), seeds, kind), self.pairs())


def release(card: ModelCard) -> str:
    """A model's version with a digest of its card, which holds those of its graphs."""
    content = f"{RENDERING} {card.to_json()}"
    return f"{card.version}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def has_latents(card: ModelCard) -> bool:
    """Whether the images of a model are made of latents."""
    return "noise" in card.graphs and card.source_picture is None and card.steps is None


def space(card: ModelCard) -> Space:
    """The space of a model's latents in which directions mean most."""
    return "w" if "mapping" in card.graphs else "z"


def moves(query: Query) -> tuple[float, ...]:
    """How far to go along each direction: all of them in one value, or each by its number.

    Raises:
        InvalidInput: they are no numbers, too many, or too large.
    """
    values = dict(enumerate(query.text("moves").split(",")) if query.text("moves") else ())
    if len(values) > SLIDERS:
        raise InvalidInput(f"there are {len(values)} moves", f"give at most {SLIDERS}")
    each = Query({f"direction {k + 1}": value for k, value in values.items()})
    found = [
        each.number(f"direction {k + 1}", query.number(f"d{k + 1}", 0.0, -FARTHEST, FARTHEST),
                    -FARTHEST, FARTHEST)
        for k in range(SLIDERS)
    ]  # fmt: skip
    while found and not found[-1]:
        found.pop()
    return tuple(found)


def layers(text: str, card: ModelCard) -> tuple[int, ...]:
    """Layers as ``4-7,9``; none without a text.

    Raises:
        InvalidInput: they are none that the model has.
    """
    if not text:
        return ()
    count = depth(card)
    chosen: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise InvalidInput(f"layers are {text[:80]!r}", "write them as 4-7,9")
        chosen |= set(range(int(first), min(int(last or first), count) + 1))
    if not chosen or max(chosen) >= count:
        raise InvalidInput(
            f"{card.name} has no layers {text[:80]}",
            f"choose some of 0-{count - 1}" if count else "it has no styles to mix",
        )
    return tuple(sorted(chosen))


def depth(card: ModelCard) -> int:
    """How many layers have styles; 0 without a mapping stage."""
    cutoff = next((entry for entry in card.inputs if entry.name == "truncation_cutoff"), None)
    return 0 if cutoff is None or space(card) == "z" else int(cutoff.maximum or 0)
