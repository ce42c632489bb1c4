"""Data sets: made, interrupted and shared, always to the same files."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_sets import SEED, N, change, command_line, files, galatea, make
from galatea import Client, datasets
from galatea.datasets._cut import cut
from galatea.errors import InvalidInput
from galatea_server.server import EmbeddedServer
from support import wait_until


@pytest.fixture
def made(client: Client, tmp_path: Path) -> Path:
    """A data set."""
    make(client, tmp_path / "made")
    return tmp_path / "made"


def holds(folder: Path, n: int) -> bool:
    """Whether there are that many files, half written ones included."""
    return len(list(folder.rglob("*.*"))) >= n


def test_a_data_set_holds_the_samples_of_the_model_in_order(client: Client, made: Path) -> None:
    shards = [np.load(path) for path in sorted(made.glob("*.npz"))]
    expected = client.sample("masses", N, seed=SEED)
    assert expected.masks is not None
    assert expected.labels is not None
    assert [len(shard["images"]) for shard in shards] == [8, 8, 8, 8, 8, 8, 2]
    assert np.array_equal(np.concatenate([shard["images"] for shard in shards]), expected.images)
    assert np.array_equal(np.concatenate([shard["masks"] for shard in shards]), expected.masks)
    indexes = [json.loads(path.read_text()) for path in sorted((made / "shards").iterdir())]
    assert [seed for index in indexes for seed in index["seeds"]] == expected.seeds.tolist()
    labels = [label for index in indexes for label in index["conditions"]["label"]]
    assert labels == expected.labels.tolist()
    pixels = expected.images[-2:].tobytes() + expected.masks[-2:].tobytes()
    assert indexes[-1]["samples_sha256"] == hashlib.sha256(pixels).hexdigest()


def test_the_manifest_tells_where_the_images_come_from(client: Client, made: Path) -> None:
    card = client.model("masses")
    told = json.loads((made / "dataset.json").read_text())
    assert told["model"] == "masses"
    assert told["version"] == card.version
    assert told["weights"] == f"sha256:{card.checkpoint_sha256}"
    assert told["licence"] == "CC0-1.0"
    assert told["synthetic"] is True
    assert told["classes"] == {"benign": 25, "malignant": 25}
    assert told["job"]["card"] == card.to_dict()
    assert told["job"]["encoders"]["numpy"] == np.__version__
    assert datasets.read_manifest(made).to_json() == (made / "dataset.json").read_bytes()
    assert datasets.verify(made) == []


@pytest.mark.parametrize("batch_size", [1, 5, 8])
def test_requests_of_any_size_make_the_same_files(
    client: Client, made: Path, tmp_path: Path, batch_size: int
) -> None:
    make(client, tmp_path / "again", batch_size=batch_size)
    assert files(tmp_path / "again") == files(made)


def test_a_stream_is_cut_without_losing_or_doubling_a_sample(client: Client) -> None:
    runs = list(cut(client.stream("masses", 20, seed=3, batch_size=6), [1, 7, 4, 8]))
    expected = client.sample("masses", 20, seed=3)
    assert [len(run) for run in runs] == [1, 7, 4, 8]
    assert np.array_equal(np.concatenate([run.images for run in runs]), expected.images)
    assert np.array_equal(np.concatenate([run.seeds for run in runs]), expected.seeds)


def test_killed_at_any_moment_it_goes_on_to_the_same_files(
    server: EmbeddedServer, client: Client, tmp_path: Path
) -> None:
    n, kills = 1500, 20
    make(client, tmp_path / "whole", n=n, shard_size=16, format="png")
    folder = tmp_path / "killed"
    command = ["generate", "masses", "-n", n, "--seed", SEED, "--shard-size", 16, "-o", folder,
               "--url", server.grpc_url]  # fmt: skip
    moments = random.Random(0)
    for _ in range(kills):
        enough = len(files(folder)) + moments.randint(1, 60)
        process = subprocess.Popen(command_line(*command), stdout=subprocess.DEVNULL)
        wait_until(partial(holds, folder, enough))
        process.kill()
        assert process.wait() == -9, "it was done before it could be killed"
    assert not (folder / "dataset.json").exists()
    assert galatea(*command).returncode == 0
    assert files(folder) == files(tmp_path / "whole")


def test_memory_does_not_grow_with_the_number_of_images(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    def peak(n: int) -> int:
        """Bytes that a process takes at most to make `n` images."""
        code = f"""
from galatea import Client, datasets
with Client("{server.grpc_url}") as client:
    datasets.generate(client, "masses", {n}, "{tmp_path}/{n}", shard_size=50, format="npz")
print(open("/proc/self/status").read())
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        return int(done.stdout.partition(b"VmHWM:")[2].split()[0]) << 10

    few, many = peak(200), peak(4000)  # the difference has 31 MB of pixels
    assert many - few < 10e6
    assert many < 250e6


