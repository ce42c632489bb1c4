"""Samples of every kind, made without a server, and readers of every format of data sets."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from galatea.card import Input, ModelCard, Output
from galatea.datasets.formats import Format, Shard
from galatea.samples import Samples

HEIGHT, WIDTH, COUNT = 23, 17, 5  # an odd number of pixels, so that nothing fits by chance
SEED = Input("seed", "INT64")
LABEL = Input("label", "INT64", labels=("benign", "malignant"))
TRUNCATION = Input("truncation", "FP32", default=0.7, minimum=0.0, maximum=1.0)

# By name: type and channels of the image, whether there are masks, and the conditions.
KINDS: dict[str, tuple[Any, tuple[str, ...], bool, tuple[Input, ...]]] = {
    "grey": ("UINT8", ("intensity",), True, (LABEL,)),
    "colour": ("UINT8", ("red", "green", "blue"), False, ()),
    "wide": ("UINT16", ("intensity",), False, (TRUNCATION,)),
    "stack": ("FP32", ("flair", "t1", "t1c", "t2", "tumour"), True, (LABEL, TRUNCATION)),
}


def samples(kind: str, modality: str = "mammography") -> Samples:
    """Five samples of :data:`KINDS`, always the same."""
    dtype, channels, masked, inputs = KINDS[kind]
    random = np.random.default_rng(len(kind))
    shape = (COUNT, HEIGHT, WIDTH, len(channels))
    images: NDArray[Any] = random.normal(0.5, 1, shape).astype(np.float32)
    if dtype != "FP32":
        numpy = np.dtype(dtype.lower())
        images = random.integers(0, np.iinfo(numpy).max, shape, numpy, endpoint=True)
    masks = (random.integers(0, 2, (*shape[:3], 1)) * 255).astype(np.uint8) if masked else None
    outputs = [Output("image", dtype, shape[1:], channels)]
    outputs += [Output("mask", "UINT8", (HEIGHT, WIDTH, 1), ("mass",))] if masked else []
    values = {
        "label": np.arange(COUNT) % 2,
        "truncation": np.linspace(0, 0.7, COUNT).astype(np.float32),
    }
    card = ModelCard(
        name=f"made-{kind}", version=3, family="dcgan_mammo", task="unconditional",
        inputs=(SEED, *inputs), outputs=tuple(outputs), modality=modality,
        licence="CC0-1.0 – für alle", checkpoint_sha256="ab" * 32, exporter="galatea 0.1.0",
    )  # fmt: skip
    conditions = {entry.name: values[entry.name] for entry in inputs}
    return Samples(images, masks, np.arange(COUNT) + 2**40, conditions, card)


def shard(kind: str, **facts: Any) -> Shard:
    return Shard(
        **{"index": 7, "start": 35, "samples": samples(kind), "dataset": "5e" * 32, **facts}
    )


def write(form: Format, made: Shard, folder: Path) -> list[Path]:
    """Writes a shard and gives the paths of its files."""
    paths = []
    for file in form.files(made):
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        paths.append(path)
    return paths


@dataclass(frozen=True)
class Read:
    """A sample as a file has it: image [H, W, C], mask [H, W, 1], and where they are from."""

    image: NDArray[Any]
    mask: NDArray[Any] | None
    provenance: dict[str, str]


def by_key(paths: list[Path], suffix: str) -> Iterator[tuple[Path, Path | None]]:
    """Each image with its mask, in the order of the keys."""
    for path in sorted(path for path in paths if path.name.endswith(suffix)):
        if not path.name.endswith(f"-mask{suffix}"):
            mask = path.with_name(path.name.removesuffix(suffix) + f"-mask{suffix}")
            yield path, mask if mask in paths else None


def read_png(paths: list[Path]) -> Iterator[Read]:
    for path, mask in by_key(paths, ".png"):
        image, told = decode(path.read_bytes())
        yield Read(image, None if mask is None else decode(mask.read_bytes())[0], told)


def decode(content: bytes) -> tuple[NDArray[Any], dict[str, str]]:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        pixels = np.asarray(image)
        told = {str(key): str(value) for key, value in image.info.items()}
        return pixels.reshape(*pixels.shape[:2], -1), told


def read_npz(paths: list[Path]) -> Iterator[Read]:
    (path,) = paths
    with np.load(path) as arrays:
        told = json.loads(arrays["provenance"].item())
        names = {"keys": "key", "seeds": "seed", "label_names": "label_name"}
        columns = {
            names.get(name, name): arrays[name]
            for name in arrays.files
            if name not in ("images", "masks", "provenance")
        }
        for i, image in enumerate(arrays["images"]):
            mask = arrays["masks"][i] if "masks" in arrays else None
            yield Read(image, mask, {**told, **of_row(columns, i)})


def of_row(columns: dict[str, NDArray[Any]], i: int) -> dict[str, str]:
    return {f"galatea:{name}": str(values[i]) for name, values in columns.items()}


def grouped(path: Path) -> list[dict[str, Any]]:
    """The samples of a tar archive, by WebDataset's own library; its files end before this does."""
    from webdataset import tariterators  # brings torch

    with path.open("rb") as stream:
        source = [{"url": path.name, "stream": stream}]
        return [*tariterators.group_by_keys(tariterators.tar_file_expander(source))]


def read_webdataset(paths: list[Path]) -> Iterator[Read]:
    (path,) = paths
    for sample in grouped(path):
        png = sample.get("png")
        image = np.load(io.BytesIO(sample["npy"])) if png is None else decode(png)[0]
        mask = decode(sample["mask.png"])[0] if "mask.png" in sample else None
        yield Read(image, mask, json.loads(sample["json"])["provenance"])


def read_parquet(paths: list[Path]) -> Iterator[Read]:
    (path,) = paths
    table = parquet.read_table(path)
    told = json.loads(table.schema.metadata[b"galatea"])
    images = table.column("image")
    plain = [name for name in table.column_names if name not in ("image", "mask")]
    columns = {name: table.column(name).to_numpy() for name in plain}
    for i in range(table.num_rows):
        image, mask = images[i].as_py(), None
        pixels = decode(image["bytes"])[0] if "bytes" in image else np.array(image, np.float32)
        if "mask" in table.column_names:
            mask = decode(table.column("mask")[i]["bytes"].as_py())[0]
        yield Read(pixels, mask, {**told, **of_row(columns, i)})


def read_dicom(paths: list[Path]) -> Iterator[Read]:
    def pixels(path: Path) -> NDArray[Any]:
        array: NDArray[Any] = pydicom.dcmread(path).pixel_array
        return array.reshape(*array.shape[:2], -1)

    for path, mask in by_key(paths, ".dcm"):
        told = json.loads(pydicom.dcmread(path).ImageComments)
        yield Read(pixels(path), None if mask is None else pixels(mask), told)


def read_nifti(paths: list[Path]) -> Iterator[Read]:
    def pixels(path: Path) -> NDArray[Any]:
        voxels: NDArray[Any] = np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined] # nibabel's own
        return voxels.reshape(*voxels.shape[:2], -1).transpose(1, 0, 2)

    for path, mask in by_key(paths, ".nii.gz"):
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        told = json.loads(sidecar.read_text())["provenance"]
        yield Read(pixels(path), None if mask is None else pixels(mask), told)


READERS: dict[str, Callable[[list[Path]], Iterator[Read]]] = {
    "png": read_png,
    "npz": read_npz,
    "webdataset": read_webdataset,
    "parquet": read_parquet,
    "dicom": read_dicom,
    "nifti": read_nifti,
}
