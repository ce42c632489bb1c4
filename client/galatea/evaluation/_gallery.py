"""The pictures of a report: some images of each kind, and the pairs that are closest."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from galatea import _tiles
from galatea.evaluation._intensity import Intensity
from galatea.evaluation._run import Evaluation
from galatea.evaluation._sources import Source

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["pairs", "samples"]

SIDE = 112  # pixels of a thumbnail
SHOWN, ACROSS = 24, 8
PAIRS = 8


def samples(evaluation: Evaluation, kind: str) -> bytes:
    """PNG of images of one kind, evenly spread over all of them."""
    n = len(evaluation.places[kind])
    chosen = np.unique(np.linspace(0, n - 1, min(n, SHOWN)).round().astype(int)).tolist()
    return _png(_tiles.sheet(_tiles_of(evaluation.sources[kind], chosen, evaluation), ACROSS))


def pairs(evaluation: Evaluation, k: int) -> bytes:
    """PNG of the closest pairs of a judgement: synthetic images above their training images."""
    closest = evaluation.report.memorisation[k].pairs[:PAIRS]
    rows = []
    for kind, names in (
        ("synthetic", [pair.synthetic for pair in closest]),
        ("training", [pair.training for pair in closest]),
    ):
        places = [evaluation.places[kind][name] for name in names]
        rows += _tiles_of(evaluation.sources[kind], places, evaluation)
    return _png(_tiles.sheet(rows, len(closest)))


def _tiles_of(
    source: Source, places: Sequence[int], evaluation: Evaluation
) -> list[NDArray[np.uint8]]:
    found = source.pick(places)
    return [_thumbnail(found[place].picture, evaluation.intensity) for place in places]


def _thumbnail(picture: Any, intensity: Intensity) -> NDArray[np.uint8]:
    """uint8 [SIDE, SIDE, 3], the whole picture in its own proportions."""
    from PIL import Image, ImageOps

    image = Image.fromarray(np.ascontiguousarray(intensity.apply(picture)))
    return np.asarray(ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.BICUBIC))


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
