"""Masks that are drawn from a seed."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from nibabel.testing import data_path
from numpy.typing import NDArray

from galatea import InvalidInput, shapes
from galatea.pictures import Picture

NIFTI = Path(str(data_path))
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (40, 30), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (40, 30, 3), dtype=np.uint8)
WIDE = RANDOM.integers(0, 4096, (40, 30), dtype=np.uint16)


def test_shapes_are_decided_by_their_seed() -> None:
    four = shapes.masks(4, 96, "lobulated", seed=7)
    assert four.shape == (4, 96, 96)
    assert set(np.unique(four)) == {0, 255}
    assert np.array_equal(four[2], shapes.masks(1, 96, "lobulated", seed=9)[0])
    assert len({mask.tobytes() for mask in four}) == 4
    assert not np.array_equal(four, shapes.masks(4, 96, "oval", seed=7))


def test_shapes_are_the_same_for_ever() -> None:
    digest = hashlib.sha256()
    for kind in shapes.KINDS:
        digest.update(shapes.masks(3, 64, kind, seed=-1).tobytes())
        digest.update(shapes.masks(3, (256, 200), kind, seed=-1).tobytes())
    assert digest.hexdigest()[:16] == "b518531156a602af"


@pytest.mark.parametrize("kind", shapes.KINDS)
@pytest.mark.parametrize("size", [(64, 64), (200, 90)])
def test_a_shape_is_one_piece_that_keeps_off_the_border(
    kind: shapes.Kind, size: tuple[int, int]
) -> None:
    for mask in shapes.masks(50, size, kind):
        inside = np.pad(mask > 0, 1)
        assert not inside[[1, -2]].any()
        assert not inside[:, [1, -2]].any()
        assert 0.02 < (mask > 0).mean() < 0.5
        # what spreads from one pixel of it reaches all of it
        reached = np.zeros_like(inside)
        reached[tuple(np.argwhere(inside)[0])] = True
        while True:
            wider = reached.copy()
            for axis, step in itertools.product((0, 1), (-1, 1)):
                wider |= np.roll(reached, step, axis)
            wider &= inside
            if np.array_equal(wider, reached):
                break
            reached = wider
        assert np.array_equal(reached, inside)


def test_lobulated_shapes_have_notches_and_ovals_have_none() -> None:
    def solidity(mask: NDArray[np.uint8]) -> float:
        """Share of pixels between the ends of each row and column that are inside."""
        rows = mask > 0
        hull = np.zeros_like(rows)
        for axis in (0, 1):
            forward = np.maximum.accumulate(rows, axis)
            backward = np.flip(np.maximum.accumulate(np.flip(rows, axis), axis), axis)
            hull |= forward & backward
        return float(rows.sum() / hull.sum())

    ovals, lobes = (
        np.mean([solidity(mask) for mask in shapes.masks(30, 128, kind)]) for kind in shapes.KINDS
    )
    assert ovals > 0.998
    assert lobes < 0.99


def test_shapes_are_filled_with_patches_of_two_textures() -> None:
    mask = shapes.masks(1, 100, "oval", seed=1)[0]
    inside = Picture("in", RANDOM.integers(128, 256, (40, 50), dtype=np.uint8))
    outside = Picture("out", RANDOM.integers(0, 128, (32, 32, 3), dtype=np.uint8))
    filled = shapes.textured(mask, inside, outside, seed=1)
    assert filled.shape == (100, 100)
    assert np.array_equal(filled > 127, mask > 0)
    tiles = np.tile(np.round(outside.pixels.mean(2)), (4, 4))[:100, :100]
    assert np.array_equal(filled[mask == 0], tiles[mask == 0])  # one way to cut 32 × 32 of it
    assert np.array_equal(filled, shapes.textured(mask, inside, outside, seed=1))
    assert not np.array_equal(filled, shapes.textured(mask, inside, outside, seed=2))


def test_shapes_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no shape 'square'"):
        shapes.masks(1, 64, "square")  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(InvalidInput, match="0 masks"):
        shapes.masks(0, 64)
    with pytest.raises(InvalidInput, match="at least 16 × 16"):
        shapes.masks(1, 15)
    with pytest.raises(InvalidInput, match="small: 40 × 30 pixels are too few for a texture"):
        shapes.textured(shapes.masks(1, 64)[0], Picture("small", GREY), Picture("out", GREY))
