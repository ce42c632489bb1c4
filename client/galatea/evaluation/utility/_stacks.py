"""Cases as arrays of one size, for trainings on pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from galatea.errors import InvalidInput
from galatea.evaluation._intensity import Intensity
from galatea.evaluation.utility._cases import Cases

__all__ = ["Stack", "common_channels", "stack"]


@dataclass(frozen=True, eq=False)
class Stack:
    """Images with masks.

    Attributes:
        images: uint8 [n, H, W, C], C 1 for grey ones, 3 for colours.
        masks: [n, H, W], true inside.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def stack(cases: Cases, intensity: Intensity, size: tuple[int, int]) -> Stack:
    """Brings all cases to one size: images bilinearly, masks by the nearest pixel.

    Args:
        size: (H, W).

    Raises:
        InvalidInput: an image does not suit the rule, or has no mask; it is named.
    """
    images = np.stack([_sized(intensity.apply(case.picture), size) for case in cases.cases])
    masks = np.stack([_sized(mask, size) > 0 for mask in cases.masks()])
    if not masks.any():
        raise InvalidInput(
            f"{cases.title}: all masks are empty", "give masks that are not 0 inside"
        )
    grey = (images == images[..., :1]).all()
    return Stack(images[..., :1] if grey else images, masks)


def common_channels(*stacks: Stack) -> list[Stack]:
    """Grey images three times where others have colours."""
    most = max(each.images.shape[-1] for each in stacks)
    return [
        replace(each, images=np.broadcast_to(each.images, (*each.images.shape[:3], most)))
        for each in stacks
    ]


def _sized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    if pixels.shape[:2] == size:
        return pixels
    kind = Image.Resampling.NEAREST if pixels.ndim == 2 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], kind))
