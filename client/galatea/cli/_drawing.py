"""Pictures of many samples: sheets with headings, and animations."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea import _png, _tiles
from galatea.samples import Samples

Pixels = NDArray[np.uint8]

HEIGHT = 14  # pixels of the headings' letters
MARGIN = 8  # pixels around a heading
GREY = 200
TITLE, SOFTWARE = 0x010E, 0x0131  # Exif's ImageDescription and Software


def tiles(samples: Samples) -> list[Pixels]:
    """Each image as RGB [H, W, 3]."""
    return [_tiles.panels(image) for image in samples.images]


def headed(
    pictures: Sequence[Pixels], rows: Sequence[str], columns: Sequence[str], corner: str
) -> Pixels:
    """Pictures of one size in rows and columns with headings in ASCII, [H, W, 3].

    Small pictures are enlarged by a whole factor, so that the headings have room.

    Args:
        corner: what the columns are, left of their headings.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(HEIGHT)
    widest = max(font.getlength(text) for text in columns) + MARGIN
    factor = max(1, -int(-widest // pictures[0].shape[1]))
    large = [picture.repeat(factor, 0).repeat(factor, 1) for picture in pictures]
    sheet = _tiles.sheet(large, len(columns))
    left = round(max(font.getlength(text) for text in (corner, *rows))) + 2 * MARGIN
    top = HEIGHT + 2 * MARGIN
    canvas = Image.new("RGB", (left + sheet.width, top + sheet.height))
    canvas.paste(sheet, (left, top))
    draw = ImageDraw.Draw(canvas)
    height, width = (side + _tiles.GAP for side in large[0].shape[:2])
    places = [(left + (k + 0.5) * width, top / 2, "mm") for k in range(len(columns))]
    places += [(left - MARGIN, top + (k + 0.5) * height, "rm") for k in range(len(rows))]
    places += [(left - MARGIN, top / 2, "rm")]
    for (x, y, anchor), text in zip(places, (*columns, *rows, corner), strict=True):
        draw.text((x, y), text, (GREY,) * 3, font, anchor=anchor)
    return np.asarray(canvas)


def animation(samples: Samples, suffix: str, fps: float, facts: Mapping[str, str]) -> bytes:
    """The samples one after the other, again and again, as a file of the kind `suffix`.

    GIF holds 256 colours a frame, which is all that grey images have; WebP is without loss.
    """
    from PIL import Image

    grey = samples.images.shape[-1] != 3
    frames = [_png.picture(tile[:, :, :1] if grey else tile) for tile in tiles(samples)]
    told: dict[str, Any] = {"comment": json.dumps(facts).encode()}
    if suffix == ".webp":
        exif = Image.Exif()
        exif[TITLE], exif[SOFTWARE] = json.dumps(facts), facts["Software"]
        told = {"exif": exif, "lossless": True}
    buffer = io.BytesIO()
    frames[0].save(
        buffer, suffix[1:].upper(), save_all=True, append_images=frames[1:],
        duration=round(1000 / fps), loop=0, **told,
    )  # fmt: skip
    return buffer.getvalue()


def shared_facts(samples: Samples) -> dict[str, str]:
    """The provenance that all samples have in common."""
    first, *others = [samples.provenance(i) for i in range(len(samples))]
    return {
        key: value
        for key, value in first.items()
        if value and all(other.get(key) == value for other in others)
    }
