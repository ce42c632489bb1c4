"""Every change to a release is found, and another version can be made the served one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from galatea import InvalidInput, ModelCard, RepositoryError
from galatea.repository import activate, find, releases, verify
from galatea_exporter.export import export


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A repository to break."""
    return shutil.copytree(repository, tmp_path / "models")


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "change", "finding"),
    [
        ("masses.synthesis/1/model.onnx", flip, "was changed after the release"),
        ("masses.synthesis/1/model.onnx", append, "the manifest says"),
        ("masses.noise/1/model.onnx", Path.unlink, "is missing"),
        ("masses/config.pbtxt", append, "is of no released version"),
        ("masses.synthesis/config.pbtxt", append, "differs from"),
        ("masses.synthesis/configs/cuda.pbtxt", Path.unlink, "is missing"),
        ("masses.synthesis/1/extra.bin", Path.touch, "is not in the manifest"),
    ],
)
def test_a_change_after_the_release_is_found(
    copy: Path, file: str, change: Callable[[Path], None], finding: str
) -> None:
    assert verify(copy) == []
    change(copy / file)
    problems = verify(copy)
    assert problems
    assert file in problems[0]
    assert finding in problems[0]


def test_an_unfinished_export_is_found(copy: Path) -> None:
    shutil.rmtree(copy / "masses")
    assert verify(copy) == [
        f"masses.{stage}: belongs to an unfinished export of 'masses'"
        for stage in ("noise", "synthesis")
    ]


def test_an_unfinished_copy_is_found(copy: Path) -> None:
    manifest = next((copy / "masses").glob("*/manifest.json"))
    manifest.unlink()
    assert "masses: has a card but no manifest.json: an unfinished copy" in verify(copy)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        '{"name": "masses"}',
        '{"name": "other", "version": 1, "models": [], "files": {}}',
        '{"name": "masses", "version": 1, "models": ["masses"], "files": '
        '{"masses/../../etc/passwd": {"bytes": 1, "sha256": ""}}}',
    ],
)
def test_a_manifest_that_is_none_is_refused(copy: Path, manifest: str) -> None:
    (copy / "masses" / "1" / "manifest.json").write_text(manifest)
    with pytest.raises(RepositoryError, match="manifest"):
        releases(copy)


def test_a_missing_repository_or_release_is_named(copy: Path) -> None:
    with pytest.raises(RepositoryError, match="no such folder"):
        releases(copy / "nowhere")
    with pytest.raises(RepositoryError, match=r"no release of 'mass'; it holds: .*masses"):
        find(copy, "mass")
    with pytest.raises(RepositoryError, match="with version 9; versions: 1"):
        find(copy, "masses", 9)


def test_an_older_version_can_be_served_again(copy: Path, checkpoints: dict[str, Path]) -> None:
    before = (copy / "masses" / "config.pbtxt").read_bytes()
    export("dcgan_mammo", checkpoints["dcgan_mammo"], name="masses", repository=copy, max_batch=4)
    assert find(copy, "masses").version == 2
    activate(find(copy, "masses", 1))
    assert find(copy, "masses").version == 1
    assert (copy / "masses" / "config.pbtxt").read_bytes() == before
    assert verify(copy) == []


def test_a_card_is_read_back_as_it_was_written(repository: Path) -> None:
    for release in releases(repository):
        card = release.card()
        assert ModelCard.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": 99}, "schema 99, this galatea reads schema 1"),
        ({"surprise": 1}, "no field 'surprise'"),
        ({"version": "1"}, "version is '1', not of type int"),
        ({"task": "dreaming"}, "task is 'dreaming', not one of"),
        ({"inputs": [{"name": 3}]}, "name is 3, not of type str"),
    ],
)
def test_a_card_that_cannot_be_read_says_why(
    repository: Path, change: dict[str, object], reason: str
) -> None:
    plain = json.loads(find(repository, "masses").card().to_json())
    with pytest.raises(InvalidInput, match=reason):
        ModelCard.from_json(json.dumps({**plain, **change}))
