"""Making a data set, or going on where that was interrupted."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from galatea.client import Client
from galatea.datasets._cut import cut, neighbours
from galatea.datasets._job import JOB, Job, new_job
from galatea.datasets._manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    ShardIndex,
    index_path,
    read_job,
)
from galatea.datasets._prompts import Prompts, read_rows
from galatea.datasets._stores import Store, open_store
from galatea.datasets.formats import File, Format, Shard, find_format
from galatea.errors import InvalidInput, ModelUnavailable
from galatea.samples import Samples

__all__ = ["Outcome", "generate"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What a call of :func:`generate` did.

    Attributes:
        job: what the data set is made of.
        found: samples of this worker's shards that were there before.
        made: samples that were made now.
        manifest: of the whole data set; None where other workers make the rest of it.
    """

    job: Job
    found: int
    made: int
    manifest: Manifest | None


def generate(
    client: Client,
    name: str,
    n: int | None,
    output: str | Path,
    *,
    prompts: Prompts | None = None,
    seed: int | None = None,
    labels: Any = None,
    format: str = "png",
    shard_size: int | None = None,
    batch_size: int | None = None,
    shard: tuple[int, int] = (0, 1),
    progress: Progress = lambda done, total: None,
    **conditions: Any,
) -> Outcome:
    """Makes a data set, or what is missing of it.

    Interrupted at any moment and called again, it goes on with the shards that are missing, and the
    files become the same as if nothing had happened. Memory does not grow with `n`: one shard is
    received while the one before it is written.

    Args:
        client: of the servers to sample from.
        name: the model. Its version is that of the first call.
        n: number of samples; None with `prompts`, which say it.
        output: a folder, or a URL such as ``s3://bucket/prefix``; empty, or with this data set.
        prompts: what the samples show: a CSV or JSON Lines file, or such rows as dictionaries, with
            ``prompt`` and, where wanted, ``n``, ``label`` and conditions of the model. Every shard
            has its share of each label.
        seed: of the first sample; by default that of the data set that is there, else random.
        labels: a class, a list of `n` classes, weights by class, or "balanced", the default; not
            where the prompts have labels.
        format: one of :data:`galatea.datasets.FORMATS`.
        shard_size: samples that are written together; default is 1000, or fewer where that is more
            than 16 MiB of pixels.
        batch_size: samples a request; see :meth:`galatea.Client.stream`.
        shard: (k, N): make the k-th of N equal parts of the data set, so that N workers share it
            without knowing of each other. Give all of them the same seed, then call :func:`merge`.
        progress: called with the samples that are there and those that shall be, of this part.
        conditions: other inputs of the model, as its card names them.

    Raises:
        InvalidInput: an argument that the card or the format does not allow, a row of the prompts
            that is wrong (file and line are named), or the folder holds something else; says what
            differs.
        MachineError: the folder cannot be written, the disk is full, or a package is missing.
        ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
            see :mod:`galatea.errors`. Calling again goes on.
    """
    store = open_store(output)
    form = find_format(format)
    if seed is None:
        earlier = read_job(store)
        if earlier is None and shard[1] > 1:
            raise InvalidInput("the workers of a data set need the same seed", "give a seed")
        seed = secrets.randbits(32) if earlier is None else earlier.seed
    if labels is not None:
        if conditions.get("label") is not None:
            raise InvalidInput("both label and labels are given", "give one of them")
        conditions["label"] = labels
    card = client.model(name)
    rows = () if prompts is None else read_rows(prompts, card, conditions)
    job = new_job(card, n, seed, conditions, form, shard_size, rows)
    return carry_out(client, job, store, shard=shard, batch_size=batch_size, progress=progress)


