"""Every format keeps pixels, masks and provenance, and its bytes are those of the samples alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pyarrow import parquet
from pydicom.uid import UID

from dataset_samples import COUNT, KINDS, READERS, grouped, samples, shard, write
from galatea import InvalidInput, MachineError, pictures
from galatea.datasets.formats import FORMATS, Shard, find_format

HELD = [
    (name, kind)
    for name, form in FORMATS.items()
    for kind in KINDS
    if form.holds(samples(kind).images.dtype, samples(kind).images.shape[-1])
]
REFUSED = [(name, kind) for name in FORMATS for kind in KINDS if (name, kind) not in HELD]


def digests() -> dict[str, str]:
    """The sha256 of all files of each format and kind, with their names."""
    found = {}
    for name, kind in HELD:
        digest = hashlib.sha256()
        for file in FORMATS[name].files(shard(kind)):
            digest.update(file.path.encode() + b"\0" + file.content)
        found[f"{name} {kind}"] = digest.hexdigest()
    return found


@pytest.mark.parametrize(("name", "kind"), HELD)
def test_pixels_masks_and_provenance_come_back(name: str, kind: str, tmp_path: Path) -> None:
    made = samples(kind)
    find_format(name).check(made.card)
    read = list(READERS[name](write(FORMATS[name], shard(kind), tmp_path)))
    assert len(read) == COUNT
    for i, sample in enumerate(read):
        assert sample.image.dtype == made.images.dtype
        assert np.array_equal(sample.image, made.images[i])
        if sample.mask is None or made.masks is None:
            assert sample.mask is made.masks is None
        else:
            assert np.array_equal(sample.mask, made.masks[i])
        assert sample.provenance.items() >= made.provenance(i).items()


@pytest.mark.parametrize(("name", "kind"), REFUSED)
def test_images_that_do_not_fit_are_refused_with_a_format_that_holds_them(
    name: str, kind: str
) -> None:
    card = samples(kind).card
    with pytest.raises(InvalidInput, match=f"{card.name} makes .* {name} cannot hold") as refused:
        FORMATS[name].check(card)
    FORMATS[refused.value.remedy.split()[1].strip(",")].check(card)


def test_another_process_at_another_time_and_place_gives_the_same_bytes(tmp_path: Path) -> None:
    elsewhere = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "PYTHONHASHSEED": "1",
        "TZ": "Pacific/Kiritimati",
        "USER": "somebody",
    }
    code = "import json, test_dataset_formats; print(json.dumps(test_dataset_formats.digests()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=elsewhere, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == digests()


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_a_shard_are_called_by_it_and_those_of_another_one_differ(name: str) -> None:
    first, second = (
        {file.path for file in FORMATS[name].files(shard("grey", index=k, start=k * COUNT))}
        for k in range(2)
    )
    assert not first & second
    assert all(re.match(r"000000[./]", path) for path in first)
    assert all(re.match(r"000001[./]", path) for path in second)


@pytest.mark.parametrize("name", ["png", "dicom", "nifti"])
@pytest.mark.parametrize("kind", ["grey", "wide"])
def test_pictures_are_read_upright_by_galatea_itself(name: str, kind: str, tmp_path: Path) -> None:
    write(FORMATS[name], shard(kind), tmp_path)
    read = {picture.name: picture for picture in pictures.read(tmp_path)}
    made = samples(kind)
    for i in range(COUNT):
        (picture,) = (read[key] for key in read if shard(kind).key(i) in key and "mask" not in key)
        assert np.array_equal(picture.pixels, made.images[i, :, :, 0])


def test_an_unknown_format_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match="no format 'jpeg'; choose one of: png, npz"):
        find_format("jpeg")


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.extra])
def test_a_missing_package_is_named_with_its_pip_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, FORMATS[name].module, None)
    with pytest.raises(MachineError, match=re.escape(f"'galatea[{FORMATS[name].extra}]'")):
        find_format(name)


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydicom as it is when everything that is not by the standard is an error."""
    for mode in ("reading_validation_mode", "writing_validation_mode"):
        monkeypatch.setattr(pydicom.config.settings, mode, pydicom.config.RAISE)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("kind", ["grey", "colour", "wide"])
