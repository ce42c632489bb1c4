"""Looking at a data set: what is there, and whether it is what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from galatea.datasets._generate import found
from galatea.datasets._job import JOB, Job
from galatea.datasets._manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    ShardIndex,
    index_path,
    read_job,
)
from galatea.datasets._stores import Store, open_store
from galatea.errors import InvalidInput

__all__ = ["Status", "info", "read_manifest", "verify"]

READERS = 16  # files that are read at once


@dataclass(frozen=True)
class Status:
    """How far a data set is.

    Attributes:
        job: what it is made of.
        missing: numbers of the shards that are not there.
        manifest: None as long as the data set is not finished.
    """

    job: Job
    missing: tuple[int, ...]
    manifest: Manifest | None

    @property
    def samples(self) -> int:
        """Samples that are there."""
        return self.job.n - sum(map(self.job.count, self.missing))


def info(place: str | Path) -> Status:
    """How far a data set is; sizes are compared, contents are not.

    Args:
        place: its folder or URL.

    Raises:
        InvalidInput: there is no data set, or its ``job.json`` or ``dataset.json`` is damaged.
        MachineError, ServerUnreachable: it cannot be read.
    """
    store = open_store(place)
    job = _job(store)
    there = {index.index for index, _ in found(store, job, range(job.shards), store.sizes())}
    missing = tuple(k for k in range(job.shards) if k not in there)
    return Status(job, missing, _manifest(store) if store.get(MANIFEST) is not None else None)


def verify(place: str | Path) -> list[str]:
    """Compares every file of a data set with what was written.

    Args:
        place: its folder or URL.

    Returns:
        One sentence for each thing that is wrong; none when all is well.

    Raises:
        InvalidInput: there is no data set, or its ``job.json`` is damaged.
        MachineError, ServerUnreachable: it cannot be read.
    """
    store = open_store(place)
    with ThreadPoolExecutor(READERS) as readers:
        return list(_problems(store, _job(store), readers))


def read_manifest(place: str | Path) -> Manifest:
    """The manifest of a data set.

    Args:
        place: ``dataset.json`` itself, wherever it lies, or the folder or URL of a data set.

    Raises:
        InvalidInput: there is none, or it is damaged.
        MachineError, ServerUnreachable: it cannot be read.
    """
    if not str(place).endswith(".json"):
        return _manifest(open_store(place))
    if "://" not in str(place):
        return _manifest(open_store(Path(place).parent), Path(place).name)
    root, _, name = str(place).rpartition("/")
    return _manifest(open_store(root), name)


def _job(store: Store) -> Job:
    job = read_job(store)
    if job is None:
        raise InvalidInput(
            f"{store.url}: holds no data set: there is no {JOB}",
            "name the folder that galatea generate wrote",
        )
    return job


def _manifest(store: Store, name: str = MANIFEST) -> Manifest:
    content = store.get(name)
    if content is None:
        raise InvalidInput(
            f"{store.url}: there is no {name}",
            f"run the same galatea generate again, or: galatea dataset merge {store.url}",
        )
    try:
        return Manifest.from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{store.url}: {name} cannot be read: {error}",
            f"restore it, or write it again: galatea dataset merge {store.url}",
        ) from error


def _problems(store: Store, job: Job, readers: Executor) -> Iterator[str]:
    sizes = store.sizes()
    known = {JOB, MANIFEST}
    indexes: list[str | None] = []  # sha256 of each
    for k in range(job.shards):
        path = index_path(k)
        known.add(path)
        content = store.get(path)
        if content is None:
            indexes.append(None)
            yield f"{path}: is missing"
            continue
        indexes.append(hashlib.sha256(content).hexdigest())
        try:
            index = ShardIndex.read(content, job, k)
        except ValueError as error:
            yield f"{path}: was changed: {error}"
            continue
        known.update(file.path for file in index.files)
        yield from _changed(store, index, sizes, readers)
    yield from _wrong_manifest(store, job, indexes)
    yield from (f"{path}: is not of the data set" for path in sorted(sizes.keys() - known))


def _changed(
    store: Store, index: ShardIndex, sizes: dict[str, int], readers: Executor
) -> Iterator[str]:
    def problem(file: FileEntry) -> str | None:
        if file.path not in sizes:
            return f"{file.path}: is missing"
        if sizes[file.path] != file.size:
            return f"{file.path}: has {sizes[file.path]} bytes, its index says {file.size}"
        if hashlib.sha256(store.get(file.path) or b"").hexdigest() != file.sha256:
            return f"{file.path}: was changed"
        return None

    return filter(None, readers.map(problem, index.files))


def _wrong_manifest(store: Store, job: Job, indexes: list[str | None]) -> Iterator[str]:
    content = store.get(MANIFEST)
    if content is None:
        there = sum(index is not None for index in indexes)
        yield f"{MANIFEST}: is missing; {there} of {job.shards} shards are there"
        return
    try:
        manifest = Manifest.from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        yield f"{MANIFEST}: was changed: {error}"
        return
    if manifest.job != job:
        yield f"{MANIFEST}: is of another data set than {JOB}"
        return
    for entry, sha256 in zip(manifest.shards, indexes, strict=True):
        if sha256 is not None and sha256 != entry.sha256:
            yield f"{index_path(entry.index)}: is not the one that {MANIFEST} names"
    if manifest.to_json() != content:
        yield f"{MANIFEST}: was changed"
