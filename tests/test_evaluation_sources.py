"""Where images come from, how their values become levels, and what is kept of their features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from galatea.errors import InvalidInput
from galatea.evaluation import Cache, Features, Folder, Intensity, open_source
from galatea.pictures import Picture


def save(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)


def test_a_folder_gives_its_images_with_classes_and_without_masks(tmp_path: Path) -> None:
    for i, name in enumerate(("benign/a.png", "benign/a-mask.png", "malignant/b.png")):
        save(tmp_path / name, i)
    folder = open_source(tmp_path)
    found = [(item.picture.name, item.label) for item in folder.items()]
    assert found == [("benign/a", "benign"), ("malignant/b", "malignant")]
    assert folder.pick([1])[1].picture.pixels[0, 0] == 2
    before = folder.digest
    assert Folder(tmp_path).digest == before
    save(tmp_path / "malignant/b.png", 9)
    assert Folder(tmp_path).digest != before
    with pytest.raises(InvalidInput, match="holds masks alone"):
        open_source(tmp_path / "benign" / "a-mask.png")


def test_intensities_are_what_their_rule_says() -> None:
    values = np.linspace(-1000, 3000, 101).reshape(1, -1)
    picture = Picture("ct", values)

    assert Intensity.parse("minmax").apply(picture)[0, [0, 50, 100], 0].tolist() == [0, 128, 255]
    window = Intensity.parse("window:-160:240").apply(picture)[0, :, 0]
    assert window[values[0] <= -160].max() == 0
    assert window[values[0] >= 240].min() == 255
    share = Intensity.parse("percentile:10:90").apply(picture)[0, :, 0]
    assert (share == 0).sum() == (share == 255).sum() == 11
    assert str(Intensity.parse("percentile:1:99.5")) == "percentile:1:99.5"


@pytest.mark.parametrize(
    "rule", ["", "levels:1", "window:5:5", "window:1", "percentile:-1:99", "percentile:x:99", "raw"]
)
def test_a_rule_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(InvalidInput):
        Intensity.parse(rule)


def test_a_ct_is_taken_by_its_window_and_never_as_levels() -> None:
    path = get_testdata_file("CT_small.dcm")
    (item,) = open_source(str(path)).items()
    assert item.picture.pixels.min() < 0  # Hounsfield units
    assert Intensity.parse("window:-160:240").apply(item.picture).shape == (128, 128, 3)
    with pytest.raises(InvalidInput, match="no levels from 0 to 255"):
        Intensity.parse("levels").apply(item.picture)
    with pytest.raises(InvalidInput, match="5 channels are no colours"):
        Intensity.parse("minmax").apply(Picture("stack", np.zeros((4, 4, 5))))


def test_kept_features_come_back_and_damaged_ones_are_made_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = Features(np.ones((2, 3), np.float32), None, ("a", "b"), ("", "benign"))
    assert cache.get("key") is None
    cache.put("key", made)
    kept = cache.get("key")
    assert kept is not None
    np.testing.assert_array_equal(kept.features, made.features)
    assert (kept.logits, kept.names, kept.labels) == (None, made.names, made.labels)
    assert kept.of("benign").names == ("b",)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert cache.get("key") is None
    assert Cache(None).get("key") is None
