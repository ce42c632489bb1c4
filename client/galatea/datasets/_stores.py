"""Where the files of a data set lie: a folder, or a prefix of an object store."""

from __future__ import annotations

import errno
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from galatea._files import is_leftover, write_atomically
from galatea._filesystems import does_not_answer, open_filesystem
from galatea.datasets.formats import File
from galatea.errors import MachineError, ServerUnreachable

__all__ = ["Folder", "ObjectStore", "Store", "open_store"]

log = logging.getLogger(__name__)

RESUMES = "the same command goes on where this one stopped"
UPLOADS = 32  # files that are on their way to an object store at once
FLUSHES = 16  # files that are waited for at once

# How botocore, aiohttp, requests and Python call what means that nobody answered.
UNREACHABLE = {
    "ConnectionError",
    "ConnectTimeoutError",
    "HTTPClientError",
    "ClientConnectionError",
    "TimeoutError",
}


class Store(ABC):
    """Files by their path below one root; a path has ``/`` between its parts on every system.

    A file is there whole or not at all, and is never changed once it is there.

    Attributes:
        url: the root, as the caller named it.
    """

    url: str

    @abstractmethod
    def put(self, files: Iterable[File]) -> None:
        """Writes files, and returns when they are safe from a power cut.

        Raises:
            MachineError: the store cannot be written, or is full.
            ServerUnreachable: the store does not answer.
        """

    @abstractmethod
    def get(self, path: str) -> bytes | None:
        """The content of a file; None where there is no such file.

        Raises:
            MachineError: the file cannot be read.
            ServerUnreachable: the store does not answer.
        """

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """The bytes of every file, by path; what killed processes left half written is left out.

        Raises:
            MachineError, ServerUnreachable: as :meth:`get`.
        """

    def clean(self) -> None:  # noqa: B027 - where a file is put at once there is nothing to do
        """Removes what killed processes left half written. Nobody else may be writing."""


class Folder(Store):
    """A folder of this machine; it is made with the first file."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self._root = Path(url)

    def put(self, files: Iterable[File]) -> None:
        written = []
        for file in files:
            path = self._root / file.path
            with self._told(file.path, "written"):
                write_atomically(path, file.content, durable=False)
            written.append(path)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            written += {path.parent for path in written} | {self._root}
        # A disk that is asked for many files at once makes them safe together: thirty times faster.
        with self._told(".", "written"), ThreadPoolExecutor(FLUSHES) as waiting:
            list(waiting.map(_wait_for_disk, written))

    def get(self, path: str) -> bytes | None:
        with self._told(path, "read"):
            try:
                return (self._root / path).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with self._told(".", "read"):
            for path in self._files():
                if not is_leftover(path.name):
                    found[path.relative_to(self._root).as_posix()] = path.stat().st_size
        return found

    def clean(self) -> None:
        with self._told(".", "written"):
            for path in self._files():
                if is_leftover(path.name):
                    path.unlink()

    def _files(self) -> Iterator[Path]:
        if not self._root.exists():
            return
        for folder, _, names in os.walk(self._root, onerror=_raise):
            yield from (Path(folder, name) for name in names)

    @contextmanager
    def _told(self, path: str, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if full:
                remedy = f"free some space; {RESUMES}"
            elif done == "written":
                remedy = f"choose a folder that you may write to, or give leave: {RESUMES}"
            else:
                remedy = "check the permissions of the folder"
            place = self._root if path == "." else self._root / path
            raise MachineError(
                f"{place}: cannot be {done}: {error.strerror or error}", remedy
            ) from error


class ObjectStore(Store):
    """A prefix of what fsspec reaches by URL, such as ``s3://bucket/prefix``.

    Endpoint, credentials and errors: see :func:`galatea._filesystems.open_filesystem`.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._filesystem, self._root = open_filesystem(self.url)

    def put(self, files: Iterable[File]) -> None:
        waiting = iter(files)
        while some := list(islice(waiting, UPLOADS)):
            with self._told("written"):
                self._filesystem.pipe({self._path(file.path): bytes(file.content) for file in some})

    def get(self, path: str) -> bytes | None:
        with self._told("read"):
            try:
                content: bytes = self._filesystem.cat_file(self._path(path))
            except FileNotFoundError:
                return None
            return content

    def sizes(self) -> dict[str, int]:
        with self._told("read"):
            self._filesystem.invalidate_cache()
            found: dict[str, dict[str, Any]] = {}
            with suppress(FileNotFoundError):
                found = self._filesystem.find(self._root, detail=True)
        return {
            path[len(self._root) + 1 :]: int(entry["size"])
            for path, entry in found.items()
            if entry["type"] == "file"
        }

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise MachineError(
                f"{self.url}: {error}", f"make the bucket; then {RESUMES}"
            ) from error
        except Exception as error:  # every kind of store raises the errors of its own library
            reason = str(error) or type(error).__name__
            if does_not_answer(error):
                raise ServerUnreachable(
                    f"{self.url}: the store does not answer: {reason}",
                    f"check its endpoint (for S3, AWS_ENDPOINT_URL); {RESUMES}",
                ) from error
            raise MachineError(
                f"{self.url}: cannot be {done}: {reason}",
                f"check the credentials and what they allow; {RESUMES}",
            ) from error


def open_store(place: str | Path) -> Store:
    """The store of a folder's path or of a URL.

    Raises:
        InvalidInput: there is no such kind of store.
        MachineError: the package for it is not installed.
    """
    scheme, colon, rest = str(place).partition("://")
    if not colon or isinstance(place, Path):
        return Folder(place)
    return Folder(rest) if scheme == "file" else ObjectStore(str(place))


def _wait_for_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise(error: OSError) -> None:
    raise error
