"""What every place of a publication can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from galatea_exporter.release import Content

__all__ = ["Place"]


class Place(ABC):
    """One publication, or room for one: files by their path, ``/`` between its parts.

    Attributes:
        url: as the caller named it.
    """

    url: str

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """The content of a small file; None where there is none.

        Raises:
            MachineError: it cannot be read.
            ServerUnreachable: the place does not answer.
        """

    @abstractmethod
    def fetch(self, path: str, target: Path) -> None:
        """Copies a file of any size to `target`, whose folder is there.

        Raises:
            RepositoryError: there is no such file.
            MachineError, ServerUnreachable: as of :meth:`read`.
        """

    @abstractmethod
    def put(self, files: Mapping[str, Content]) -> None:
        """Publishes all files; the last one appears when all others are there.

        Raises:
            RepositoryError: something else is there already.
            MachineError: the place cannot be written.
            ServerUnreachable: it does not answer.
        """
