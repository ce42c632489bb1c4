"""Memory of batches that nobody looks at any more, used again."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Blocks"]

SMALLEST = 1 << 17  # bytes from which malloc takes fresh pages from the kernel, which clears them
MOST = 6  # blocks that are kept


class Blocks:
    """Makes arrays for one stream. Clearing fresh pages takes as long as filling them.

    A block is used again once no array, tensor or view of it is left: each of them holds a
    reference to it.
    """

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array with any content, like :func:`numpy.empty`."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < SMALLEST:
            return np.empty(shape, dtype)
        for block, references in self._counted():
            if block.nbytes == size and references == ALONE:
                return block.view(dtype).reshape(shape)
        fresh = np.empty(size, np.uint8)
        if len(self._blocks) < MOST:
            self._blocks.append(fresh)
        return fresh.view(dtype).reshape(shape)

    def _counted(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """Each block with the references to it, a few of which are this method's own."""
        for block in self._blocks:
            yield block, sys.getrefcount(block)

    @classmethod
    def alone(cls) -> int:
        """References that are counted to a block which nobody else has; Pythons differ."""
        blocks = cls()
        blocks.empty((SMALLEST,), np.uint8)
        return next(blocks._counted())[1]


ALONE = Blocks.alone()
