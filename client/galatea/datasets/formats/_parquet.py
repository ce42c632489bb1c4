"""Parquet: a row for each sample, as Hugging Face ``datasets`` and any Arrow reader take it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from galatea import _png
from galatea.datasets.formats._format import File, Format, Shard

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 256  # a reader that wants one row decodes its group


class Parquet(Format):
    """``SHARD.parquet`` with the columns key, seed, the conditions, label_name, image and mask.

    Images and masks are PNG in a struct of ``bytes`` and ``path``, which ``datasets`` knows by the
    schema's metadata as images; images that PNG cannot hold are nested lists [H, W, C]. The
    metadata ``galatea`` is the JSON of what is the same for all rows.
    """

    name = "parquet"
    title = "Parquet tables, as Hugging Face datasets reads them"
    extra = "parquet"
    module = "pyarrow.parquet"
    packages = ("pyarrow", "Pillow")

    def files(self, shard: Shard) -> Iterator[File]:
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.table(_columns(shard))
        told = {
            "galatea": _json(shard.provenance()),
            "huggingface": _json({"info": {"features": _features(shard, table.schema)}}),
        }
        sink = pa.BufferOutputStream()
        # PNG is compressed already; of other columns Zstandard makes less.
        parquet.write_table(
            table.replace_schema_metadata(told), sink, compression="zstd", row_group_size=ROWS
        )
        yield File(f"{shard.stem()}.parquet", memoryview(sink.getvalue()))


def _columns(shard: Shard) -> dict[str, Any]:
    import pyarrow as pa

    samples = shard.samples
    rows = [shard.facts(i) for i in range(len(shard))]
    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
    # The conditions' own types, of which Python's numbers know nothing.
    columns |= {name: pa.array(values) for name, values in samples.conditions.items()}
    images = samples.images
    if _png.fits(images.dtype, images.shape[-1]):
        columns["image"] = _pictures(shard, images, "")
    else:
        columns["image"] = _nested(images)
    if samples.masks is not None:
        columns["mask"] = _pictures(shard, samples.masks, "-mask")
    return columns


def _pictures(shard: Shard, pictures: NDArray[Any], ending: str) -> pa.Array:
    """A column of PNG files, in the layout of the feature ``Image`` of ``datasets``."""
    import pyarrow as pa

    files = [
        {
            "bytes": _png.encode(pixels, shard.samples.provenance(i)),
            "path": f"{shard.key(i)}{ending}.png",
        }
        for i, pixels in enumerate(pictures)
    ]
    return pa.array(files, pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def _nested(images: NDArray[Any]) -> pa.Array:
    """A column of lists of lists of lists, from images [n, H, W, C]."""
    import pyarrow as pa

    column = pa.array(images.ravel())
    for size in images.shape[:0:-1]:
        ends = np.arange(0, len(column) + 1, size, dtype=np.int32)
        column = pa.ListArray.from_arrays(ends, column)
    return column


def _features(shard: Shard, schema: pa.Schema) -> dict[str, Any]:
    """What ``datasets`` shall make of the columns that say too little by their type."""
    import pyarrow as pa

    features: dict[str, Any] = {
        column.name: {"_type": "Image"} for column in schema if pa.types.is_struct(column.type)
    }
    if classes := shard.samples.class_names:
        features["label"] = {"names": list(classes), "_type": "ClassLabel"}
    return features


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
