"""Pictures from files of every kind, and the levels that they become."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from nibabel.testing import data_path
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file

from galatea import InvalidInput, pictures
from galatea.pictures import Picture

NIFTI = Path(str(data_path))
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (40, 30), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (40, 30, 3), dtype=np.uint8)
WIDE = RANDOM.integers(0, 4096, (40, 30), dtype=np.uint16)


def only(path: Path | str, **options: Any) -> Picture:
    (picture,) = pictures.read(path, **options)
    return picture


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_8_bit_files_are_read_as_they_are(
    tmp_path: Path, suffix: str, pixels: NDArray[np.uint8]
) -> None:
    path = tmp_path / f"scan.{suffix}"
    Image.fromarray(pixels).save(path)
    picture = only(path)
    assert picture.name == "scan"
    assert np.array_equal(picture.pixels, pixels)
    assert np.array_equal(picture.to_levels(), pixels)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_files_keep_their_values_and_become_levels_from_min_to_max(
    tmp_path: Path, suffix: str
) -> None:
    Image.fromarray(WIDE).save(tmp_path / f"scan.{suffix}")
    picture = only(tmp_path / f"scan.{suffix}")
    assert np.array_equal(picture.pixels, WIDE)
    low, high = int(WIDE.min()), int(WIDE.max())
    expected = np.rint((WIDE - float(low)) / (high - low) * 255)
    assert np.array_equal(picture.to_levels(), expected)


def test_transparency_is_dropped_and_palettes_are_colours(tmp_path: Path) -> None:
    colour = Image.fromarray(COLOUR)
    colour.putalpha(7)
    colour.save(tmp_path / "alpha.png")
    assert np.array_equal(only(tmp_path / "alpha.png").pixels, COLOUR)
    palette = Image.fromarray(COLOUR).quantize(8)
    palette.save(tmp_path / "palette.png")
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(only(tmp_path / "palette.png").pixels, expected)
    Image.fromarray(GREY > 99).save(tmp_path / "bits.png")
    assert set(np.unique(only(tmp_path / "bits.png").to_levels())) == {0, 255}


def test_every_page_of_a_tiff_is_a_picture(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    first, second = pictures.read(tmp_path / "pages.tif")
    assert (first.name, second.name) == ("pages-0001", "pages-0002")
    assert np.array_equal(second.pixels, 255 - GREY)


def test_numpy_files_hold_one_picture_or_many(tmp_path: Path) -> None:
    stack = RANDOM.normal(size=(3, 40, 30)).astype(np.float32)
    np.save(tmp_path / "one.npy", stack[0])
    np.save(tmp_path / "channels.npy", stack.transpose(1, 2, 0))
    np.save(tmp_path / "many.npy", stack)
    np.savez(tmp_path / "archive.npz", **{"first": stack[0], "../second": stack[1:]})
    assert np.array_equal(only(tmp_path / "one.npy").pixels, stack[0])
    assert only(tmp_path / "channels.npy").pixels.shape == (40, 30, 3)
    many = list(pictures.read(tmp_path / "many.npy"))
    assert [picture.name for picture in many] == ["many-000000", "many-000001", "many-000002"]
    assert np.array_equal(np.stack([picture.pixels for picture in many]), stack)
    names = [picture.name for picture in pictures.read(tmp_path / "archive.npz")]
    assert names == ["archive-first", "archive-.._second-000000", "archive-.._second-000001"]


def test_a_numpy_file_cannot_run_code(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([print], object), allow_pickle=True)
    with pytest.raises(InvalidInput, match=r"objects\.npy: cannot be read"):
        only(tmp_path / "objects.npy")


def dicom(name: str, change: Callable[[Any], None], folder: Path) -> Path:
    """A real DICOM file with some attributes changed."""
    dataset = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    change(dataset)
    dataset.save_as(folder / "scan.dcm")
    return folder / "scan.dcm"


def test_dicom_is_read_in_real_world_units() -> None:
    path = get_testdata_file("CT_small.dcm", download=False)
    picture = only(str(path))
    stored = pydicom.dcmread(str(path)).pixel_array
    assert picture.name == "CT_small"
    assert np.array_equal(picture.pixels, stored.astype(float) - 1024)  # Hounsfield units
    low, high = picture.pixels.min(), picture.pixels.max()
    expected = np.rint((picture.pixels - low) / (high - low) * 255)
    assert np.array_equal(picture.to_levels(), expected)  # this file has no window


def test_the_window_of_a_dicom_file_decides_its_levels(tmp_path: Path) -> None:
    picture = only(str(get_testdata_file("MR_small.dcm", download=False)))
    centre, width = 600, 1600  # PS3.3 C.11.2.1.2.1, the linear function
    share = (picture.pixels - (centre - 0.5)) / (width - 1) + 0.5
    assert np.abs(picture.to_levels() - share.clip(0, 1) * 255).max() <= 0.5

    def narrow(dataset: Any) -> None:
        dataset.WindowCenter, dataset.WindowWidth = [800, 1], [100, 2]

    first = only(dicom("MR_small.dcm", narrow, tmp_path))  # of several windows the first counts
    assert np.array_equal(first.pixels, picture.pixels)
    assert first.to_levels()[first.pixels <= 749].max() == 0
    assert first.to_levels()[first.pixels >= 850].min() == 255


def test_a_voi_table_of_a_dicom_file_decides_its_levels(tmp_path: Path) -> None:
    def table(dataset: Any) -> None:
        item = pydicom.Dataset()
        item.LUTDescriptor = [4, 500, 8]
        item.LUTData = [10, 20, 30, 40]
        item["LUTData"].VR = "US"
        item["LUTDescriptor"].VR = "US"
        dataset.VOILUTSequence = [item]

    picture = only(dicom("MR_small.dcm", table, tmp_path))
    levels = picture.to_levels()
    assert set(levels[picture.pixels <= 500]) == {10}
    assert set(levels[picture.pixels >= 503]) == {40}


def test_monochrome1_is_turned_round(tmp_path: Path) -> None:
    plain = only(str(get_testdata_file("MR_small.dcm", download=False)))

    def invert(dataset: Any) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"

    inverted = only(dicom("MR_small.dcm", invert, tmp_path))
    assert np.array_equal(inverted.to_levels(), 255 - plain.to_levels())
    assert inverted.pixels.argmax() == plain.pixels.argmin()


def test_frames_of_an_enhanced_dicom_file_have_their_own_facts(tmp_path: Path) -> None:
    def enhance(dataset: Any) -> None:
        dataset.NumberOfFrames = 2
        dataset.PixelData = dataset.PixelData * 2
        del dataset.WindowCenter, dataset.WindowWidth
        frames = []
        for slope in (1, 2):
            frame, window, scale = (pydicom.Dataset() for _ in range(3))
            window.WindowCenter, window.WindowWidth = 600 * slope, 1600 * slope
            scale.RescaleSlope, scale.RescaleIntercept = slope, 0
            frame.FrameVOILUTSequence = [window]
            frame.PixelValueTransformationSequence = [scale]
            frames.append(frame)
        dataset.PerFrameFunctionalGroupsSequence = frames

    first, second = pictures.read(dicom("MR_small.dcm", enhance, tmp_path))
    assert (first.name, second.name) == ("scan-0001", "scan-0002")
    assert np.array_equal(second.pixels, 2 * first.pixels)
    assert np.abs(second.to_levels().astype(int) - first.to_levels()).max() <= 1


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("examples_palette.dcm", (350, 800, 3)),
        ("examples_rgb_color.dcm", (240, 320, 3)),
        ("SC_rgb_jpeg_dcmtk.dcm", (100, 100, 3)),  # YBR, compressed
        ("MR_small_jp2klossless.dcm", (64, 64)),
        ("MR_small_RLE.dcm", (64, 64)),
        ("MR_small_bigendian.dcm", (64, 64)),
        ("liver_1frame.dcm", (512, 512)),
    ],
)
def test_kinds_of_dicom_files(name: str, shape: tuple[int, ...]) -> None:
    picture = only(str(get_testdata_file(name, download=False)))
    assert picture.pixels.shape == shape
    assert picture.to_levels().shape == shape
    if name.startswith("MR_small"):
        plain = only(str(get_testdata_file("MR_small.dcm", download=False)))
        assert np.array_equal(picture.to_levels(), plain.to_levels())


def volume(folder: Path, affine: NDArray[Any], voxels: NDArray[Any], **header: float) -> Path:
    # nibabel ships types without those of its images.
    image = nibabel.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call] # nibabel's own
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, folder / "brain.nii.gz")
    return folder / "brain.nii.gz"


@pytest.mark.parametrize(
    ("axis", "shape", "slice_of_mark", "row", "column"),
    [
        ("axial", (6, 5), 2, 6 - 1 - 4, 5 - 1 - 1),  # up is front, left is the patient's right
        ("coronal", (7, 5), 4, 7 - 1 - 2, 5 - 1 - 1),  # up is head, left is the patient's right
        ("sagittal", (7, 6), 1, 7 - 1 - 2, 6 - 1 - 4),  # up is head, left is front
    ],
)
@pytest.mark.parametrize("flipped", [False, True])
def test_slices_of_nifti_lie_as_radiologists_look_at_them(
    tmp_path: Path, axis: str, shape: tuple[int, int], slice_of_mark: int, row: int, column: int,
    flipped: bool,
) -> None:  # fmt: skip
    voxels = np.zeros((5, 6, 7), np.int16)
    voxels[1, 4, 2] = 9  # x to the right, y to the front, z to the head
    affine = np.diag([2.0, 2, 2, 1])
    if flipped:  # the same volume, stored from right to left and head to feet
        voxels, affine = voxels[::-1, :, ::-1], affine @ np.diag([-1, 1, -1, 1])
        affine[[0, 2], 3] = [2 * 4, 2 * 6]
    slices = list(pictures.read(volume(tmp_path, affine, voxels), axis=axis))
    assert slices[slice_of_mark].pixels.shape == shape
    assert slices[slice_of_mark].name == f"brain-{axis}-{slice_of_mark:03d}"
    marks = [tuple(mark) for s in slices for mark in np.argwhere(s.pixels).tolist()]
    assert marks == [(row, column)]
    assert slices[slice_of_mark].pixels[row, column] == 9


def test_slices_of_one_volume_share_their_levels(tmp_path: Path) -> None:
    voxels = np.arange(4 * 4 * 4, dtype=np.int16).reshape(4, 4, 4)
    first, *_, last = pictures.read(volume(tmp_path, np.eye(4), voxels))
    assert first.to_levels().min() == 0
    assert last.to_levels().max() == 255
    assert first.to_levels().max() < 255
    windowed = volume(tmp_path, np.eye(4), voxels, cal_min=10, cal_max=20)
    levels = np.stack([picture.to_levels() for picture in pictures.read(windowed)])
    assert set(np.unique(levels)) == {0, *np.rint(np.arange(1, 10) * 25.5).astype(int), 255}


def test_some_slices_of_a_volume_are_chosen() -> None:
    path = NIFTI / "anatomical.nii"
    names = [picture.name for picture in pictures.read(path, slices=slice(10, 13))]
    assert names == ["anatomical-axial-010", "anatomical-axial-011", "anatomical-axial-012"]
    assert len(list(pictures.read(path))) == 25
    with pytest.raises(InvalidInput, match="none of its 25 axial slices"):
        list(pictures.read(path, slices=slice(25, 26)))
    with pytest.raises(InvalidInput, match="no axis 'oblique'"):
        pictures.read(path, axis="oblique")


def test_every_volume_of_a_series_gives_its_slices() -> None:
    names = [picture.name for picture in pictures.read(NIFTI / "functional.nii")]
    assert len(names) == 20 * 3
    assert names[:4] == [f"functional-t{t:03d}-axial-{k:03d}" for t, k in
                         [(0, 0), (0, 1), (0, 2), (1, 0)]]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two patients with pictures of several kinds, and what is none."""
    for patient in ("b", "a"):
        (tmp_path / patient).mkdir()
        Image.fromarray(GREY).save(tmp_path / patient / "2.png")
        np.save(tmp_path / patient / "10.npy", GREY)
    file = Path(str(get_testdata_file("MR_small.dcm", download=False)))
    (tmp_path / "a" / "1.3.12.2").write_bytes(file.read_bytes())  # DICOM by its content
    report = Path(str(get_testdata_file("test-SR.dcm", download=False)))
    (tmp_path / "a" / "report.dcm").write_bytes(report.read_bytes())
    (tmp_path / "a" / "notes.txt").write_text("")
    (tmp_path / "a" / ".hidden.png").write_text("")
    return tmp_path


