"""Joining the parts that several workers have made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from galatea.datasets._cut import neighbours
from galatea.datasets._generate import claim, finish, found
from galatea.datasets._job import Job
from galatea.datasets._manifest import Manifest, ShardIndex, index_path, read_job
from galatea.datasets._stores import Store, open_store
from galatea.datasets.formats import File
from galatea.errors import InvalidInput

__all__ = ["merge"]


def merge(output: str | Path, *parts: str | Path) -> Manifest:
    """Makes one data set of the shards that workers have made, and writes its manifest.

    Shards that `output` has stay as they are; those of the parts are copied, and checked on the
    way. Nobody may be writing there. Interrupted and called again, it goes on.

    Args:
        output: folder or URL of the data set; it may be empty, or one of the workers' own.
        parts: folders or URLs of further workers.

    Raises:
        InvalidInput: there is no data set, the parts are not of one job, a file was changed, or
            shards are missing; says which.
        MachineError, ServerUnreachable: a store cannot be read or written, or is full.
    """
    store = open_store(output)
    sources = [open_store(part) for part in parts]
    job = next((job for job in map(read_job, [store, *sources]) if job is not None), None)
    if job is None:
        raise InvalidInput(
            f"{store.url}: holds no data set", "name the folders that galatea generate wrote"
        )
    sizes = store.sizes()
    claim(store, job, sizes)
    there = {index.index for index, _ in found(store, job, range(job.shards), sizes)}
    for source in sources:
        _same(source, job, store)
        wanted = [k for k in range(job.shards) if k not in there]
        for index, content in found(source, job, wanted, source.sizes()):
            store.put(_files(source, index))
            store.put([File(index_path(index.index), content)])
            there.add(index.index)
    missing = [k for k in range(job.shards) if k not in there]
    if missing:
        raise InvalidInput(
            f"{store.url}: of {job.shards} shards there are missing: {ranges(missing)}",
            f"make them: run galatea generate with -o {store.url}, or merge the folders with them",
        )
    return finish(store, job)


def ranges(numbers: Sequence[int]) -> str:
    """Numbers for a person: ``"0–3, 7"``."""
    return ", ".join(
        f"{run[0]}–{run[-1]}" if run[1:] else str(run[0]) for run in neighbours(numbers)
    )


def _same(source: Store, job: Job, store: Store) -> None:
    other = read_job(source)
    if other is None:
        raise InvalidInput(
            f"{source.url}: holds no data set", "name a folder that galatea generate wrote"
        )
    if other != job:
        raise InvalidInput(
            f"{source.url}: is of another data set than {store.url}: "
            f"{'; '.join(job.differences(other))}",
            "merge what was made by the same command",
        )


def _files(source: Store, index: ShardIndex) -> Iterator[File]:
    for file in index.files:
        content = source.get(file.path) or b""
        if sha256(content).hexdigest() != file.sha256:
            raise InvalidInput(
                f"{source.url}: {file.path} was changed since it was made",
                "remove it and run the same galatea generate again",
            )
        yield File(file.path, content)
