"""Memory that a server on this machine reads and writes, in place of messages (Linux)."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

__all__ = ["Region", "SharedMemory", "SystemRegion"]

log = logging.getLogger("galatea")

FOLDER = Path("/dev/shm")  # noqa: S108 - where Triton opens keys, not a folder for temporary files
PREFIX = "galatea_client-"
SMALLEST = 1 << 16
SECONDS = 5.0  # that registering may take
RESTRICTED = "protocol is restricted"  # Triton's word, with the status of a server that is away


class Region(Protocol):
    """A piece of memory that the client has made and a server writes into."""

    name: str
    size: int
    kind: str  # as in the names of Triton's calls

    def registration(self) -> Any:
        """What makes it known to a server."""

    def write(self, offset: int, array: NDArray[Any]) -> None:
        """Copies an array to a place in it."""

    def read(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """What a server has written; read-only, and valid until the region is used again."""

    def close(self) -> None:
        """Removes it."""


class SystemRegion:
    """A file in ``/dev/shm``; arrays are views of it.

    It is locked as long as this process lives: one that is not can be cleared away.

    Raises:
        OSError: there is no room for it, or no such thing on this machine.
    """

    kind = "System"

    def __init__(self, size: int) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        self.size = size
        self._path = FOLDER / self.name
        if not FOLDER.is_dir():
            raise OSError(errno.ENOENT, f"there is no {FOLDER}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o600)
        try:
            _lock(self._file)
            # Without its pages a full disk would kill whoever writes first, which is the server.
            os.posix_fallocate(self._file, 0, size)
            self._buffer = mmap.mmap(self._file, size)
        except OSError:
            os.close(self._file)
            self._path.unlink(missing_ok=True)
            raise

    def registration(self) -> Any:
        return service_pb2.SystemSharedMemoryRegisterRequest(
            name=self.name, key=f"/{self.name}", byte_size=self.size
        )

    def write(self, offset: int, array: NDArray[Any]) -> None:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        np.frombuffer(self._buffer, np.uint8, flat.size, offset)[:] = flat

    def read(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        count = int(np.prod(shape))
        view = np.frombuffer(self._buffer, dtype, count, offset).reshape(shape)
        view.flags.writeable = False
        return view

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        with suppress(BufferError):  # memory that arrays still look at stays until they are gone
            self._buffer.close()
        os.close(self._file)


class SharedMemory:
    """The regions that one server knows. Safe to share between threads.

    Args:
        stub: of the server's gRPC service.
        metadata: of each call.
        make: makes a region of so many bytes.
        insist: a user asked for it; then a warning says why it does not work.
    """

    def __init__(
        self,
        stub: object,
        metadata: Callable[[], tuple[tuple[str, str], ...]],
        address: str,
        make: Callable[[int], Region] = SystemRegion,
        *,
        insist: bool,
    ) -> None:
        self._stub, self._metadata, self._address = stub, metadata, address
        self._make, self._insist = make, insist
        self._lock = threading.Lock()
        self._known: dict[Region, int] = {}  # with the life of the server that knows the region
        self._free: list[Region] = []
        self._life = 0  # of the server, as far as we have noticed that it was restarted
        self._tried = self._off = self._closed = False

    def take(self, size: int) -> Region | None:
        """A region of at least `size` bytes for one request; None where messages must do."""
        if self._off or self._closed:
            return None
        with self._lock:
            for region in [region for region in self._free if region.size >= size]:
                self._free.remove(region)
                if self._known[region] == self._life:
                    return region
                self._drop(region)
        return self._new(size)

    def give(self, region: Region) -> None:
        """Takes a region back that the server has finished with."""
        with self._lock:
            if region in self._known:  # this is not closed
                self._free.append(region)

    def retire(self, region: Region) -> None:
        """Lets go of a region that the server may still write into."""
        with self._lock:
            self._drop(region)

    def forget(self) -> None:
        """The server may have been restarted: it knows no region any more."""
        with self._lock:
            self._life += 1

    def close(self) -> None:
        """Removes all regions here, and on the server those that it has finished with."""
        with self._lock:
            self._closed = True
            finished = [region for region in self._free if self._known[region] == self._life]
            self._free = []
            for region in list(self._known):
                self._drop(region)
        for region in finished:
            self._unregister(region.kind, region.name)

    def _drop(self, region: Region) -> None:
        """Removes a region that is not free; called with the lock held."""
        if self._known.pop(region, None) is not None:
            region.close()

    def _new(self, size: int) -> Region | None:
        try:
            region = self._make(max(SMALLEST, 1 << (size - 1).bit_length()))
        except (OSError, RuntimeError) as error:
            self._give_up(str(getattr(error, "strerror", None) or error))
            return None
        with self._lock:
            if self._closed:
                region.close()
                return None
            self._known[region] = self._life
        try:
            if not self._tried:
                self._clear_away()
            self._call(f"{region.kind}SharedMemoryRegister", region.registration())
        except ValueError:  # gRPC's word for a closed channel; here too
            self.retire(region)
            return None
        except grpc.RpcError as error:
            self.retire(region)
            why = str(error.details())
            passing = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            if error.code() in passing and RESTRICTED not in why:
                return None  # the request itself will tell
            self._give_up(why)
            return None
        self._tried = True
        return region

    def _give_up(self, why: str) -> None:
        self._off = True
        tell = log.warning if self._insist else log.info
        tell(
            "%s: images come in messages, not through shared memory (%s); containers share it with "
            "--ipc=host",
            self._address,
            " ".join(why.split()),
        )

    def _clear_away(self) -> None:
        """Removes what clients left that were killed; the lock of their files is free."""
        status = self._call(
            "SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest()
        )
        files = [path.name for path in FOLDER.glob(f"{PREFIX}*")]
        for name in {*status.regions, *files}:
            if name.startswith(PREFIX) and _is_abandoned(FOLDER / name):
                self._unregister("System", name)
                (FOLDER / name).unlink(missing_ok=True)

    def _unregister(self, kind: str, name: str) -> None:
        request = getattr(service_pb2, f"{kind}SharedMemoryUnregisterRequest")(name=name)
        with suppress(grpc.RpcError, ValueError):  # gone with the server, or the channel is closed
            self._call(f"{kind}SharedMemoryUnregister", request)

    def _call(self, method: str, request: object) -> Any:
        return getattr(self._stub, method)(request, timeout=SECONDS, metadata=self._metadata())


def _is_abandoned(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        _lock(file)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _lock(file: int) -> None:
    """Locks a file that no other process has locked; raises OSError otherwise."""
    import fcntl  # not on Windows, whose clients come no further than "there is no /dev/shm"

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
