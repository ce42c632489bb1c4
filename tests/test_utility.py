"""What synthetic images are worth in training, told by one command."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice

from data_sets import galatea
from evaluation_models import make_repository
from galatea import Client, datasets
from galatea.errors import InvalidInput
from galatea.evaluation import Intensity
from galatea.evaluation.utility import Design, from_data_set, from_model, from_table, study
from galatea.evaluation.utility._scores import Scores, dice
from galatea.evaluation.utility._split import split, trainings
from galatea_server.server import EmbeddedServer
from support import ROOT

SIZE = 64
LEVELS = Intensity.parse("levels")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of phantoms: ``real``, of 20 patients with 3 images each, and ``synthetic``."""
    root = tmp_path_factory.mktemp("phantoms")
    for name, seed in (("real", 1), ("synthetic", 2)):
        subprocess.run(
            [sys.executable, ROOT / "examples" / "phantom_cases.py", root / name, "--patients",
             "20", "--images", "3", "--seed", str(seed), "--size", str(SIZE)],
            check=True,
        )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(make_repository(tmp_path_factory.mktemp("utility"))) as running:
        yield running


@pytest.fixture
def client(served: EmbeddedServer) -> Iterator[Client]:
    with Client(served.grpc_url) as connected:
        yield connected


def arms(told: dict[str, Any]) -> list[tuple[str, float | None]]:
    return [(result["arm"], result["fraction"]) for result in told["results"]]


@pytest.mark.parametrize("network", ["unet", "swin"])
def test_segmentation_learns_from_other_phantoms_what_it_learns_from_real_ones(
    phantoms: Path, network: str, tmp_path: Path
) -> None:
    arguments = [
        "evaluate", "utility", phantoms / "synthetic", "--real", phantoms / "real", "--task",
        "segment", "--intensity", "levels", "--network", network, "--repeats", 1,
        *(("--fractions", "0.1,1", "--steps", 80) if network == "unet" else
          ("--fractions", "1", "--steps", 20, "--arms", "real,synthetic")), "-o", tmp_path,
    ]  # fmt: skip
    done = galatea(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["measure"] == "Dice"
    assert not {*told["train_patients"]} & {*told["test_patients"]}
    assert (len(told["train_patients"]), len(told["test_patients"]), told["n_test"]) == (14, 6, 18)
    (all_real,) = (
        result for result in told["results"] if (result["arm"], result["fraction"]) == ("real", 1)
    )
    assert all_real["score"]["value"] > 0.6
    assert all_real["of_all_real"] is None
    (synthetic,) = (result for result in told["results"] if result["arm"] == "synthetic")
    assert (synthetic["n_real"], synthetic["n_synthetic"]) == (0, 60)
    share = synthetic["of_all_real"]
    assert share["low"] <= share["value"] <= share["high"]
    assert share["value"] == pytest.approx(1, abs=0.2)  # one law made both kinds
    if network == "unet":
        assert arms(told) == [
            ("real", 0.1), ("real", 1), ("synthetic", None), ("both", 0.1), ("both", 1),
        ]  # fmt: skip
    assert json.loads((tmp_path / "report.json").read_text())["results"] == told["results"]


def test_classes_are_told_apart_by_features_with_memorisation_beside_it(
    served: EmbeddedServer, phantoms: Path, tmp_path: Path
) -> None:
    arguments = [
        "evaluate", "utility", phantoms / "synthetic", "--real", phantoms / "real", "--task",
        "classify", "--intensity", "levels", "--extractor", "radimagenet", "--fractions", "0.5,1",
        "--repeats", 2, "--train", phantoms / "synthetic", "--heldout", phantoms / "real",
        "--cache", tmp_path / "cache", "--url", served.grpc_url,
    ]  # fmt: skip
    first = galatea(*arguments, "-o", tmp_path / "a", "--json")
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    by_arm = {(result["arm"], result["fraction"]): result for result in told["results"]}
    assert by_arm["real", 1]["score"]["value"] > 0.7
    assert by_arm["synthetic", None]["score"]["value"] > 0.7
    assert by_arm["real", 1]["repeats"][0] == by_arm["real", 1]["repeats"][1]
    assert by_arm["both", 1]["n_real"] == 42
    assert told["memorisation"]["memorised"] == 60  # each is its own copy
    again = galatea(*arguments, "-o", tmp_path / "b")
    assert "memorised, by radimagenet, levels: 60 of 60" in again.stdout
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in "ab"]
    assert reports[0]["results"] == reports[1]["results"]


