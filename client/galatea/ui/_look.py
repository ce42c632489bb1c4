"""How pixels are shown: channel, window and level, and a mask over them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea import _png, _tiles
from galatea.card import ModelCard
from galatea.errors import InvalidInput
from galatea.ui._query import Query, shortest

__all__ = ["Look", "full", "render", "source"]

COLOUR = np.array((255, 80, 60), np.float32)  # of a mask, RGB
FULL = {"UINT8": 255.0, "UINT16": 65535.0, "FP32": 1.0}


@dataclass(frozen=True)
class Look:
    """How an image is shown.

    Attributes:
        channel: the only one that is shown; None shows all.
        level, window: the middle and the width of the values that go from black to white, in the
            units of the image; None shows all that it can hold.
        mask: opacity of the mask, from 0 to 1.
    """

    channel: int | None = None
    level: float | None = None
    window: float | None = None
    mask: float = 0.0

    @classmethod
    def read(cls, query: Query, card: ModelCard) -> Look:
        """What an address says of it.

        Raises:
            InvalidInput: no such channel, no window, no opacity.
        """
        top, channels = full(card), len(card.image.channels)
        level, window = query.number("level", top / 2), query.number("window", top)
        if window <= 0:
            raise InvalidInput(f"a window of {window:g} shows nothing", "give more than 0")
        channel = query.whole("channel", -1, -1, channels - 1)
        return cls(
            None if channel < 0 or channels == 1 else channel,
            None if level == top / 2 else level,
            None if window == top else window,
            query.number("mask", 0.0, 0.0, 1.0) if card.mask is not None else 0.0,
        )

    def pairs(self) -> list[tuple[str, str]]:
        """The same for an address; what is usual is left out."""
        values = {"channel": self.channel, "level": self.level, "window": self.window}
        found = [(key, shortest(value)) for key, value in values.items() if value is not None]
        return found + ([("mask", shortest(self.mask))] if self.mask else [])


def full(card: ModelCard) -> float:
    """The largest value of an image: that which is white."""
    return FULL[card.image.dtype]


def render(
    image: NDArray[Any], mask: NDArray[np.uint8] | None, look: Look, card: ModelCard
) -> bytes:
    """A PNG file of an image.

    Channels that are no colours lie side by side, and so do the middle slices of a volume.

    Args:
        image: [H, W, C], or [X, Y, Z, C] of a volume; uint8, uint16 or float32.
        mask: the same with one channel; above 0 is inside.
    """
    pixels = image if look.channel is None else image[..., [look.channel]]
    shown = _tiles.panels(_levels(pixels, look, card))
    if mask is not None and look.mask:
        repeated = np.repeat((mask > 0).astype(np.uint8) * 255, pixels.shape[-1], axis=-1)
        inside = _tiles.panels(repeated)[:, :, :1] > 127
        mixed = shown * (1 - look.mask) + COLOUR * look.mask
        shown = np.where(inside, np.rint(mixed), shown).astype(np.uint8)
    return _encoded(shown)


def source(pixels: NDArray[Any]) -> bytes:
    """A PNG file of a picture as a model took it, uint8 or float32 of 0 … 1, [H, W, C]."""
    return _encoded(_tiles.panels(pixels))


def _encoded(shown: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    grey = bool((shown == shown[:, :, :1]).all())
    _png.picture(shown[:, :, :1] if grey else shown).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _levels(pixels: NDArray[Any], look: Look, card: ModelCard) -> NDArray[Any]:
    """The window as uint8; pixels as they are where nobody has chosen one."""
    if look.level is None and look.window is None:
        return pixels
    top = full(card)
    level = top / 2 if look.level is None else look.level
    window = top if look.window is None else look.window
    share = (pixels.astype(np.float32) - (level - window / 2)) / window
    levels: NDArray[np.uint8] = np.rint(share.clip(0, 1) * 255).astype(np.uint8)
    return levels
