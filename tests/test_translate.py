"""Translating pictures: prepared by the card, in order, in bounded memory, with provenance."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from galatea import Client, InvalidInput, Samples, pictures, shapes
from galatea._window import MOST
from galatea.pictures import Picture
from galatea.preparation import prepare
from galatea_server.server import EmbeddedServer
from support import ROOT

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (20, 17, 22), dtype=np.uint8)


@pytest.fixture
def server(translators: EmbeddedServer) -> EmbeddedServer:
    """The server that the client of these tests talks to."""
    return translators


def test_an_array_is_translated_picture_by_picture(client: Client) -> None:
    seen: list[int] = []
    samples = client.translate("negative", GREY, progress=seen.append)
    assert samples.images.shape == (20, 16, 20, 1)  # cropped to multiples of 4
    assert np.array_equal(samples.images[..., 0], 255 - GREY[:, :16, :20])
    assert samples.images.flags.writeable
    assert samples.sources is not None
    assert np.array_equal(samples.sources[..., 0], GREY[:, :16, :20])
    assert samples.names[:2] == ("000000", "000001")
    assert sum(seen) == 20


def test_no_seed_is_told_where_none_plays_a_part(client: Client) -> None:
    samples = client.translate("negative", GREY, seed=3)
    assert samples.seeds.tolist() == []
    assert "galatea:seed" not in samples.provenance(0)


def test_everything_that_holds_pictures_is_taken(client: Client, tmp_path: Path) -> None:
    expected = client.translate("negative", GREY[:3]).images
    for k in range(3):
        Image.fromarray(GREY[k]).save(tmp_path / f"{k}.png")
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for images in (
        list(GREY[:3]),
        GREY[:3, :, :, None],
        tmp_path,
        str(tmp_path),
        paths,
        [Image.open(path) for path in paths],
        [Picture("a", GREY[0]), paths[1], GREY[2]],
        pictures.read(tmp_path),
    ):
        assert np.array_equal(client.translate("negative", images).images, expected)


def test_pictures_come_in_order_and_neighbours_of_one_size_travel_together(client: Client) -> None:
    def scans() -> Iterator[NDArray[np.uint8]]:
        for k in itertools.count():
            yield np.full((8, 8) if k % 15 < 10 else (12, 8), k % 256, np.uint8)

    stream = client.translate_stream("negative", scans())
    batches = list(itertools.islice(stream, 30))
    stream.close()  # type: ignore[attr-defined] # a generator behind the iterator
    assert [len(batch) for batch in batches[:6]] == [8, 2, 5, 8, 2, 5]
    values = [255 - int(image[0, 0, 0]) for batch in batches for image in batch]
    assert values == [k % 256 for k in range(len(values))]


def test_a_picture_does_not_depend_on_its_batch(client: Client) -> None:
    whole = client.translate("older", GREY, seed=5)
    for size in (1, 3):
        parts = list(client.translate_stream("older", GREY, seed=5, batch_size=size))
        assert {len(part) for part in parts[:-1]} == {size}
        assert b"".join(part.images.tobytes() for part in parts) == whole.images.tobytes()


def test_conditions_are_drawn_by_the_seed_and_told(client: Client) -> None:
    samples = client.translate("older", GREY, seed=5)
    ages = samples.conditions["age_delta"]
    assert samples.seeds.tolist() == list(range(5, 25))
    assert len(set(ages)) == 20
    assert ages.min() >= -10
    assert ages.max() <= 10
    assert samples.sources is not None
    expected = samples.sources + ages[:, None, None, None] / 10
    assert np.abs(samples.images - expected).max() < 1e-6
    again = client.translate("older", GREY[3:4], seed=8)
    assert again.conditions["age_delta"] == ages[3]
    assert again.images.tobytes() == samples.images[3:4].tobytes()
    assert samples.provenance(3)["galatea:seed"] == "8"
    assert samples.provenance(3)["galatea:age_delta"] == str(ages[3])


def test_draws_are_those_of_the_documentation(client: Client) -> None:
    text = (ROOT / "docs" / "wire.md").read_text()
    answers = re.findall(r"^\| `(\w+)` \| (-?\d+) \| `(\w{16})` \|", text, re.MULTILINE)
    assert len(answers) == 4
    for name, seed, word in answers:
        digest = hashlib.sha256(f"galatea draw v1:{name}:{seed}".encode()).digest()[:8]
        assert digest.hex() == word
        number = int(word, 16)
        if name == "age_delta":
            drawn = client.translate("older", GREY[:1], seed=int(seed)).conditions[name]
            assert drawn == np.float32(-10 + (number >> 11) / 2**53 * 20)
        if name == "circle_x":
            drawn = client.translate("banded", four(1), seed=int(seed)).conditions[name]
            assert drawn == 4 + number % 8


def test_draws_reach_every_value_and_both_ends(client: Client) -> None:
    drawn = client.translate("banded", four(60), seed=0).conditions["circle_x"]
    assert set(drawn) == set(range(4, 12))


def test_conditions_that_are_given_need_no_seed(client: Client) -> None:
    samples = client.translate("older", GREY[:3], age_delta=[-4, 10, 2])
    assert samples.conditions["age_delta"].tolist() == [-4, 10, 2]
    assert samples.seeds.tolist() == []
    with pytest.raises(InvalidInput, match="no age_delta 11; give a number at least -10 and"):
        client.translate("older", GREY[:3], age_delta=11)
    with pytest.raises(InvalidInput, match="2 values of 'age_delta' for 3 samples"):
        client.translate("older", GREY[:3], age_delta=[1, 2])


def test_one_file_is_translated_in_several_ways(client: Client, tmp_path: Path) -> None:
    Image.fromarray(GREY[0]).save(tmp_path / "heart.png")
    samples = client.translate("older", [tmp_path / "heart.png"] * 3, age_delta=[-4, 10, 2])
    assert [path.name for path in samples.save(tmp_path / "out")] == [
        "heart-older-v1.npy",
        "heart-2-older-v1.npy",
        "heart-3-older-v1.npy",
    ]


def four(n: int) -> NDArray[np.float64]:
    """Pictures with four channels of different ranges."""
    return RANDOM.random((n, 16, 16, 4)) * [1, 10, 100, 1000]


def test_several_channels_and_a_mask(client: Client) -> None:
    samples = client.translate("banded", four(3), circle_x=6, radius=2)
    assert samples.images.shape == (3, 16, 16, 4)
    assert samples.sources is not None
    assert np.array_equal(samples.images, samples.sources)
    assert samples.sources.max((1, 2)).tolist() == [[1, 1, 1, 1]] * 3
    assert samples.masks is not None
    assert np.flatnonzero(samples.masks[0, 0, :, 0]).tolist() == [5, 6, 7]


def test_a_class_is_dealt_out_by_name_too(client: Client) -> None:
    colours = RANDOM.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    for label, negative in (("balanced", [0, 1, 0, 1]), ("negative", [1, 1, 1, 1])):
        samples = client.translate("tinted", colours, label=label)
        assert samples.labels is not None
        assert samples.labels.tolist() == negative
        flip = np.array(negative, np.uint8)[:, None, None, None] * 255
        assert np.array_equal(samples.images, colours ^ flip)


def test_seeded_shapes_are_translated_with_their_masks(client: Client, tmp_path: Path) -> None:
    samples = client.translate("negative", shapes.pictures(3, 64, "lobulated", seed=7))
    assert samples.masks is not None
    assert np.array_equal(samples.masks[..., 0], shapes.masks(3, 64, "lobulated", seed=7))
    assert np.array_equal(samples.images, 255 - samples.masks)
    (first, *_) = samples.save(tmp_path)
    assert first.name == "lobulated-000000000007-negative-v1.png"
    with Image.open(tmp_path / "lobulated-000000000007-negative-v1-mask.png") as mask:
        assert np.array_equal(np.asarray(mask), samples.masks[0, :, :, 0])


@pytest.mark.parametrize(
    ("name", "images", "arguments", "problem"),
    [
        ("masses", GREY, {}, r"masses makes pictures from seeds.*sample\('masses'\)"),
        ("negative", GREY[0], {}, r"shape \[17, 22\] holds no pictures.*array\[None\]"),
        ("negative", 5, {}, "5 holds no pictures"),
        ("negative", [5], {}, "5 is no picture; give a path"),
        ("negative", [], {}, "there are no pictures"),
        ("negative", ["/nowhere.png"], {}, r"/nowhere\.png: no such file"),
        ("negative", GREY[:, :7], {}, "000000: 7 × 22 pixels are too few for negative"),
        ("negative", [GREY[0], GREY[0, :8]], {}, "000001 8 × 20 pixels.*use translate_stream"),
        ("negative", GREY, {"truncation": 1}, "no condition 'truncation'"),
        ("negative", GREY, {"source": 1}, "no condition 'source'"),
        ("older", GREY, {"seed": 1.5}, "seed 1.5 is no whole number"),
        ("banded", GREY, {}, "1 channels, where banded takes 4: flair, t1, t1c, t2"),
    ],
)
def test_what_cannot_be_translated_is_refused(
    client: Client, name: str, images: Any, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem):
        client.translate(name, images, **arguments)


def test_sampling_from_a_translator_names_the_right_call(client: Client) -> None:
    with pytest.raises(InvalidInput, match=r"translate\('negative', images\).*galatea translate"):
        client.sample("negative")
    with pytest.raises(InvalidInput, match="makes pictures from pictures"):
        client.stream("negative")


def test_pictures_before_a_broken_one_are_translated(client: Client, tmp_path: Path) -> None:
    for k in range(5):
        Image.fromarray(GREY[k]).save(tmp_path / f"{k}.png")
    (tmp_path / "3.png").write_bytes(b"broken")
    stream = client.translate_stream("negative", tmp_path)
    assert next(stream).names == ("0", "1", "2")
    with pytest.raises(InvalidInput, match=r"3\.png: cannot be read"):
        next(stream)


def test_pictures_that_are_skipped_change_nothing_for_the_others(client: Client) -> None:
    whole = client.translate("older", GREY, seed=5)
    kept = list(client.translate_stream("older", GREY, seed=5, skip=lambda name: name < "000007"))
    assert kept[0].names[0] == "000007"
    images = np.concatenate([batch.images for batch in kept])
    assert images.tobytes() == whole.images[7:].tobytes()


def test_a_stream_holds_few_pictures_at_once(client: Client) -> None:
    given = 0

    def scans() -> Iterator[NDArray[np.uint8]]:
        nonlocal given
        while True:
            given += 1
            yield np.zeros((8, 8), np.uint8)

    stream = client.translate_stream("negative", scans(), batch_size=2)
    for taken in range(1, 50):
        next(stream)
        assert given <= 2 * (taken + MOST) + 1


@pytest.fixture
def aged(client: Client) -> Samples:
    return client.translate("older", GREY[:2], age_delta=3)


def test_floats_are_saved_as_arrays_with_their_provenance(aged: Samples, tmp_path: Path) -> None:
    path, _ = aged.save(tmp_path)
    assert path.name == "000000-older-v1.npy"
    assert np.array_equal(np.load(path), aged.images[0])
    facts = json.loads(path.with_suffix(".json").read_text())
    assert aged.sources is not None
    digest = hashlib.sha256(aged.sources[0].tobytes()).hexdigest()
    assert facts["galatea:source"] == "000000"
    assert facts["galatea:source_sha256"] == digest
    assert facts["galatea:age_delta"] == "3.0"
    assert facts["galatea:synthetic"] == "true"
    assert facts["channels"] == "intensity"
    assert len(list(tmp_path.iterdir())) == 4


def test_floats_with_a_mask_keep_the_mask_as_png(client: Client, tmp_path: Path) -> None:
    samples = client.translate("banded", four(1), seed=0)
    (path,) = samples.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "000000-banded-v1-mask.png",
        "000000-banded-v1.json",
        "000000-banded-v1.npy",
    ]
    assert np.load(path).shape == (16, 16, 4)


def test_translated_png_files_tell_their_source(client: Client, tmp_path: Path) -> None:
    samples = client.translate("negative", GREY[:1])
    (path,) = samples.save(tmp_path)
    assert path.name == "000000-negative-v1.png"
    with Image.open(path) as image:
        facts = image.info
    digest = hashlib.sha256(np.ascontiguousarray(GREY[0, :16, :20]).tobytes()).hexdigest()
    assert facts["galatea:source_sha256"] == digest
    assert facts["galatea:model"] == "negative"


def test_floats_are_no_pillow_image_but_have_a_grid(aged: Samples, client: Client) -> None:
    with pytest.raises(InvalidInput, match=r"float32 with 1 channels \(intensity\).*grid"):
        aged.pil(0)
    grid = np.asarray(aged.grid(1))
    assert grid.shape == (16 * 2 + 2, 12 * 2, 3)  # source and result side by side
    assert aged.sources is not None
    shown = np.rint(aged.images[0, :, :, 0].clip(0, 1) * 255)
    assert np.array_equal(grid[:16, :12, 0], np.rint(aged.sources[0, :, :, 0] * 255))
    assert np.array_equal(grid[:16, 12:, 0], shown)
    four_channels = client.translate("banded", four(1), seed=0)
    assert four_channels.grid().size == (16 * 8, 16)
    outlined = np.asarray(four_channels.grid(outline=True))
    assert (outlined != np.asarray(four_channels.grid())).any()


def test_the_card_says_how_pictures_are_prepared(client: Client) -> None:
    card = client.model("older")
    assert card.source_picture is not None
    assert card.source_picture.shape == (16, 12, 1)
    expected = prepare(Picture("scan", GREY[0]), card)
    sources = client.translate("older", GREY[:1], age_delta=0).sources
    assert sources is not None
    assert np.array_equal(sources[0], expected)
