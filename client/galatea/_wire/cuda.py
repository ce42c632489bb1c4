"""Memory of a GPU that a server on this machine writes into; needs cuda-python."""

from __future__ import annotations

import base64
import os
import secrets
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from galatea._wire.memory import PREFIX

__all__ = ["CudaRegion"]


class CudaRegion:
    """Memory of the first GPU that this process sees; arrays are copies in the host's memory.

    Raises:
        RuntimeError: cuda-python is not installed.
        OSError: there is no GPU, or no room on it.
    """

    kind = "Cuda"

    def __init__(self, size: int, device: int = 0) -> None:
        from tritonclient.utils import cuda_shared_memory

        self._cuda, self._device = cuda_shared_memory, device
        self.name, self.size = f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}", size
        try:
            self._handle = cuda_shared_memory.create_shared_memory_region(self.name, size, device)
        except cuda_shared_memory.CudaSharedMemoryException as error:
            raise OSError(str(error)) from error

    def registration(self) -> Any:
        return service_pb2.CudaSharedMemoryRegisterRequest(
            name=self.name,
            raw_handle=base64.b64decode(self._cuda.get_raw_handle(self._handle)),
            device_id=self._device,
            byte_size=self.size,
        )

    def write(self, offset: int, array: NDArray[Any]) -> None:
        before = self._contents()[:offset]  # the library writes from the beginning alone
        self._cuda.set_shared_memory_region(self._handle, [before, array])

    def read(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        count = int(np.prod(shape))
        return np.frombuffer(self._contents(), dtype, count, offset).reshape(shape)

    def close(self) -> None:
        self._cuda.destroy_shared_memory_region(self._handle)

    def _contents(self) -> NDArray[np.uint8]:
        made: NDArray[np.uint8] = self._cuda.get_contents_as_numpy(
            self._handle, np.uint8, [self.size]
        )
        return made
