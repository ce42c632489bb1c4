"""A publication in an object store, under a prefix of what fsspec reaches by URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from galatea.errors import InvalidInput, MachineError, RepositoryError, ServerUnreachable
from galatea.extras import needs_extra
from galatea_exporter.publishing.places.place import Place
from galatea_exporter.release import Content

__all__ = ["Store"]

# How botocore, aiohttp and Python call what means that nobody answered.
UNREACHABLE = {
    "ConnectionError", "ConnectTimeoutError", "HTTPClientError", "ClientConnectionError",
    "TimeoutError",
}  # fmt: skip


class Store(Place):
    """A prefix such as ``s3://bucket/prefix``; large files go up and come down in parts.

    Endpoint and credentials are those of the store's own library: for S3 the environment
    (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, …) and ``~/.aws``.

    Raises:
        InvalidInput: there is no such kind of store.
        MachineError: the package for it is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        with needs_extra("s3"):
            import fsspec
        try:
            self._filesystem, self._root = fsspec.url_to_fs(self.url)
        except ImportError as error:
            raise MachineError(f"{url}: {error}", "run: pip install 'galatea[s3]'") from error
        except ValueError as error:
            raise InvalidInput(f"{url}: {error}", "give a folder, or s3://BUCKET/PREFIX") from error

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
            if UNREACHABLE & {kind.__name__ for kind in type(error).__mro__}:
                raise ServerUnreachable(
                    f"{self.url}: the store does not answer: {reason}",
                    "check its endpoint (for S3, AWS_ENDPOINT_URL)",
                ) from error
            raise MachineError(
                f"{self.url}: cannot be {done}: {reason}",
                "check the bucket, the credentials and what they allow",
            ) from error
