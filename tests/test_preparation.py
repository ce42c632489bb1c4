"""Pictures are prepared for a model as its card says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.testing import data_path
from numpy.typing import NDArray
from PIL import Image

from galatea import InvalidInput
from galatea.card import Input, ModelCard, Output, Preparation
from galatea.pictures import Picture
from galatea.preparation import prepare

NIFTI = Path(str(data_path))
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (40, 30), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (40, 30, 3), dtype=np.uint8)
WIDE = RANDOM.integers(0, 4096, (40, 30), dtype=np.uint16)


def card(channels: int = 1, **rules: Any) -> ModelCard:
    """A card with a source of these channels, any size, and the rules of preparation."""
    preparation = Preparation(**rules)
    dtype: Any = "UINT8" if preparation.scale == "levels" else "FP32"
    names = tuple(f"c{k}" for k in range(channels))
    source = Input("source", dtype, shape=(-1, -1, channels), channels=names)
    image = Output("image", "UINT8", (-1, -1, 1), ("intensity",))
    return ModelCard("m", 1, "f", "image-to-image", (source,), (image,), preparation=preparation)


RESAMPLES = ("nearest", "box", "bilinear", "bicubic")


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("size", [(20, 25), (64, 48)])
def test_levels_are_resized_by_pillow(resample: str, size: tuple[int, int]) -> None:
    method = Image.Resampling[resample.upper()]
    for channels, pixels in ((1, GREY), (3, COLOUR)):
        expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], method))
        made = prepare(Picture("scan", pixels), card(channels, size=size, resample=resample))
        assert made.dtype == np.uint8
        assert np.array_equal(made, expected.reshape(*size, channels))


@pytest.mark.parametrize("resample", RESAMPLES)
def test_floats_are_resized_by_pillow_as_floats(resample: str) -> None:
    method = Image.Resampling[resample.upper()]
    scaled = (WIDE - np.float32(WIDE.min())) / np.float32(WIDE.max() - WIDE.min())
    expected = np.asarray(Image.fromarray(scaled).resize((25, 20), method))
    made = prepare(Picture("scan", WIDE), card(scale="minmax", size=(20, 25), resample=resample))
    assert made.dtype == np.float32
    assert np.array_equal(made[:, :, 0], expected)
    whole = prepare(Picture("scan", WIDE), card(scale="minmax"))
    assert (whole.min(), whole.max()) == (0, 1)


def test_min_max_after_resizing_spans_the_resized_picture() -> None:
    small = np.asarray(Image.fromarray(GREY).resize((12, 10), Image.Resampling.BICUBIC))
    expected = (small - np.float32(small.min())) / np.float32(small.max() - small.min())
    made = prepare(Picture("scan", GREY), card(scale="minmax-after", size=(10, 12)))
    assert np.array_equal(made[:, :, 0], expected)


@pytest.mark.parametrize(
    ("shape", "inside"), [((40, 30), (67, 50)), ((300, 30), (80, 8)), ((20, 100), (10, 50))]
)
def test_a_picture_is_fitted_inside_a_size(shape: tuple[int, int], inside: tuple[int, int]) -> None:
    picture = Picture("scan", np.zeros(shape, np.uint8))
    made = prepare(picture, card(size=(80, 50), fit="inside"))
    assert made.shape == (*inside, 1)
    # nothing is resized where it fits already
    fitting = Picture("scan", RANDOM.integers(0, 256, (80, 20), dtype=np.uint8))
    assert np.array_equal(
        prepare(fitting, card(size=(80, 50), fit="inside"))[:, :, 0], fitting.pixels
    )


def test_a_crop_to_a_multiple_keeps_the_top_left() -> None:
    made = prepare(Picture("scan", GREY), card(multiple=16))
    assert np.array_equal(made[:, :, 0], GREY[:32, :16])


def test_colours_become_grey_as_pillow_does_it_and_grey_becomes_colours() -> None:
    expected = np.asarray(Image.fromarray(COLOUR).convert("L"))
    assert np.array_equal(prepare(Picture("scan", COLOUR), card())[:, :, 0], expected)
    made = prepare(Picture("scan", GREY), card(3))
    assert np.array_equal(made, np.stack([GREY] * 3, -1))
    floats = prepare(Picture("scan", COLOUR / 255.0), card(scale="minmax"))
    assert np.abs(floats[:, :, 0] * np.ptp(expected) + expected.min() - expected).max() < 1.5


def test_each_channel_of_several_quantities_has_its_own_range() -> None:
    stack = RANDOM.normal(size=(9, 9, 4)) * [1, 10, 100, 1000] + [0, 5, 50, 500]
    made = prepare(Picture("scan", stack), card(4, scale="minmax"))
    assert made.min((0, 1)).tolist() == [0, 0, 0, 0]
    assert made.max((0, 1)).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("scale", ["levels", "minmax", "minmax-after"])
def test_a_picture_of_one_value_is_black(scale: str) -> None:
    made = prepare(Picture("scan", np.full((8, 8), 7.0)), card(scale=scale))
    assert not made.any()


@pytest.mark.parametrize(
    ("pixels", "rules", "problem"),
    [
        (GREY[:7], {"minimum": 8}, r"scan: 7 × 30 pixels are too few for m; .* at least 8 × 8"),
        (GREY[:3], {"multiple": 4}, r"scan: 3 × 30 pixels are too few for m, 0 × 28 after"),
        (COLOUR[:, :, :2], {}, "scan: 2 channels, where m takes 1: c0"),
        (GREY, {"channels": 4}, "scan: 1 channels, where m takes 4: c0, c1, c2, c3"),
    ],
)
def test_a_picture_that_does_not_suit_is_named(
    pixels: NDArray[Any], rules: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem):
        prepare(Picture("scan", pixels), card(**rules))
