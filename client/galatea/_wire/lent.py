"""Where the tensors of one request lie in shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea._wire.memory import Region, SharedMemory

__all__ = ["Lent", "lend"]

ALIGNMENT = 64


@dataclass(frozen=True)
class Lent:
    """A region that is lent to one request; `places` are (offset, bytes) of its tensors."""

    memory: SharedMemory
    region: Region
    places: dict[str, tuple[int, int]]

    def point(self, parameters: Any, name: str) -> None:
        """Says in a request where a tensor lies."""
        offset, size = self.places[name]
        parameters["shared_memory_region"].string_param = self.region.name
        parameters["shared_memory_byte_size"].int64_param = size
        parameters["shared_memory_offset"].int64_param = offset

    def write(self, name: str, array: NDArray[Any]) -> None:
        """Copies an input to its place."""
        self.region.write(self.places[name][0], array)

    def read(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """An output; read-only.

        Raises:
            ValueError: it is larger than its place.
        """
        offset, size = self.places[name]
        if int(np.prod(shape)) * dtype.itemsize > size:
            raise ValueError(f"{name} {list(shape)} does not fit into {size} bytes")
        return self.region.read(offset, dtype, shape)

    def give(self) -> None:
        """Gives the memory back: the server has finished with it."""
        self.memory.give(self.region)

    def retire(self) -> None:
        """Lets go of memory that the server may still write into."""
        self.memory.retire(self.region)


def lend(memory: SharedMemory, sizes: Mapping[str, int], smallest: int) -> Lent | None:
    """Room for tensors of these bytes; None where messages must do.

    Args:
        smallest: bytes of all tensors below which it is not worth it.
    """
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for name, size in sizes.items():
        places[name] = end, size
        end += -(-size // ALIGNMENT) * ALIGNMENT
    if end < smallest:
        return None
    region = memory.take(end)
    return None if region is None else Lent(memory, region, places)