def test_dicom_files_are_valid_and_say_that_they_are_synthetic(kind: str, tmp_path: Path) -> None:
    for path in write(FORMATS["dicom"], shard(kind), tmp_path):
        dataset = pydicom.dcmread(path)
        for element in dataset.iterall():
            assert element.VR not in ("DA", "DT", "TM") or not element.value, element
        assert dataset.SOPClassUID.name == "Secondary Capture Image Storage"
        assert dataset.ConversionType == "SYN"
        assert dataset.SyntheticData == "YES"
        assert dataset.ImageType == ["DERIVED", "SECONDARY"]
        assert dataset.BurnedInAnnotation == "NO"
        assert "not a patient" in dataset.DerivationDescription
        assert dataset.PatientID == f"galatea-5e5e5e5e5e5e5e5e-{path.name[:9]}"
        assert dataset.Modality == "MG"


def test_dicom_identifiers_are_of_the_sample_and_masks_refer_to_it(tmp_path: Path) -> None:
    def read(made: Shard, folder: str) -> list[pydicom.Dataset]:
        return [pydicom.dcmread(path) for path in write(FORMATS["dicom"], made, tmp_path / folder)]

    mask, image, *others = read(shard("grey"), "a")
    assert mask.ReferencedImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert mask.StudyInstanceUID == image.StudyInstanceUID != others[0].StudyInstanceUID
    assert mask.SeriesInstanceUID != image.SeriesInstanceUID
    moved = read(shard("grey", dataset="0d" * 32), "b")
    again = read(shard("grey", index=1, start=36), "c")  # the same job, cut into other shards
    assert again[1].SOPInstanceUID == others[1].SOPInstanceUID
    found = [dataset.SOPInstanceUID for dataset in (mask, image, *others, *moved)]
    assert len(set(found)) == 4 * COUNT
    assert all(UID(uid).is_valid and uid.startswith("2.25.") for uid in found)


@pytest.mark.parametrize(
    ("modality", "term"),
    [("MRI", "MR"), ("mr", "MR"), ("X-ray", "DX"), ("X-ray, CT, MRI and others", "OT"), ("", "OT")],
)
def test_dicom_has_a_modality_where_there_is_one(modality: str, term: str, tmp_path: Path) -> None:
    made = shard("colour", samples=samples("colour", modality))
    path, *_ = write(FORMATS["dicom"], made, tmp_path)
    assert pydicom.dcmread(path).Modality == term


def test_webdataset_is_decoded_by_its_own_library(tmp_path: Path) -> None:
    from webdataset import autodecode  # brings torch

    (path,) = write(FORMATS["webdataset"], shard("grey"), tmp_path)
    made = samples("grey")
    decoder = autodecode.Decoder([autodecode.imagehandler("l8")])
    read = [decoder(sample) for sample in grouped(path)]
    assert [sample["__key__"] for sample in read] == [shard("grey").key(i) for i in range(COUNT)]
    assert [sample["cls"] for sample in read] == [0, 1, 0, 1, 0]
    assert read[1]["json"]["seed"] == made.seeds[1]
    assert read[1]["json"]["label_name"] == "malignant"
    assert np.array_equal(read[1]["png"], made.images[1, :, :, 0])
    assert made.masks is not None
    assert np.array_equal(read[1]["mask.png"], made.masks[1, :, :, 0])


def test_parquet_has_typed_columns_and_tells_what_they_are(tmp_path: Path) -> None:
    (path,) = write(FORMATS["parquet"], shard("grey"), tmp_path)
    table = parquet.read_table(path)
    metadata = table.schema.metadata
    assert json.loads(metadata[b"huggingface"])["info"]["features"] == {
        "image": {"_type": "Image"},
        "mask": {"_type": "Image"},
        "label": {"names": ["benign", "malignant"], "_type": "ClassLabel"},
    }
    assert json.loads(metadata[b"galatea"])["galatea:model"] == "made-grey"
    assert table.column("image")[2]["path"].as_py() == "000000037.png"
    (path,) = write(FORMATS["parquet"], shard("stack"), tmp_path)
    types = {column.name: str(column.type) for column in parquet.read_schema(path)}
    assert list(types) == ["key", "seed", "label", "truncation", "label_name", "image", "mask"]
    assert types["truncation"] == "float"


def test_16_bits_are_saved_as_png_by_samples_too(tmp_path: Path) -> None:
    made = samples("wide")
    path, *_ = made.save(tmp_path)
    with Image.open(path) as image:
        assert image.mode == made.pil(0).mode == "I;16"
        assert np.array_equal(np.asarray(image), made.images[0, :, :, 0])
