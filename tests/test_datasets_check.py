"""Data sets are joined, checked, and made again from their manifest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_sets import change, files, make
from galatea import Client, datasets
from galatea.errors import InvalidInput, ModelUnavailable


@pytest.fixture
def made(client: Client, tmp_path: Path) -> Path:
    """A data set."""
    make(client, tmp_path / "made")
    return tmp_path / "made"


def test_merging_names_the_shards_that_are_missing(client: Client, tmp_path: Path) -> None:
    make(client, tmp_path / "a", shard=(0, 3))
    make(client, tmp_path / "c", shard=(2, 3))
    with pytest.raises(InvalidInput, match="of 7 shards there are missing: 2–3"):
        datasets.merge(tmp_path / "a", tmp_path / "c")
    assert datasets.info(tmp_path / "a").missing == (2, 3)
    assert datasets.info(tmp_path / "a").samples == 34


def test_merging_refuses_a_part_of_another_data_set(
    client: Client, made: Path, tmp_path: Path
) -> None:
    make(client, tmp_path / "b", seed=8)
    with pytest.raises(InvalidInput, match=r"b: is of another data set than .*: seed 8, not 7"):
        datasets.merge(made, tmp_path / "b")


def test_merging_refuses_a_part_that_was_changed(
    client: Client, made: Path, tmp_path: Path
) -> None:
    content = (made / "000003.npz").read_bytes()
    (made / "000003.npz").write_bytes(content[:-1] + b"?")
    with pytest.raises(InvalidInput, match=r"000003\.npz was changed"):
        datasets.merge(tmp_path / "merged", made)


def changed(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("000003.npz", "000003.npz: was changed"),
        ("shards/000003.json", "shards/000003.json: "),
        ("dataset.json", "dataset.json: was changed"),
    ],
)
def test_a_change_is_found_and_named(made: Path, path: str, words: str) -> None:
    changed(made / path)
    assert any(problem.startswith(words) for problem in datasets.verify(made))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("000003.npz", "000003.npz: is missing"),
        ("shards/000003.json", "shards/000003.json: is missing"),
        ("dataset.json", "dataset.json: is missing; 7 of 7 shards are there"),
    ],
)
def test_what_is_missing_is_found_and_named(made: Path, path: str, words: str) -> None:
    (made / path).unlink()
    assert words in datasets.verify(made)


def test_what_was_added_is_found_and_named(made: Path) -> None:
    (made / "000007.npz").write_bytes(b"")
    assert datasets.verify(made) == ["000007.npz: is not of the data set"]


def test_an_index_that_leads_out_of_the_folder_is_not_followed(made: Path, tmp_path: Path) -> None:
    change(made / "shards" / "000003.json", "000003.npz", "../000003.npz")
    assert any("lies outside the data set" in problem for problem in datasets.verify(made))
    with pytest.raises(InvalidInput, match="missing: 3"):
        datasets.merge(tmp_path / "merged", made)
    assert not (tmp_path / "000003.npz").exists()


def test_a_folder_without_a_data_set_is_named(tmp_path: Path) -> None:
    for call in (datasets.verify, datasets.info, datasets.merge):
        with pytest.raises(InvalidInput, match="holds no data set"):
            call(tmp_path)
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(InvalidInput, match=r"job\.json cannot be read"):
        datasets.verify(tmp_path)


def test_the_manifest_alone_makes_the_identical_data_set(
    client: Client, made: Path, tmp_path: Path
) -> None:
    manifest = shutil.copy(made / "dataset.json", tmp_path / "published.json")
    done = datasets.regenerate(client, manifest, tmp_path / "again")
    assert done.identical
    assert files(tmp_path / "again") == files(made)


def test_made_again_by_other_packages_the_images_are_compared(
    client: Client, made: Path, tmp_path: Path
) -> None:
    manifest = json.loads((made / "dataset.json").read_text())
    manifest["job"]["encoders"]["numpy"] = "1.0"
    manifest["shards"][2]["sha256"] = "0" * 64
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    done = datasets.regenerate(client, tmp_path / "dataset.json", tmp_path / "again")
    assert not done.identical
    assert (done.other_files, done.other_samples) == ((2,), ())
    assert done.other_encoders == (f"numpy {np.__version__}, not 1.0",)
    assert datasets.verify(tmp_path / "again") == []


def test_made_again_with_other_images_it_says_where(
    client: Client, made: Path, tmp_path: Path
) -> None:
    manifest = json.loads((made / "dataset.json").read_text())
    manifest["shards"][5].update(sha256="0" * 64, samples_sha256="0" * 64)
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    done = datasets.regenerate(client, tmp_path / "dataset.json", tmp_path / "again")
    assert (done.other_files, done.other_samples) == ((), (5,))


@pytest.mark.parametrize(
    ("fact", "value", "words"),
    [("version", 3, "version 1, not 3"), ("checkpoint_sha256", "0" * 64, "weights .*, not 0000")],
)
def test_a_data_set_is_not_made_again_with_another_model(
    client: Client, made: Path, tmp_path: Path, fact: str, value: Any, words: str
) -> None:
    manifest = json.loads((made / "dataset.json").read_text())
    manifest["job"]["card"][fact] = value
    (made / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelUnavailable, match=words):
        datasets.regenerate(client, made / "dataset.json", tmp_path / "again")
    assert not (tmp_path / "again").exists()