def carry_out(
    client: Client,
    job: Job,
    store: Store,
    *,
    shard: tuple[int, int],
    batch_size: int | None,
    progress: Progress,
) -> Outcome:
    """Makes what is missing of the part `shard` of a job; see :func:`generate`."""
    part, parts = shard
    if not 0 <= part < parts:
        raise InvalidInput(f"part {part} of {parts}", f"give 0 … {max(parts, 1) - 1}")
    # Nothing is sent before the first batch is taken: this checks every argument of the job.
    client.stream(job.card.name, job.n, seed=job.seed, batch_size=batch_size,
                  **job.arguments())  # fmt: skip
    mine = range(job.shards * part // parts, job.shards * (part + 1) // parts)
    sizes = store.sizes()
    claim(store, job, sizes)
    there = {index.index for index, _ in found(store, job, mine, sizes)}
    del sizes  # of many small files it is large
    missing = [k for k in mine if k not in there]
    before = sum(map(job.count, there))
    made = sum(map(job.count, missing))
    total, done = before + made, before
    progress(done, total)

    def counted(batches: Iterable[Samples]) -> Iterator[Samples]:
        nonlocal done
        for batch in batches:
            done += len(batch)
            progress(done, total)
            yield batch

    for run in neighbours(missing):
        batches = counted(_stream(client, job, run, batch_size))
        _write(store, job, run, cut(batches, map(job.count, run)))
    manifest = finish(store, job) if parts == 1 else None
    return Outcome(job, before, made, manifest)


def claim(store: Store, job: Job, sizes: dict[str, int]) -> None:
    """Makes sure that a store holds this job and no other one; an empty one holds it from now on.

    Args:
        sizes: what the store has said that it holds.

    Raises:
        InvalidInput: it holds another one, or something else.
    """
    there = read_job(store)
    if there is None and sizes:
        raise InvalidInput(
            f"{store.url}: holds other files, such as {min(sizes)}", "choose an empty folder"
        )
    if there is None:
        store.put([File(JOB, job.to_json())])
    elif there != job:
        raise InvalidInput(
            f"{store.url}: holds another data set: {'; '.join(job.differences(there))}",
            "ask for the same to go on with it, or choose another folder",
        )


def found(
    store: Store, job: Job, shards: Iterable[int], sizes: dict[str, int]
) -> Iterator[tuple[ShardIndex, bytes]]:
    """Those of the shards that a store has, each with the content of its index.

    A shard is there when its index is, and all its files have the bytes that the index says.
    """
    for k in shards:
        content = store.get(index_path(k)) if index_path(k) in sizes else None
        if content is not None:
            try:
                index = ShardIndex.read(content, job, k)
            except ValueError:
                continue  # half of an index, where a store does not write files at once
            if all(sizes.get(file.path) == file.size for file in index.files):
                yield index, content


def finish(store: Store, job: Job) -> Manifest:
    """Writes the manifest of a data set whose shards are all there.

    Raises:
        InvalidInput: somebody has changed a shard's index since it was found.
    """

    def indexes() -> Iterator[tuple[ShardIndex, bytes]]:
        for k in range(job.shards):
            content = store.get(index_path(k)) or b""
            try:
                index = ShardIndex.read(content, job, k)
            except ValueError as error:
                raise InvalidInput(
                    f"{store.url}: {index_path(k)} was changed meanwhile: {error}",
                    "let nobody else write there, and run the same command again",
                ) from error
            yield index, content

    manifest = Manifest.of(job, indexes())
    content = manifest.to_json()
    if store.get(MANIFEST) != content:
        store.clean()
        store.put([File(MANIFEST, content)])
    return manifest


def _stream(
    client: Client, job: Job, shards: Sequence[int], batch_size: int | None
) -> Iterator[Samples]:
    """The samples of neighbouring shards."""
    start, stop = job.start(shards[0]), job.start(shards[-1] + 1)
    for batch in client.stream(
        job.card.name, stop - start,
        start=start, seed=job.seed, batch_size=batch_size, **job.arguments(stop),
    ):  # fmt: skip
        if batch.card != job.card:
            raise ModelUnavailable(
                f"{job.card.name} version {batch.card.version} has taken the place of version "
                f"{job.card.version}, which the data set is made of",
                "serve that version again; the same command then goes on where this one stopped",
            )
        if job.own_labels is None:
            yield batch
        else:
            labels = job.own_labels[batch.seeds - job.seed]
            labelled = {**batch.conditions, "label": labels}
            yield replace(batch, conditions=labelled, classes=job.classes)


def _write(store: Store, job: Job, shards: Sequence[int], runs: Iterator[Samples]) -> None:
    """Writes shards, each while the next one is on its way."""
    form = find_format(job.format)
    digest = job.digest
    with ThreadPoolExecutor(1, "galatea-writer") as writer:
        writing: Future[None] | None = None
        for k, samples in zip(shards, runs, strict=True):
            if writing is not None:
                writing.result()
            shard = Shard(k, job.start(k), samples, digest)
            writing = writer.submit(_write_shard, store, job, form, shard)
        if writing is not None:
            writing.result()


def _write_shard(store: Store, job: Job, form: Format, shard: Shard) -> None:
    entries = []

    def files() -> Iterator[File]:
        for file in form.files(shard):
            entries.append(FileEntry.of(file))
            yield file

    store.put(files())
    index = ShardIndex.of(job, shard, entries)
    store.put([File(index_path(shard.index), index.to_json())])