RUNNER = """
import csv, json, pathlib, shutil, sys
folder = pathlib.Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
tables = [folder / name / "cases.csv" for name in ("train", "test")]
train, test = (list(csv.DictReader(path.open())) for path in tables)
assert list(test[0]) == ["image"]
kinds = {row["kind"] for row in train}
assert kinds == ({"real", "synthetic"} if job["arm"] == "both" else {job["arm"]})
print("trained with", len(train))
if job["task"] == "classify":
    table = csv.writer((folder / "predictions.csv").open("w"))
    table.writerows([("image", "label"), *((row["image"], "benign") for row in test)])
else:
    (folder / "predictions").mkdir()
    for row in test:
        shutil.copy(folder / "train" / train[0]["mask"], folder / "predictions" / row["image"])
"""


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_a_training_of_ones_own_is_scored(phantoms: Path, task: str, tmp_path: Path) -> None:
    script = tmp_path / "runner.py"
    script.write_text(RUNNER)
    done = galatea(
        "evaluate", "utility", phantoms / "synthetic", "--real", phantoms / "real", "--task", task,
        "--intensity", "levels", "--runner", f"{sys.executable} {script}", "--repeats", 1,
        "--fractions", 1, "-o", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "trained with 60" in done.stderr
    for result in told["results"]:
        value = result["score"]["value"]
        if task == "classify":
            assert value == 0.5  # one class is always right, the other never
        else:
            assert 0 < value < 0.6
    script.write_text("raise SystemExit(3)")
    failed = galatea(
        "evaluate", "utility", phantoms / "synthetic", "--real", phantoms / "real", "--task", task,
        "--intensity", "levels", "--runner", f"{sys.executable} {script}",
    )  # fmt: skip
    assert failed.returncode == 5
    assert "ended with 3" in failed.stderr


@pytest.mark.parametrize("form", ["png", "npz", "webdataset", "parquet", "dicom", "nifti"])
def test_a_data_set_of_any_format_gives_images_masks_and_classes(
    client: Client, form: str, tmp_path: Path
) -> None:
    datasets.generate(client, "masses", 10, tmp_path, seed=3, format=form, shard_size=4)
    found, want = from_data_set(tmp_path), from_model(client, "masses", 10, 3)
    assert found.labels() == want.labels()
    for case, other in zip(found.cases, want.cases, strict=True):
        np.testing.assert_array_equal(LEVELS.apply(case.picture), LEVELS.apply(other.picture))
        assert case.picture.mask is not None
        assert other.picture.mask is not None
        np.testing.assert_array_equal(case.picture.mask > 0, other.picture.mask > 0)


def test_patients_are_held_out_and_every_arm_sees_the_same_ones(phantoms: Path) -> None:
    real = from_table(phantoms / "real")
    found = split(real, 0.3, seed=4)
    assert len({real.cases[i].patient for i in found.test_images}) == 6
    seen: dict[tuple[str, float | None, int], set[str]] = {}
    for training in trainings(real, found, ("real", "both"), (0.2, 1.0), 2, seed=4):
        patients = {real.cases[i].patient for i in training.real}
        assert not patients & {*found.test}
        assert len(patients) == training.patients
        seen[training.arm, training.fraction, training.repeat] = patients
    for repeat in range(2):
        assert seen["real", 0.2, repeat] == seen["both", 0.2, repeat] < seen["real", 1.0, repeat]
    assert seen["real", 0.2, 0] != seen["real", 0.2, 1]


def test_intervals_are_as_wide_as_patients_and_repeats_make_them() -> None:
    random = np.random.default_rng(0)
    patients = [f"{i // 2}" for i in range(200)]  # two images each, which are all alike
    outcomes = np.repeat(0.5 + 0.1 * random.standard_normal((1, 100)), 2, 1)
    groups = np.zeros(200, np.int64)
    alone = Scores(patients, groups, 1, 0).score(outcomes)
    assert alone.value == pytest.approx(outcomes.mean())
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * outcomes.std() / 10, rel=0.1)
    several = np.concatenate([outcomes + shift for shift in (-0.1, -0.05, 0, 0.05, 0.1)])
    scores = Scores(patients, groups, 5, 0)
    wider = scores.score(several)
    variance = outcomes.var() / 100 + np.var((-0.1, -0.05, 0, 0.05, 0.1)) / 5
    assert wider.high - wider.low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.1)
    same = scores.ratio(several, several)
    assert same is not None
    assert (same.low, same.value, same.high) == (1, 1, 1)
    assert scores.ratio(several, np.zeros_like(several)) is None


