"""``galatea tune``: measured on the real server, written beside the release, served by name."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from galatea import Client, InvalidInput, RepositoryError
from galatea.card import ModelCard, Parity
from galatea.load import Load
from galatea.local_variants import check_name
from galatea.measured import Measured
from galatea.repository import Release, activate, find, verify
from galatea_exporter.export import export
from galatea_exporter.family import find_family
from galatea_server.configurations import configurations, heavy
from galatea_server.sameness import difference
from galatea_server.server import EmbeddedServer
from galatea_server.tuning.comparison import Comparison, Demand
from galatea_server.tuning.plot import draw
from galatea_server.tuning.result import Trial, Tuned, frontier
from galatea_server.tuning.settings import Settings, delays, grid, released
from galatea_server.tuning.writing import write
from support import INTERRUPTIBLE

STAGE = "masses.synthesis"
BETTER = Settings("cpu", 2, 1, 0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two versions of a small generator; the first one is active."""
    root = tmp_path_factory.mktemp("tuning")
    family = find_family("dcgan_mammo")
    torch.save({family.containers[0]: family.example()}, root / "masses.pt")
    for max_batch in (8, 4):
        export(family.name, root / "masses.pt", name="masses", repository=root / "models",
               max_batch=max_batch)  # fmt: skip
    activate(find(root / "models", "masses", 1))
    return root / "models"


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "models")


@pytest.fixture
def tuned(repository: Path) -> Path:
    """The repository with a tuned variant of the first version."""
    release = find(repository, "masses", 1)
    write(release, outcome(release), "tuned")
    return repository


def load(images_per_second: float, p95_ms: float, batch: int = 8, callers: int = 4) -> Load:
    return Load(
        "masses", 1, batch, callers, None, "", 1.0, 1, None, 10, images_per_second,
        images_per_second / batch, p95_ms, p95_ms, p95_ms, p95_ms, p95_ms, p95_ms, 4096,
    )  # fmt: skip


def outcome(release: Release) -> Tuned:
    base = Settings("cpu", 1, 0, 0)
    points = frontier([(base, load(100, 40)), (BETTER, load(130, 30)), (BETTER, load(20, 5, 1, 1))])
    measured = Measured.of(load(130, 30), device="a CPU", cores=2, instances=2, threads=1)
    return Tuned(release.name, release.version, "throughput", 8, 4, base, BETTER, 1.3, 0.02, True,
                 points, (), (), 1.0, measured)  # fmt: skip


