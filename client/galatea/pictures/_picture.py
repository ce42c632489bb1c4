"""One picture, whatever it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from galatea.errors import InvalidInput

__all__ = ["Picture", "as_picture", "stretch"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with its name.

    Attributes:
        name: what the results are named by; a ``/`` in it is a folder.
        pixels: [H, W] or [H, W, C] of any real numbers, in the units of the file.
        levels: the same as uint8 the way the file wants it seen (a DICOM window), where it says so.
        mask: uint8 [H, W], 255 inside and 0 outside, where a segmentation belongs to the picture;
            it goes with the result of a translation that keeps the picture's size.

    Raises:
        InvalidInput: no such array, or not all of its values are finite.
    """

    name: str
    pixels: NDArray[Any]
    levels: NDArray[np.uint8] | None = None
    mask: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.ndim not in (2, 3) or not pixels.size or pixels.dtype.kind not in "buif":
            raise InvalidInput(
                f"{self.name}: {pixels.dtype} {list(pixels.shape)} is no picture",
                "give numbers of the shape [H, W] or [H, W, C]",
            )
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise InvalidInput(
                f"{self.name}: some pixels are no finite numbers", "replace NaN and infinity first"
            )

    def to_levels(self) -> NDArray[np.uint8]:
        """The picture in 8-bit levels 0 … 255.

        Levels that the file asks for come first; 8-bit pixels are levels already; False and True
        become 0 and 255; anything wider is stretched from its smallest to its largest value.
        """
        if self.levels is not None:
            return self.levels
        if self.pixels.dtype == np.uint8:
            return cast("NDArray[np.uint8]", self.pixels)
        return stretch(self.pixels, float(self.pixels.min()), float(self.pixels.max()))


def stretch(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """`low` and below → 0, `high` and above → 255, rounded; all 0 where the two are equal."""
    if not low < high:
        return np.zeros(values.shape, np.uint8)
    share: NDArray[np.float64] = (values.astype(np.float64) - low) / (high - low)
    levels: NDArray[np.uint8] = np.rint(share.clip(0, 1) * 255).astype(np.uint8)
    return levels


def as_picture(item: Any, name: str) -> Picture:
    """A picture, an array or a Pillow image as a picture.

    Raises:
        InvalidInput: it is none of them.
    """
    from PIL import Image

    if isinstance(item, Picture):
        return item
    if isinstance(item, Image.Image):
        return Picture(name, from_pillow(item))
    if not hasattr(item, "__array__"):
        raise InvalidInput(
            f"{item!r:.60} is no picture",
            "give a path, an array, a Pillow image or a galatea.pictures.Picture",
        )
    return Picture(name, np.asarray(item))


def from_pillow(image: Any) -> NDArray[Any]:
    """The pixels of a Pillow image: grey as it is, everything else as RGB; alpha is dropped."""
    if image.mode in ("L", "F") or image.mode.startswith("I"):
        return np.asarray(image)
    grey = image.mode in ("1", "LA", "La")
    return np.asarray(image.convert("L" if grey else "RGB"))
