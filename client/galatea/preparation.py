"""From any picture to the array that a model takes, as its card says.

The card's :class:`~galatea.card.Preparation` is upstream's way to feed its network. docs/wire.md
tells it step by step, for callers in other languages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.card import Input, ModelCard, Preparation
from galatea.errors import InvalidInput
from galatea.pictures import Picture

__all__ = ["prepare"]


def prepare(picture: Picture, card: ModelCard) -> NDArray[Any]:
    """The picture as the model's ``source``, uint8 or float32 [H, W, C].

    Raises:
        InvalidInput: the picture is too small, of another size than the model takes, or of other
            channels; the picture is named.
    """
    source, rules = card.source_picture, card.preparation or Preparation()
    assert source is not None
    levels = rules.scale == "levels"
    array = picture.to_levels() if levels else picture.pixels
    array = _channels(_wide(array), source, picture.name, card.name)
    if rules.scale == "minmax":
        array = _min_max(array)
    array = _resize(array, rules)
    if rules.scale == "minmax-after":
        array = _min_max(array)
    height, width = (side - side % rules.multiple for side in array.shape[:2])
    array = array[:height, :width]
    if min(height, width) < max(1, rules.minimum):
        raise InvalidInput(
            f"{picture.name}: {_size(picture.pixels)} pixels are too few for {card.name}"
            + (f", {_size(array)} after preparation" if rules.size or rules.multiple > 1 else ""),
            f"give pictures of at least {rules.minimum} × {rules.minimum}",
        )
    if any(wanted not in (-1, got) for wanted, got in zip(source.shape, array.shape, strict=True)):
        raise InvalidInput(
            f"{picture.name}: {_size(array)} pixels, where {card.name} takes "
            f"{source.shape[0]} × {source.shape[1]}",
            "resize the picture",
        )
    return np.ascontiguousarray(array)


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    """[H, W, C], in uint8 or float32, which Pillow resizes."""
    array = array[:, :, None] if array.ndim == 2 else array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def _channels(array: NDArray[Any], source: Input, name: str, model: str) -> NDArray[Any]:
    got, wanted = array.shape[2], source.shape[2]
    if got == wanted:
        return array
    if got == 1 and wanted == 3:
        return np.repeat(array, 3, 2)
    if got == 3 and wanted == 1:
        return _luma(array)[:, :, None]
    raise InvalidInput(
        f"{name}: {got} channels, where {model} takes {wanted}: {', '.join(source.channels)}",
        "give arrays [H, W, C] with these channels, or one file each with --channel NAME=PATH",
    )


def _luma(array: NDArray[Any]) -> NDArray[Any]:
    """ITU-R 601-2 luma, for levels with Pillow's rounding."""
    from PIL import Image

    if array.dtype == np.uint8:
        return np.asarray(Image.fromarray(array).convert("L"))
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return array @ weights


def _min_max(array: NDArray[Any]) -> NDArray[np.float32]:
    """Smallest value → 0, largest → 1; all 0 where there is but one.

    Grey and colour pictures as a whole; of any other number of channels each one for itself, since
    these are different quantities.
    """
    axes = None if array.shape[2] in (1, 3) else (0, 1)
    values = array.astype(np.float32)
    low, high = (end(values, axis=axes, keepdims=True) for end in (np.min, np.max))
    span = np.where(high > low, high - low, 1).astype(np.float32)
    scaled: NDArray[np.float32] = (values - low) / span
    return scaled


def _resize(array: NDArray[Any], rules: Preparation) -> NDArray[Any]:
    if not rules.size:
        return array
    from PIL import Image, ImageOps

    height, width = rules.size
    method = Image.Resampling[rules.resample.upper()]
    bands = []
    for k in range(array.shape[2]):
        band = Image.fromarray(np.ascontiguousarray(array[:, :, k]))  # mode L or F
        if rules.fit == "inside":
            band = ImageOps.contain(band, (width, height), method)
        else:
            band = band.resize((width, height), method)
        bands.append(np.asarray(band))
    return np.stack(bands, -1)


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[0]} × {array.shape[1]}"
