"""Noise v1: from a seed to a standard normal latent, exact to the bit on every platform.

Words come from Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3"), keyed by the seed; a table of half-normal quantiles with linear interpolation turns a
word into a normal. Only integers, one table and single float32 operations are used, no
transcendental function, so NumPy, PyTorch, ONNX Runtime and Triton give equal bytes.

This is the NumPy reference; :class:`galatea_exporter.noise_graph.Noise` is the same as a graph.
"""

from __future__ import annotations

from functools import cache
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
ROUNDS = 20


@cache
def quantiles() -> NDArray[np.float32]:
    """The 65,537 half-normal quantiles Φ⁻¹(½ + k/131072), the last one finite."""
    # A path and no resource: on servers the file lies beside this one, in no package.
    table: NDArray[np.float32] = np.load(Path(__file__).with_name("noise_v1.npy"))
    table.flags.writeable = False
    return table


def threefry2x32(
    key: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    counter: tuple[NDArray[np.uint32], NDArray[np.uint32]],
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Two words for each pair of key and counter words (all uint32, broadcast together)."""
    keys = (*key, key[0] ^ key[1] ^ np.uint32(PARITY))
    x0, x1 = counter[0] + keys[0], counter[1] + keys[1]
    for block in range(ROUNDS // 4):
        for rotation in ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = (x1 << np.uint32(rotation)) | (x1 >> np.uint32(32 - rotation))
            x1 = x1 ^ x0
        x0 = x0 + keys[(block + 1) % 3]
        x1 = x1 + keys[(block + 2) % 3] + np.uint32(block + 1)
    return x0, x1


def noise_v1(seeds: NDArray[np.int64], size: int, stream: int = 0) -> NDArray[np.float32]:
    """Standard normal noise, one row a seed.

    Args:
        seeds: int64 [n].
        size: values a row.
        stream: separates several noise inputs of one sample; the latent is stream 0.

    Returns:
        float32 [n, size].
    """
    bits = seeds.astype(np.int64).view(np.uint64)[:, None]
    key = (bits.astype(np.uint32), (bits >> np.uint64(32)).astype(np.uint32))
    index = np.arange((size + 1) // 2, dtype=np.uint32)[None, :]
    pair = threefry2x32(key, (index, np.full_like(index, stream)))
    words = np.stack(pair, axis=-1).reshape(len(seeds), -1)[:, :size]
    table = quantiles()
    cell = (words >> np.uint32(15)) & np.uint32(0xFFFF)
    low = (words & np.uint32(0x7FFF)).astype(np.float32)
    fraction = low * np.float32(2**-15) + np.float32(2**-16)
    magnitude = table[cell] + fraction * (table[cell + 1] - table[cell])
    return np.where(words >> np.uint32(31), -magnitude, magnitude)


def noise_of(seed: int, shape: tuple[int, ...], stream: int = 0) -> NDArray[np.float32]:
    """Standard normal noise of one seed, float32 of this shape."""
    return noise_v1(np.array([seed], np.int64), prod(shape), stream).reshape(shape)