def test_a_folder_is_read_recursively_and_in_order(folder: Path) -> None:
    names = [picture.name for picture in pictures.read(folder)]
    assert names == ["a/1.3.12.2", "a/10", "a/2", "b/10", "b/2"]


def test_files_that_differ_in_their_suffix_keep_it(folder: Path) -> None:
    Image.fromarray(GREY).save(folder / "b" / "2.tif")
    names = [picture.name for picture in pictures.read(folder / "b")]
    assert names == ["10", "2.png", "2.tif"]


def test_two_pictures_of_one_name_are_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"2 pictures would be called '10\.npy'"):
        pictures.read([folder / "a" / "10.npy", folder / "b" / "10.npy"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file or folder"),
        ("scan.txt", r"scan\.txt: no picture by its name and content"),
        ("scan.png", r"scan\.png: cannot be read: cannot identify image file"),
        ("scan.npy", r"scan\.npy: cannot be read"),
        ("scan.dcm", r"scan\.dcm: cannot be read"),
        ("scan.nii", r"scan\.nii: cannot be read"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / (content or "scan.png")
    if content:
        path.write_bytes(b"no picture of any kind" * 40)
    with pytest.raises(InvalidInput, match=problem):
        list(pictures.read(path))


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InvalidInput, match=r"no pictures in this folder; pictures are \.png"):
        pictures.read(tmp_path)


def test_only_one_picture_is_in_memory_at_a_time(tmp_path: Path) -> None:
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", GREY)
    (tmp_path / "1.npy").write_bytes(b"broken")
    reader = pictures.read(tmp_path)
    assert next(reader).name == "0"  # the broken one has not been opened yet
    with pytest.raises(InvalidInput, match=r"1\.npy"):
        next(reader)


def test_a_stack_is_not_read_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", np.zeros((500, 100, 100), np.float32))
    tracemalloc.start()
    for _ in pictures.read(tmp_path / "stack.npy"):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500 * 100 * 100 * 4 / 10


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.zeros((4,)), "is no picture"),
        (np.zeros((2, 2, 2, 2)), "is no picture"),
        (np.zeros((0, 4)), "is no picture"),
        (np.zeros((4, 4), complex), "complex128"),
        (np.array([[1.0, np.nan]]), "no finite numbers"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(pixels: NDArray[Any], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        Picture("scan", pixels)


def test_channels_of_several_files_are_joined_in_their_order() -> None:
    rows = {
        channel: [Picture(f"{channel}{k}", (WIDE + k * 10).astype(np.uint16)) for k in range(2)]
        for channel in ("flair", "t1")
    }
    first, second = pictures.join_channels(rows)
    assert (first.name, second.name) == ("flair0", "flair1")
    assert first.pixels.shape == (40, 30, 2)
    assert np.array_equal(second.pixels[:, :, 1], WIDE + 10)
    assert np.array_equal(second.to_levels()[:, :, 0], rows["flair"][1].to_levels())


def test_channels_that_do_not_fit_together_are_refused() -> None:
    picture = Picture("scan", GREY)
    with pytest.raises(InvalidInput, match="the channel 't1' has fewer pictures"):
        list(pictures.join_channels({"flair": [picture, picture], "t1": [picture]}))
    with pytest.raises(InvalidInput, match=r"scan is \(40, 30\) and small of the channel 't1'"):
        list(pictures.join_channels({"flair": [picture], "t1": [Picture("small", GREY[:9])]}))
    with pytest.raises(InvalidInput, match="has 3 channels and is to be one, 't1'"):
        list(pictures.join_channels({"flair": [picture], "t1": [Picture("rgb", COLOUR)]}))
