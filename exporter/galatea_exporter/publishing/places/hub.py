"""A publication in a model repository of the Hugging Face Hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from galatea.errors import InvalidInput, MachineError, RepositoryError, ServerUnreachable
from galatea.extras import needs_extra
from galatea_exporter.publishing.places.place import Place
from galatea_exporter.release import Content

__all__ = ["Hub"]

UNREACHABLE = {"LocalEntryNotFoundError", "TransportError", "ConnectionError"}


class Hub(Place):
    """``OWNER/NAME`` or ``OWNER/NAME@REVISION``; all files appear in one commit.

    Endpoint and token are those of huggingface_hub: ``HF_ENDPOINT``, ``HF_TOKEN``, ``hf auth
    login``.

    Raises:
        InvalidInput: that names no repository.
        MachineError: huggingface_hub is not installed.
    """

    def __init__(self, name: str) -> None:
        self.url = f"hf://{name}"
        with needs_extra("hub"):
            import huggingface_hub
            import huggingface_hub.errors
            import huggingface_hub.utils
        self._hub: Any = huggingface_hub
        self._name, _, revision = name.partition("@")
        self._revision = revision or None
        try:
            self._hub.utils.validate_repo_id(self._name)
        except huggingface_hub.errors.HFValidationError as error:
            raise InvalidInput(f"{self.url}: {error}", "give hf://OWNER/NAME") from error

    def read(self, path: str) -> bytes | None:
        with self._told("read"):
            found = self._downloaded(path)
            return None if found is None else found.read_bytes()

    def fetch(self, path: str, target: Path) -> None:
        with self._told("read"):
            found = self._downloaded(path)
            if found is None:
                raise RepositoryError(f"{self.url}: {path} is missing", "publish the release again")
            shutil.copyfile(found, target)

    def put(self, files: Mapping[str, Content]) -> None:
        hub, api = self._hub, self._hub.HfApi()
        with self._told("written"):
            api.create_repo(self._name, exist_ok=True)
            api.create_commit(
                self._name,
                [
                    hub.CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)
                    for path, content in files.items()
                ],
                commit_message="Publish with galatea",
                revision=self._revision,
            )

    def _downloaded(self, path: str) -> Path | None:
        errors = self._hub.errors
        try:
            return Path(self._hub.hf_hub_download(self._name, path, revision=self._revision))
        except errors.LocalEntryNotFoundError:
            raise
        except (errors.EntryNotFoundError, errors.RepositoryNotFoundError):
            return None

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except RepositoryError:
            raise
        except Exception as error:  # which HTTP library raises depends on the version of the hub's
            if UNREACHABLE & {kind.__name__ for kind in type(error).__mro__}:
                raise ServerUnreachable(
                    f"{self.url}: the hub does not answer: {error}", "check HF_ENDPOINT"
                ) from error
            raise MachineError(
                f"{self.url}: cannot be {done}: {error}",
                "check the name and the token: hf auth login",
            ) from error
