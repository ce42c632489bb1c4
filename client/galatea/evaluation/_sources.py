"""Where images come from that are evaluated: a served model, a folder, a data set."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from galatea.card import ModelCard
from galatea.client import Client
from galatea.datasets import info
from galatea.errors import InvalidInput
from galatea.evaluation._shards import shard_items
from galatea.pictures import Picture, find, read_files

__all__ = ["DataSet", "Folder", "Item", "Served", "Source", "open_source"]

MASK = "-mask"  # what galatea calls the mask of an image
JOB = "job.json"  # what makes a folder a data set


@dataclass(frozen=True)
class Item:
    """An image, and its class where one is known."""

    picture: Picture
    label: str | None = None


class Source(ABC):
    """Images in a fixed order, which can be gone through several times."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What a reader calls it."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Equal for equal images in equal order, sha256 in hexadecimal."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What it is and how to get it again, as plain JSON types."""

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """All images.

        Raises:
            InvalidInput: one cannot be read.
            ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError, MachineError:
                see :mod:`galatea.errors`.
        """

    def pick(self, indices: Iterable[int]) -> dict[int, Item]:
        """Some of the images, by their index."""
        wanted = set(indices)
        found: dict[int, Item] = {}
        for i, item in enumerate(self.items()):
            if i in wanted:
                found[i] = item
            if len(found) == len(wanted):
                break
        return found


class Served(Source):
    """The images of a served generator: a range of seeds.

    Args:
        n: number of images.
        seed: of the first one.
        conditions: as of :meth:`galatea.Client.sample`.

    Raises:
        InvalidInput: the model makes volumes, or no images of seeds.
        ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError: see
            :mod:`galatea.errors`.
    """

    def __init__(self, client: Client, name: str, n: int, seed: int = 0, **conditions: Any) -> None:
        self._client, self._n, self._seed = client, n, seed
        self._conditions = conditions
        self.card: ModelCard = client.model(name)
        image = next((output for output in self.card.outputs if output.name == "image"), None)
        if image is None or self.card.source_picture is not None or len(image.shape) != 3:
            raise InvalidInput(
                f"{name} makes no images of seeds", "evaluate a folder with what it makes instead"
            )

    @property
    def title(self) -> str:
        return f"{self.card.name} version {self.card.version}"

    @cached_property
    def digest(self) -> str:
        card = self.card.to_dict()
        decisive = {
            name: card[name] for name in ("checkpoint_sha256", "graphs", "configuration", "inputs")
        }
        return _digest([decisive, self._n, self._seed, self._conditions])

    def facts(self) -> dict[str, Any]:
        return {
            "kind": "model",
            "model": self.card.name,
            "version": self.card.version,
            "weights": f"sha256:{self.card.checkpoint_sha256}",
            "licence": self.card.licence,
            "n": self._n,
            "seeds": [self._seed, self._seed + self._n - 1],
            "conditions": self._conditions,
            "digest": self.digest,
        }

    def items(self) -> Iterator[Item]:
        yield from self._items(0, self._n)

    def pick(self, indices: Iterable[int]) -> dict[int, Item]:
        return {i: next(self._items(i, 1)) for i in sorted(set(indices))}

    def _items(self, start: int, n: int) -> Iterator[Item]:
        batches = self._client.stream(
            self.card.name, n, seed=self._seed, start=start, **self._conditions
        )
        for batch in batches:
            for i, image in enumerate(batch.images):
                yield Item(Picture(f"seed {batch.seeds[i]}", image.copy()), batch.label_name(i))


class Folder(Source):
    """A file or folder with pictures; masks that galatea wrote are passed over.

    Pictures in folders below it have the name of the first of these as their class.

    Raises:
        InvalidInput: there are none.
    """

    def __init__(self, path: Path, axis: str = "axial") -> None:
        self._path, self._axis = path, axis
        self._files = [file for file in find([path]) if not file.name.endswith(MASK)]
        if not self._files:
            raise InvalidInput(f"{path}: holds masks alone", "name the folder with the images")

    @property
    def title(self) -> str:
        return self._path.name or str(self._path)

    @cached_property
    def digest(self) -> str:
        return _digest([self._axis, [[file.name, _sha256(file.path)] for file in self._files]])

    def facts(self) -> dict[str, Any]:
        return {
            "kind": "folder",
            "path": str(self._path),
            "files": len(self._files),
            "axis": self._axis,
            "digest": self.digest,
        }

    def items(self) -> Iterator[Item]:
        for file in self._files:
            folder, slash, _ = file.name.partition("/")
            for picture in read_files([file], axis=self._axis):
                yield Item(picture, folder if slash else None)


class DataSet(Source):
    """A data set that ``galatea generate`` made, in any of its formats.

    Raises:
        InvalidInput: it is not complete, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        status = info(path)
        if status.manifest is None:
            raise InvalidInput(
                f"{path}: the data set is not finished",
                "run the same galatea generate again, or: galatea dataset merge",
            )
        self._job, self._manifest = status.job, status.manifest

    @property
    def title(self) -> str:
        return self._path.name or str(self._path)

    @cached_property
    def digest(self) -> str:
        return _digest(
            [self._job.digest, [shard.samples_sha256 for shard in self._manifest.shards]]
        )

    def facts(self) -> dict[str, Any]:
        job = self._job
        return {
            "kind": "data set",
            "path": str(self._path),
            "dataset": job.digest,
            "model": job.card.name,
            "version": job.card.version,
            "weights": f"sha256:{job.card.checkpoint_sha256}",
            "n": job.n,
            "seeds": [job.seed, job.seed + job.n - 1],
            "conditions": job.conditions,
            "digest": self.digest,
        }

    def items(self) -> Iterator[Item]:
        for k in range(self._job.shards):
            for picture, label in shard_items(self._path, self._job, k):
                yield Item(picture, label)


def open_source(place: str | Path, axis: str = "axial") -> Source:
    """The images of a path: a data set that galatea made, or any file or folder.

    Args:
        axis: of NIfTI volumes, the slices to take.

    Raises:
        InvalidInput: there are none, or the data set is not finished.
    """
    path = Path(place)
    return DataSet(path) if (path / JOB).is_file() else Folder(path, axis)


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
