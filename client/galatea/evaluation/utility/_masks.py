"""The masks of a data set's shard."""

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
from galatea.pictures import File, read_files

__all__ = ["shard_masks"]

FILES = ("-mask.png", "-mask.dcm", "-mask.nii.gz")


def shard_masks(root: Path, job: Job, shard: int) -> Iterator[NDArray[np.uint8]]:
    """The mask of each sample, uint8 [H, W], in their order; none where the model makes none.

    Raises:
        InvalidInput: a file is missing or damaged.
        MachineError: an extra is missing; says which.
    """
    path = root / index_path(shard)
    try:
        index = ShardIndex.read(path.read_bytes(), job, shard)
        count = 0
        for file in index.files:
            for mask in _masks(root / file.path):
                yield (mask.reshape(mask.shape[:2]) > 0).astype(np.uint8)
                count += 1
        if count not in (0, index.count):
            raise ValueError(f"{count} masks of {index.count} are there")
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        raise InvalidInput(
            f"{path}: its masks cannot be read: {error}", f"run: galatea dataset verify {root}"
        ) from error


def _masks(path: Path) -> Iterator[NDArray[Any]]:
    name = path.name
    if name.endswith(".npz"):
        with np.load(path, allow_pickle=False) as arrays:
            yield from arrays.get("masks", ())
    elif name.endswith(".tar"):
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if _is_mask(member.name) else None
                if content is not None:
                    yield _png(content.read())
    elif name.endswith(".parquet"):
        with needs_extra("parquet"):
            from pyarrow import parquet
        table = parquet.ParquetFile(path)
        columns = [name for name in table.schema_arrow.names if name == "mask"]
        for batch in table.iter_batches(columns=columns) if columns else ():
            for row in batch.to_pylist():
                yield _png(row["mask"]["bytes"])
    elif name.endswith(FILES):
        for picture in read_files([File(name.partition(".")[0], path, named=True)]):
            yield picture.pixels


def _is_mask(member: str) -> bool:
    return member.partition(".")[2] == "mask.png"


def _png(content: bytes) -> NDArray[Any]:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return np.array(image)
