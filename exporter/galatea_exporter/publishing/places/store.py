"""A publication in an object store, under a prefix of what fsspec reaches by URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from galatea._filesystems import does_not_answer, open_filesystem
from galatea.errors import MachineError, RepositoryError, ServerUnreachable
from galatea_exporter.publishing.places.place import Place
from galatea_exporter.release import Content

__all__ = ["Store"]


class Store(Place):
    """A prefix such as ``s3://bucket/prefix``; large files go up and come down in parts.

    Endpoint, credentials and errors: see :func:`galatea._filesystems.open_filesystem`.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._filesystem, self._root = open_filesystem(self.url)

    def read(self, path: str) -> bytes | None:
        with self._told("read"):
            try:
                content: bytes = self._filesystem.cat_file(f"{self._root}/{path}")
            except FileNotFoundError:
                return None
            return content

    def fetch(self, path: str, target: Path) -> None:
        with self._told("read"):
            try:
                self._filesystem.get_file(f"{self._root}/{path}", str(target))
            except FileNotFoundError as error:
                raise RepositoryError(
                    f"{self.url}: {path} is missing", "publish the release again"
                ) from error

    def put(self, files: Mapping[str, Content]) -> None:
        with self._told("written"):
            for path, content in files.items():
                place = f"{self._root}/{path}"
                if isinstance(content, Path):
                    self._filesystem.put_file(str(content), place)
                else:
                    self._filesystem.pipe_file(place, content)

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except RepositoryError:
            raise
        except Exception as error:  # every kind of store raises the errors of its own library
            reason = str(error) or type(error).__name__
            if does_not_answer(error):
                raise ServerUnreachable(
                    f"{self.url}: the store does not answer: {reason}",
                    "check its endpoint (for S3, AWS_ENDPOINT_URL)",
                ) from error
            raise MachineError(
                f"{self.url}: cannot be {done}: {reason}",
                "check the bucket, the credentials and what they allow",
            ) from error