def tune(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "galatea", "tune", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_generator_is_tuned_written_and_served(repository: Path) -> None:
    done = tune("masses", "--repository", repository, "--budget", "12s", "--force", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert not told["discarded"]
    assert told["gain"] > 0
    assert 8 in {point["batch"] for point in told["points"]}
    assert any(point["best"] for point in told["points"])
    assert told["points"][0]["settings"]["variant"] == "cpu"
    assert told["written"] == [
        f"{m}/configs/tuned.pbtxt" for m in ("masses.noise", STAGE, "masses")
    ]
    assert verify(repository) == []
    with EmbeddedServer(repository) as server, Client(server.grpc_url) as client:
        before = client.sample("masses", 11, seed=5).images
        assert client.measured("masses") is None
    with (
        EmbeddedServer(repository, model_config="tuned") as server,
        Client(server.grpc_url) as client,
    ):
        assert np.array_equal(client.sample("masses", 11, seed=5).images, before)
        measured = client.measured("masses")
        assert measured is not None
        assert (measured.variant, measured.batch) == ("tuned", 8)
        assert measured.images_per_second == told["measured"]["images_per_second"]
        assert measured.instances == told["best"]["instances"]


def test_what_was_measured_is_kept_on_ctrl_c_and_nothing_is_written(repository: Path) -> None:
    tune = ["tune", "masses", "--repository", str(repository), "--budget", "30s"]
    running = subprocess.Popen(
        [*INTERRUPTIBLE, *tune], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    while "× the baseline" not in running.stderr.readline():
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=30)
    assert running.returncode == 130, stderr
    assert "interrupted, nothing was written" in stdout
    assert len([line for line in stdout.splitlines() if line.startswith("cpu, ")]) >= 2
    assert find(repository, "masses").local() == []
    assert verify(repository) == []


def test_a_candidate_that_triton_refuses_is_discarded_with_its_reason(
    exported: Path, tmp_path: Path
) -> None:
    release = find(exported, "masses")
    base = released(configurations(release, "cpu"), heavy(release), "cpu")
    refused, fine = Trial(Settings("cuda", 1, 0, 0)), Trial(BETTER)
    with Comparison(tmp_path, release, heavy(release), base, Demand(8, 2)) as comparison:
        comparison.measure(refused, pairs=1, seconds=0.2)
        comparison.measure(fine, pairs=2, seconds=0.2)
    assert STAGE in refused.discarded
    assert not refused.pairs
    assert not fine.discarded
    assert [len(pair) for pair in fine.pairs] == [2, 2]


def test_settings_reach_the_heavy_stage_alone(tuned: Path) -> None:
    release = find(tuned, "masses", 1)
    assert heavy(release) == (STAGE,)
    text = (tuned / STAGE / "configs" / "tuned.pbtxt").read_text()
    assert "count: 2" in text
    noise = tuned / "masses.noise"
    assert (noise / "configs" / "tuned.pbtxt").read_bytes() == (noise / "config.pbtxt").read_bytes()


@pytest.mark.parametrize(
    ("file", "change", "finding"),
    [
        ("masses/1/local/tuned.pbtxt", Path.unlink, "is missing"),
        ("masses.synthesis/1/local/tuned.pbtxt", lambda p: p.write_text("#"), "the manifest says"),
        ("masses.synthesis/configs/tuned.pbtxt", lambda p: p.write_text("#"), "differs from"),
        ("masses/configs/tuned.pbtxt", Path.unlink, "is missing"),
        ("masses/configs/mine.pbtxt", Path.touch, "belongs to no variant of version 1"),
        ("masses/1/local/other.pbtxt", Path.touch, "is not in the manifest"),
    ],
)
def test_a_local_variant_is_verified(
    tuned: Path, file: str, change: Callable[[Path], None], finding: str
) -> None:
    assert verify(tuned) == []
    change(tuned / file)
    problems = verify(tuned)
    assert problems
    assert file in problems[0]
    assert finding in problems[0]


def test_a_local_manifest_cannot_name_files_of_the_release(tuned: Path) -> None:
    manifest = tuned / "masses" / "1" / "local" / "tuned.json"
    text = manifest.read_text()
    for other in ("masses.noise/1/model.onnx", "../x.plan", "masses/1/local/../config.pbtxt"):
        manifest.write_text(text.replace("masses/1/local/tuned.pbtxt", other))
        with pytest.raises(RepositoryError, match="is no file of a local variant"):
            verify(tuned)


def test_a_local_variant_comes_and_goes_with_its_version(tuned: Path) -> None:
    served = tuned / STAGE / "configs" / "tuned.pbtxt"
    activate(find(tuned, "masses", 2))
    assert not served.exists()
    assert verify(tuned) == []
    activate(find(tuned, "masses", 1))
    assert served.exists()
    assert verify(tuned) == []


def test_a_local_variant_can_be_removed(tuned: Path) -> None:
    command = [sys.executable, "-m", "galatea", "repo", "forget", "masses"]
    for code in (0, 5):
        done = subprocess.run([*command, "tuned", "--repository", str(tuned)], check=False)
        assert done.returncode == code
    assert verify(tuned) == []
    assert not list(tuned.rglob("tuned.*"))


def test_a_name_of_the_release_is_refused(exported: Path) -> None:
    with pytest.raises(InvalidInput, match="releases never change"):
        check_name("cuda", find(exported, "masses").variants())
    done = tune("masses", "--repository", exported, "--as", "../x")
    assert done.returncode == 5
    assert "is no name of a variant" in done.stderr


def test_a_variant_that_cannot_run_here_is_refused_before_anything_is_measured(
    exported: Path,
) -> None:
    done = tune("masses", "--repository", exported, "--variant", "cuda")
    assert done.returncode == 5
    assert "the variant 'cuda' cannot be measured here: this machine has no GPU" in done.stderr


def test_the_grid_shares_out_the_cores() -> None:
    base = Settings("cpu", 1, 0, 0)
    tried = grid(base, 6, on_gpu=False)
    assert base not in tried
    assert {settings.instances for settings in tried} == {1, 2, 4, 6}
    assert all(settings.instances * settings.threads <= 6 for settings in tried)
    assert Settings("cpu", 2, 3, 0) in tried
    assert {settings.delay_us for settings in delays(base)} == {500, 2000}


def test_no_point_of_the_frontier_is_beaten() -> None:
    slow, fast = Settings("cpu", 1, 0, 0), Settings("cpu", 2, 1, 0)
    points = frontier(
        [(slow, load(100, 40)), (slow, load(90, 50)), (fast, load(120, 30)), (slow, load(10, 5, 1))]
    )
    assert [(p.images_per_second, p.p95_ms, p.windows, p.best) for p in points] == [
        (10, 5, 1, True), (95, 45, 2, False), (120, 30, 1, True),
    ]  # fmt: skip


def test_a_gain_is_the_median_of_pairs_and_its_noise_half_their_range() -> None:
    trial = Trial(BETTER, [(load(100, 40), load(rate, 20)) for rate in (110, 120, 140)])
    assert trial.gain("throughput") == pytest.approx(1.2)
    assert trial.noise("throughput") == pytest.approx(0.15)
    assert trial.gain("latency") == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("variant", "levels", "share", "reason"),
    [
        ("cpu", 0, 0.0, ""),
        ("cpu", 1, 0.0005, "has other bytes"),
        ("cuda", 1, 0.0005, ""),
        ("cuda", 1, 0.5, "1 in 0.10% are allowed"),
        ("cuda", 2, 0.0005, "2 levels"),
        ("cuda-fp16", 3, 0.1, ""),
        ("cuda-fp16", 4, 0.1, "3 in 20.00% are allowed"),
    ],
)
def test_images_must_be_the_same_or_within_what_their_card_allows(
    exported: Path, variant: str, levels: int, share: float, reason: str
) -> None:
    card = replace(find(exported, "masses").card(), parity_fp16=Parity(0, 0.02, 3, 0.2, (1,), ""))
    before = {"image": np.full((4, 50, 50, 1), 100, np.uint8)}
    after = {"image": before["image"].copy()}
    after["image"].reshape(-1)[: round(share * after["image"].size)] += np.uint8(levels)
    told = difference(card, "cpu", variant, before, after)
    assert (reason in told) if reason else told == ""


def test_float16_without_a_figure_in_the_card_is_discarded(exported: Path) -> None:
    card: ModelCard = replace(find(exported, "masses").card(), parity_fp16=None)
    images = {"image": np.zeros((1, 2, 2, 1), np.uint8)}
    assert "no figure of float16" in difference(card, "cpu", "cuda-fp16", images, images)


def test_the_points_are_drawn(exported: Path, tmp_path: Path) -> None:
    draw(outcome(find(exported, "masses")), tmp_path / "frontier.png")
    with Image.open(tmp_path / "frontier.png") as picture:
        assert picture.size == (1050, 675)
