"""What is written beside the samples: the index of each shard, and the manifest of all.

::

    job.json             what was asked for; written first
    000012.tar …         the files of a shard, as the format calls them
    shards/000012.json   index of a shard, written after its files: where it is, the shard is
    dataset.json         manifest, written when every shard is there

None of them holds a time, a host or anything else that another run would not write again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from galatea.card import from_plain
from galatea.datasets._job import JOB, Job, to_json
from galatea.datasets._stores import Store
from galatea.datasets.formats import File, Shard
from galatea.errors import InvalidInput

__all__ = ["MANIFEST", "Manifest", "ShardEntry", "ShardIndex", "index_path", "read_job"]

MANIFEST = "dataset.json"
SCHEMA = 1


@dataclass(frozen=True)
class FileEntry:
    """A file of a shard; `path` is below the data set's root, `size` in bytes."""

    path: str
    size: int
    sha256: str

    @classmethod
    def of(cls, file: File) -> FileEntry:
        """What is told of a file."""
        return cls(file.path, len(file.content), hashlib.sha256(file.content).hexdigest())


@dataclass(frozen=True)
class ShardIndex:
    """What a shard holds.

    Attributes:
        dataset: digest of the job.
        model, version, weights, licence, synthetic: where every image of it comes from.
        index: of the shard; `start` is that of its first sample, `count` the number of them.
        seeds: of each sample.
        conditions: by name, the value of each sample.
        samples_sha256: of the pixels of all images, then of all masks, in the order [n, H, W, C],
            little-endian: equal for equal samples, whatever wrote the files.
        files: in the order in which they were written.
    """

    dataset: str
    model: str
    version: int
    weights: str
    licence: str
    synthetic: bool
    index: int
    start: int
    count: int
    seeds: tuple[int, ...]
    conditions: dict[str, Any]
    samples_sha256: str
    files: tuple[FileEntry, ...]
    schema: int = SCHEMA

    @classmethod
    def of(cls, job: Job, shard: Shard, files: Iterable[FileEntry]) -> ShardIndex:
        """The index of a shard whose files were written."""
        samples = shard.samples
        pixels = hashlib.sha256()
        for array in (samples.images, samples.masks):
            if array is not None:
                little = array.astype(array.dtype.newbyteorder("<"), copy=False)
                pixels.update(np.ascontiguousarray(little).data)
        return cls(
            dataset=shard.dataset,
            model=job.card.name,
            version=job.card.version,
            weights=f"sha256:{job.card.checkpoint_sha256}",
            licence=job.card.licence,
            synthetic=True,
            index=shard.index,
            start=shard.start,
            count=len(samples),
            seeds=tuple(samples.seeds.tolist()),
            conditions={name: values.tolist() for name, values in samples.conditions.items()},
            samples_sha256=pixels.hexdigest(),
            files=tuple(files),
        )

    def to_json(self) -> bytes:
        """The content of the file at :func:`index_path`."""
        return (json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":")) + "\n").encode()

    @classmethod
    def read(cls, content: bytes, job: Job, index: int) -> ShardIndex:
        """Reads the index of a shard of a job.

        Raises:
            ValueError: it is none, or that of another shard; says what is wrong.
        """
        try:
            found = from_plain(cls, json.loads(content))
        except TypeError as error:
            raise ValueError(str(error)) from error
        if found.dataset != job.digest or found.schema != SCHEMA:
            raise ValueError("it is of another data set")
        if (found.index, found.start, found.count) != (index, job.start(index), job.count(index)):
            raise ValueError("it is of another shard")
        if list(found.seeds) != [job.seed + found.start + i for i in range(found.count)]:
            raise ValueError("its seeds are not those of the job")
        outside = next((file.path for file in found.files if not _is_inside(file.path)), None)
        if outside is not None:
            raise ValueError(f"{outside!r} lies outside the data set")
        return found


@dataclass(frozen=True)
class ShardEntry:
    """A shard in the manifest.

    Attributes:
        files, size: number of its files, and their bytes.
        samples_sha256: see :class:`ShardIndex`.
        sha256: of its index, which holds those of its files.
    """

    index: int
    start: int
    count: int
    files: int
    size: int
    samples_sha256: str
    sha256: str

    @classmethod
    def of(cls, index: ShardIndex, content: bytes) -> ShardEntry:
        """The entry of a shard whose index has this content."""
        return cls(
            index=index.index,
            start=index.start,
            count=index.count,
            files=len(index.files),
            size=sum(file.size for file in index.files),
            samples_sha256=index.samples_sha256,
            sha256=hashlib.sha256(content).hexdigest(),
        )


@dataclass(frozen=True)
class Manifest:
    """A whole data set: enough to check it, and to make it again.

    Attributes:
        job: what was asked for, with the model card.
        shards: all of them, in order.
        classes: samples of each class or label by name; empty where there are none.
    """

    job: Job
    shards: tuple[ShardEntry, ...]
    classes: dict[str, int]

    @property
    def size(self) -> int:
        """Bytes of the files of all shards, without the indexes."""
        return sum(shard.size for shard in self.shards)

    @classmethod
    def of(cls, job: Job, found: Iterable[tuple[ShardIndex, bytes]]) -> Manifest:
        """The manifest of all shards of a job, from their indexes and the content of those."""
        shards = []
        labels: Counter[int] = Counter()
        for index, content in found:
            shards.append(ShardEntry.of(index, content))
            labels.update(index.conditions.get("label", ()))
        return cls(job, tuple(shards), {name: labels[k] for k, name in enumerate(job.classes)})

    def to_json(self) -> bytes:
        """The content of ``dataset.json``: what a reader asks for first, then all the rest."""
        card = self.job.card
        facts = {
            "synthetic": True,
            "model": card.name,
            "version": card.version,
            "weights": f"sha256:{card.checkpoint_sha256}",
            "licence": card.licence,
            "citation": card.citation,
            "doi": card.doi,
            "samples": self.job.n,
            "seeds": [self.job.seed, self.job.seed + self.job.n - 1],
            "size": self.size,
        }
        plain = {**asdict(self), "job": self.job.to_plain()}
        return to_json({"schema": SCHEMA, "dataset": self.job.digest, **facts, **plain})

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Reads what :meth:`to_json` gives.

        Raises:
            TypeError, ValueError, KeyError: it is no manifest, or of another schema.
        """
        plain = json.loads(content)
        if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
            raise ValueError(f"it is no manifest of schema {SCHEMA}")
        shards = tuple(from_plain(ShardEntry, entry) for entry in plain["shards"])
        job = Job.from_plain(plain["job"])
        if [(entry.index, entry.start, entry.count) for entry in shards] != [
            (k, job.start(k), job.count(k)) for k in range(job.shards)
        ]:
            raise ValueError("its shards are not those of its job")
        return cls(job, shards, {str(name): int(n) for name, n in plain["classes"].items()})


def index_path(shard: int) -> str:
    """Where the index of a shard lies."""
    return f"shards/{shard:06d}.json"


def read_job(store: Store) -> Job | None:
    """The job of the data set in a store; None where there is none.

    Raises:
        InvalidInput: its ``job.json`` is damaged, or of another schema.
        MachineError, ServerUnreachable: the store cannot be read.
    """
    content = store.get(JOB)
    if content is None:
        return None
    try:
        return Job.from_plain(json.loads(content))
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"{store.url}: {JOB} cannot be read: {error}", "choose another folder, or restore it"
        ) from error


def _is_inside(path: str) -> bool:
    return not {"", ".", ".."} & set(path.split("/")) and "\\" not in path
