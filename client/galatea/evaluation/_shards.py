"""The images of a data set's shard, whatever format it was written in."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.datasets import Job, ShardIndex
from galatea.datasets._manifest import index_path
from galatea.errors import InvalidInput
from galatea.extras import needs_extra
from galatea.pictures import File, Picture, read_files

__all__ = ["shard_items"]

SINGLE = (".png", ".dcm", ".nii.gz")  # of files that hold one image


def shard_items(root: Path, job: Job, shard: int) -> Iterator[tuple[Picture, str | None]]:
    """Each image of a shard with its class, in the order of the samples.

    Raises:
        InvalidInput: a file is missing or damaged, or the images are volumes.
        MachineError: an extra is missing; says which.
    """
    path = root / index_path(shard)
    try:
        index = ShardIndex.read(path.read_bytes(), job, shard)
        labels = index.conditions.get("label")
        names = [None if labels is None else job.classes[int(label)] for label in labels or ()]
        count = 0
        for file in index.files:
            for picture in _pictures(root / file.path):
                yield picture, names[count] if names else None
                count += 1
        if count != index.count:
            raise ValueError(f"{count} images of {index.count} are there")
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        raise InvalidInput(
            f"{path}: its images cannot be read: {error}", f"run: galatea dataset verify {root}"
        ) from error


def _pictures(path: Path) -> Iterator[Picture]:
    name = path.name
    if name.endswith(".npz"):
        with np.load(path, allow_pickle=False) as arrays:
            for key, pixels in zip(arrays["keys"], arrays["images"], strict=True):
                yield _picture(str(key), pixels)
    elif name.endswith(".tar"):
        yield from _tar(path)
    elif name.endswith(".parquet"):
        yield from _parquet(path)
    elif name.endswith(SINGLE):
        key = name.partition(".")[0]
        if not key.endswith("-mask"):
            yield from read_files([File(key, path, named=True)])


def _tar(path: Path) -> Iterator[Picture]:
    with tarfile.open(path) as archive:
        for member in archive:
            key, _, suffix = member.name.partition(".")
            content = archive.extractfile(member) if suffix in ("png", "npy") else None
            if content is not None:
                data = content.read()
                yield _picture(key, _png(data) if suffix == "png" else np.load(io.BytesIO(data)))


def _parquet(path: Path) -> Iterator[Picture]:
    with needs_extra("parquet"):
        from pyarrow import parquet
    for batch in parquet.ParquetFile(path).iter_batches(columns=["key", "image"]):
        for row in batch.to_pylist():
            image = row["image"]
            pixels = _png(image["bytes"]) if isinstance(image, dict) else np.array(image)
            yield _picture(row["key"], pixels)


def _picture(name: str, pixels: NDArray[Any]) -> Picture:
    if pixels.ndim == 4:
        raise InvalidInput(f"{name}: a volume is no image", "evaluate slices of it")
    return Picture(name, pixels)


def _png(content: bytes) -> NDArray[Any]:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return np.array(image)
