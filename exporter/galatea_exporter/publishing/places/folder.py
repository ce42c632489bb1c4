"""A publication in a folder of this machine."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from galatea.errors import MachineError, RepositoryError
from galatea_exporter.publishing.places.place import Place
from galatea_exporter.release import Content, put

__all__ = ["Folder"]


class Folder(Place):
    """A folder that appears whole: it is prepared beside its place and moved in by rename."""

    def __init__(self, path: Path) -> None:
        self.url, self._root = str(path), path

    def read(self, path: str) -> bytes | None:
        with self._told("read"):
            file = self._root / path
            return file.read_bytes() if file.is_file() else None

    def fetch(self, path: str, target: Path) -> None:
        source = self._root / path
        if not source.is_file():
            raise RepositoryError(f"{self.url}: {path} is missing", "publish the release again")
        with self._told("read"):
            shutil.copyfile(source, target)

    def put(self, files: Mapping[str, Content]) -> None:
        with self._told("written"):
            if self._root.exists() and (not self._root.is_dir() or any(self._root.iterdir())):
                raise RepositoryError(
                    f"{self.url}: is there already, and is no publication",
                    "name a folder that is empty or not there",
                )
            parent = self._root.absolute().parent
            parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{self._root.name}-", dir=parent))
            try:
                for path, content in files.items():
                    put(staging / path, content)
                staging.chmod(0o755)
                os.rename(staging, self._root)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise MachineError(
                f"{self.url}: cannot be {done}: {error.strerror or error}",
                "free some space" if full else "check the permissions of the folder",
            ) from error
