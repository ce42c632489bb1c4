"""Volumes: saved as NIfTI, shown by their middle slices, kept by the formats that can."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from dataset_samples import SEED, grouped, write
from galatea import Client, InvalidInput, MachineError, datasets, pictures
from galatea.card import ModelCard, Output
from galatea.datasets.formats import FORMATS, Shard
from galatea.samples import Samples

SIZE = 5, 7, 6  # X, Y, Z
SPACING = 1.0, 1.5, 2.0  # mm


def volumes(channels: tuple[str, ...] = ("T1",)) -> Samples:
    """Two volumes with masks, always the same."""
    random = np.random.default_rng(0)
    images = random.random((2, *SIZE, len(channels)), np.float32)
    masks = (images[..., :1] > 0.5).astype(np.uint8)
    card = ModelCard(
        name="brain", version=2, family="monai_ldm", task="unconditional", inputs=(SEED,),
        outputs=(
            Output("image", "FP32", images.shape[1:], channels, SPACING),
            Output("mask", "UINT8", masks.shape[1:], ("ventricles",), SPACING),
        ),
        licence="CC0-1.0", exporter="galatea 0.1.0",
    )  # fmt: skip
    return Samples(images, masks, np.arange(2) + 40, {}, card)


def load(path: Path) -> tuple[NDArray[Any], Any]:
    """Voxels and the whole image, by nibabel."""
    image: Any = nibabel.load(path)
    return np.asanyarray(image.dataobj), image


def test_volumes_are_saved_as_nifti_in_millimetres(tmp_path: Path) -> None:
    made = volumes()
    assert made.masks is not None
    paths = made.save(tmp_path)
    names = ["brain-v2-000000000040.nii.gz", "brain-v2-000000000041.nii.gz"]
    assert [path.name for path in paths] == names
    voxels, image = load(paths[1])
    assert voxels.dtype == np.float32
    assert np.array_equal(voxels, made.images[1, ..., 0])
    assert np.array_equal(image.affine, np.diag([*SPACING, 1.0]))
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header["descrip"].item() == b"synthetic; seed 41; brain v2"
    mask, _ = load(tmp_path / "brain-v2-000000000041-mask.nii.gz")
    assert np.array_equal(mask, made.masks[1, ..., 0])
    told = json.loads((tmp_path / "brain-v2-000000000041.json").read_text())
    assert told == {**made.provenance(1), "channels": "T1"}
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in made.save(tmp_path)] == before


def test_channels_are_the_fourth_axis(tmp_path: Path) -> None:
    made = volumes(("T1", "FLAIR"))
    voxels, _ = load(made.save(tmp_path)[0])
    assert np.array_equal(voxels, made.images[0])


def test_a_grid_shows_the_middle_slices_as_a_reader_of_the_file_does(tmp_path: Path) -> None:
    made = volumes()
    shown = np.asarray(made.grid())[:, :, 0]
    path, _ = made.save(tmp_path)
    left = 0
    for axis, size in (("axial", SIZE[2]), ("coronal", SIZE[1]), ("sagittal", SIZE[0])):
        middle = slice(size // 2, size // 2 + 1)
        (picture,) = pictures.read(path, axis=axis, slices=middle)
        levels = np.rint(picture.pixels * 255)
        height, width = levels.shape
        assert np.array_equal(shown[:height, left : left + width], levels)
        left += width
    assert made.grid(outline=True).tobytes() != made.grid().tobytes()


def test_pillow_takes_no_volume() -> None:
    with pytest.raises(InvalidInput, match=r"brain makes volumes.*\.grid\(\)"):
        volumes().pil(0)


def test_without_nibabel_nothing_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MachineError, match=r"pip install 'galatea\[nifti\]'"):
        replace(volumes(), masks=None).save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_formats_keep_volumes_or_refuse_them(name: str, tmp_path: Path) -> None:
    made, form = volumes(), FORMATS[name]
    assert made.masks is not None
    if not form.volumes:
        with pytest.raises(InvalidInput, match=f"brain makes volumes, which {name} cannot hold"):
            form.check(made.card)
        return
    form.check(made.card)
    images, masks = read(name, write(form, Shard(0, 0, made, "5e" * 32), tmp_path))
    assert np.array_equal(images, made.images)
    assert np.array_equal(masks, made.masks)


def read(name: str, paths: list[Path]) -> tuple[Any, Any]:
    """Volumes and masks of a shard."""
    if name == "npz":
        with np.load(paths[0]) as arrays:
            return arrays["images"], arrays["masks"]
    if name == "webdataset":
        rows = grouped(paths[0])
        return tuple(
            np.stack([np.load(io.BytesIO(row[suffix])) for row in rows])
            for suffix in ("npy", "mask.npy")
        )
    files = sorted(path for path in paths if path.name.endswith(".nii.gz"))
    voxels = [load(path)[0][..., None] for path in files]
    return np.stack(voxels[1::2]), np.stack(voxels[::2])


def test_a_served_generator_makes_volumes_and_data_sets_of_them(
    client: Client, tmp_path: Path
) -> None:
    card = next(card for card in client.models() if len(card.image.shape) == 4)
    made = client.sample(card.name, 2, seed=3, steps=2)
    path, _ = made.save(tmp_path / "saved")
    voxels, image = load(path)
    assert voxels.shape == card.image.shape[:3]
    assert np.array_equal(image.affine, np.diag([*(card.image.spacing or (1, 1, 1)), 1]))
    folder = tmp_path / "set"
    datasets.generate(client, card.name, 2, folder, seed=3, steps=2, format="nifti")
    assert datasets.verify(folder) == []
    kept, _ = load(folder / "000000" / "000000000.nii.gz")
    assert np.array_equal(kept, voxels)
    with pytest.raises(InvalidInput, match="which png cannot hold"):
        datasets.generate(client, card.name, 2, tmp_path / "png", steps=2)
    assert not (tmp_path / "png").exists()