def test_going_on_makes_only_what_is_missing(client: Client, made: Path) -> None:
    before = files(made)
    (made / "shards" / "000002.json").unlink()
    with (made / "000004.npz").open("r+b") as file:
        file.truncate(100)
    (made / ".000004.npz.0123abcd").write_bytes(b"half")
    (made / "dataset.json").unlink()
    seen: list[tuple[int, int]] = []
    outcome = make(client, made, progress=lambda done, total: seen.append((done, total)))
    assert (outcome.found, outcome.made) == (34, 16)
    assert seen[0] == (34, 50)
    assert seen[-1] == (50, 50)
    assert files(made) == before


def test_without_a_seed_it_goes_on_with_that_of_the_data_set(client: Client, made: Path) -> None:
    assert make(client, made, seed=None).made == 0
    assert make(client, made.with_name("other"), seed=None).job.seed != SEED


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seed": 8}, "seed 7, not 8"),
        ({"n": 51}, "n 50, not 51"),
        ({"labels": "benign"}, "label balanced, not benign"),
        ({"shard_size": 4}, "shard size 8, not 4"),
        ({"format": "png"}, "format npz, not png"),
    ],
)
def test_a_folder_with_another_data_set_is_refused(
    client: Client, made: Path, given: dict[str, Any], words: str
) -> None:
    before = files(made)
    with pytest.raises(InvalidInput, match=words):
        make(client, made, **given)
    assert files(made) == before


def test_another_version_of_the_model_is_refused(client: Client, made: Path) -> None:
    change(made / "job.json", '"version": 1', '"version": 2')
    with pytest.raises(InvalidInput, match="version 2, not 1"):
        make(client, made)


def test_other_packages_are_refused(client: Client, made: Path) -> None:
    change(made / "job.json", f'"numpy": "{np.__version__}"', '"numpy": "1.0"')
    with pytest.raises(InvalidInput, match=f"numpy 1.0, not {np.__version__}"):
        make(client, made)


def test_a_folder_with_other_files_is_refused(client: Client, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InvalidInput, match=r"holds other files, such as thesis\.tex"):
        make(client, tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n": 0}, "n is 0"),
        ({"shard_size": 0}, "the shard size is 0"),
        ({"labels": "vague"}, "no label 'vague'"),
        ({"labels": ["benign"]}, "1 values of 'label' for 50 samples"),
        ({"labels": ["benign"] * 51}, "51 values of 'label' for 50 samples"),
        ({"labels": 0, "label": 1}, "both label and labels"),
        ({"seed": 1.5}, "no whole number"),
        ({"truncation": 1.0}, "no condition 'truncation'"),
        ({"seed": 2**63 - 5}, "leaves the 64-bit integers"),
        ({"format": "jpeg"}, "no format 'jpeg'"),
        ({"shard": (3, 3)}, "part 3 of 3"),
        ({"shard": (0, 3), "seed": None}, "the same seed"),
    ],
)
def test_a_wrong_argument_writes_nothing(
    client: Client, tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        make(client, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_model_that_takes_pictures_is_refused(client: Client, tmp_path: Path) -> None:
    translator = next(card for card in client.models() if card.source_picture is not None)
    with pytest.raises(InvalidInput, match="not from seeds"):
        datasets.generate(client, translator.name, 2, tmp_path / "out")


@pytest.mark.parametrize(
    ("labels", "told", "classes"),
    [
        (None, "balanced", (25, 25)),
        (1, "malignant", (0, 50)),
        ({"benign": 4, 1: 1}, {"benign": 4, "malignant": 1}, (40, 10)),
        (["benign"] * 49 + [1], [0] * 49 + [1], (49, 1)),
    ],
)
def test_labels_are_dealt_out_as_planned(
    client: Client, tmp_path: Path, labels: Any, told: Any, classes: tuple[int, int]
) -> None:
    manifest = make(client, tmp_path / "out", labels=labels).manifest
    assert manifest is not None
    assert manifest.job.conditions == {"label": told}
    assert manifest.classes["benign"] == pytest.approx(classes[0], abs=1)
    assert sum(manifest.classes.values()) == N
    before = files(tmp_path / "out")
    for path in (tmp_path / "out" / "shards").glob("00000[135].json"):
        path.unlink()
    make(client, tmp_path / "out", labels=labels)
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize("together", [True, False], ids=["one folder", "a folder each"])
def test_workers_share_a_data_set(
    client: Client, made: Path, tmp_path: Path, together: bool
) -> None:
    folders = [tmp_path / ("shared" if together else f"part-{k}") for k in range(3)]
    parts = [make(client, folder, shard=(k, 3)) for k, folder in enumerate(folders)]
    assert [part.made for part in parts] == [16, 16, 18]
    assert all(part.manifest is None for part in parts)
    assert any("dataset.json: is missing" in problem for problem in datasets.verify(folders[0]))
    datasets.merge(folders[0], *(() if together else folders[1:]))
    assert files(folders[0]) == files(made)
