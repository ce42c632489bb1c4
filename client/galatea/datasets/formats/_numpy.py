"""NumPy: all arrays of a shard in one ``.npz``, or one array as ``.npy``."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from galatea.datasets.formats._format import File, Format, Shard

UNIX = 3  # of the systems that a zip archive may come from


class Npz(Format):
    """``SHARD.npz``: images, masks, keys, seeds and each condition as arrays.

    ``provenance`` is the UTF-8 JSON of what is the same for all samples. Nothing is compressed or
    pickled.
    """

    name = "npz"
    title = "NumPy arrays of whole shards"
    packages = ("numpy",)
    volumes = True

    def files(self, shard: Shard) -> Iterator[File]:
        samples = shard.samples
        arrays: dict[str, NDArray[Any]] = {"images": samples.images}
        if samples.masks is not None:
            arrays["masks"] = samples.masks
        arrays["seeds"] = samples.seeds
        rows = [shard.facts(i) for i in range(len(shard))]
        arrays["keys"] = np.array([row["key"] for row in rows])
        if "label_name" in rows[0]:
            arrays["label_names"] = np.array([row["label_name"] for row in rows])
        arrays |= {name: _plain(values) for name, values in samples.conditions.items()}
        told = json.dumps(shard.provenance(), ensure_ascii=False)
        arrays["provenance"] = np.array(told.encode())
        yield File(f"{shard.stem()}.npz", archive(arrays))


def archive(arrays: dict[str, NDArray[Any]]) -> memoryview:
    """An ``.npz`` file; unlike that of ``np.savez``, its bytes are fixed by its arrays alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")  # its date is 1980-01-01
            info.create_system = UNIX
            with target.open(info, "w", force_zip64=True) as member:
                _write(member, array)
    return buffer.getbuffer()


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Texts in NumPy's own type: those of Python would have to be pickled."""
    return values.astype(np.str_) if values.dtype == object else values


def npy(array: NDArray[Any]) -> memoryview:
    """An ``.npy`` file."""
    buffer = io.BytesIO()
    _write(buffer, array)
    return buffer.getbuffer()


def _write(file: IO[bytes], array: NDArray[Any]) -> None:
    np.save(file, np.asarray(array, order="C"), allow_pickle=False)