def test_scores_are_means_over_classes_and_patients() -> None:
    patients, groups = ["a", "a", "a", "b", "c"], np.array([0, 0, 0, 0, 1])
    found = Scores(patients, groups, 1, 0).score(np.array([[0.0, 0, 0, 1, 1]]))
    assert found.value == pytest.approx((0.5 + 1) / 2)


def test_dice_is_that_of_monai() -> None:
    random = np.random.default_rng(0)
    found, truth = random.random((2, 6, 16, 16)) > 0.7
    found[0], truth[0], truth[1] = False, False, False
    want = compute_dice(
        torch.from_numpy(found[:, None]), torch.from_numpy(truth[:, None]), ignore_empty=False
    )
    np.testing.assert_allclose(dice(found, truth), want[:, 0].numpy(), rtol=1e-6)


def rewrite(change: Callable[[dict[str, str]], object]) -> Callable[[Path], None]:
    """Changes each row of a table."""

    def apply(path: Path) -> None:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            change(row)
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)

    return apply


@pytest.mark.parametrize(
    ("change", "given", "words"),
    [
        (rewrite(lambda row: row.pop("patient")), {}, "the patient of 00000.png is not known"),
        (rewrite(lambda row: row.update(patient="a")), {}, "of 1 patients 0 would be held out"),
        (rewrite(lambda row: row.pop("mask")), {}, "has no mask"),
        (rewrite(lambda row: row.update(image="none.png")), {}, "no such file"),
        (rewrite(lambda row: row.pop("image")), {}, "no column 'image'"),
        (
            rewrite(lambda row: row.update(label="a")),
            {"task": "classify", "runner": "true"},
            "all images are of the class 'a'",
        ),
        (
            rewrite(lambda row: row.update(label=row["label"].upper())),
            {"task": "classify", "runner": "true"},
            "the class 'benign' is none of the real images'",
        ),
        (None, {"task": "classify"}, "an extractor of features is needed"),
        (None, {"arms": ("both",)}, "nothing to hold the others against"),
        (None, {"fractions": (2.0,)}, "no fractions"),
        (None, {"size": (20, 20)}, "unet cannot take images of 20 × 20"),
    ],
)
def test_what_cannot_be_studied_is_refused(
    phantoms: Path,
    change: Callable[[Path], None] | None,
    given: dict[str, Any],
    words: str,
    tmp_path: Path,
) -> None:
    for path in (phantoms / "real").iterdir():
        (tmp_path / path.name).symlink_to(path)
    table = tmp_path / "cases.csv"
    table.unlink()
    table.write_bytes((phantoms / "real" / "cases.csv").read_bytes())
    if change is not None:
        change(table)
    with pytest.raises(InvalidInput, match=words):
        study(
            Design(**{"task": "segment", "intensity": LEVELS, **given}),
            from_table(phantoms / "synthetic"),
            from_table(tmp_path),
        )
