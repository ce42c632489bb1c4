"""What a large number of images takes, by what was measured."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from galatea import Client, InvalidInput
from galatea.measured import MEASURED_PARAMETER, Measured
from galatea.planning import plan
from galatea_server.server import EmbeddedServer

FIGURES = Measured(
    "phantom", 1, images_per_second=500.0, batch=16, callers=8, p50_ms=20.0, p95_ms=30.0,
    device="2 × GPU", gpus=2, cores=8, wire_bytes=33_000, variant="cuda",
    date="2026-01-01T00:00:00+00:00",
)  # fmt: skip


@pytest.fixture(scope="module")
def phantom(phantom_repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(phantom_repository) as running:
        yield running


@pytest.fixture(scope="module")
def report(phantom: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``galatea bench --json`` has printed."""
    path = tmp_path_factory.mktemp("bench") / "report.json"
    done = galatea("bench", "phantom", "--batch", 8, "--callers", 1, "--seconds", 0.5, "--json",
                   url=phantom.grpc_url)  # fmt: skip
    path.write_text(done.stdout)
    return path


def galatea(*arguments: object, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "galatea", *map(str, arguments), "--url", url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_figures_the_three_ways_to_get_some_are_named(phantom: EmbeddedServer) -> None:
    done = galatea("plan", "phantom", "-n", 1000, url=phantom.grpc_url)
    assert done.returncode == 5
    for way in ("galatea tune phantom", "--bench FILE", "--measure"):
        assert way in done.stderr


def test_a_plan_counts_with_a_report_of_bench(
    phantom: EmbeddedServer, report: Path, tmp_path: Path
) -> None:
    formats = ("png", "webdataset")
    done = galatea("plan", "phantom", "-n", 64, "--replicas", 2, "--bench", report,
                   "--price-per-hour", 3, *(f"--format={name}" for name in formats), "--json",
                   url=phantom.grpc_url)  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    one = json.loads(report.read_text())["loads"][0]["images_per_second"]
    assert made["images_per_second"] == pytest.approx(2 * one)
    assert made["hours"] == pytest.approx(64 / (2 * one) / 3600)
    assert made["cost"] == pytest.approx(3 * 2 * made["hours"])
    assert made["gpu_hours"] is None
    assert made["core_hours"] == pytest.approx(2 * made["measured"]["cores"] * made["hours"])
    assert 64 * 2 * 128 * 128 < made["wire_bytes"] < 64 * 2 * 128 * 128 * 1.02  # image and mask
    told = " ".join(made["assumptions"])
    for words in ("2 servers give 2 times", "100% of the time", "16 that were encoded", "costs 3"):
        assert words in told
    for name in formats:
        folder = tmp_path / name
        kept = galatea("generate", "phantom", "-n", 64, "--seed", 0, "--format", name, "-o", folder,
                       url=phantom.grpc_url)  # fmt: skip
        assert kept.returncode == 0, kept.stderr
        shards = sum(
            path.stat().st_size
            for path in folder.rglob("*")
            if path.is_file() and path.suffix in (".png", ".tar")
        )
        assert made["disk_bytes"][name] == pytest.approx(shards, rel=0.1)


def test_a_plan_measures_when_it_is_told_to(phantom: EmbeddedServer) -> None:
    done = galatea("plan", "phantom", "-n", 10**6, "--measure", url=phantom.grpc_url)
    assert done.returncode == 0, done.stderr
    assert "1000000 of phantom version 1" in done.stdout
    assert "core-hours" in done.stdout
    assert "disk, png" in done.stdout


def test_figures_travel_in_the_served_configuration(
    phantom_repository: Path, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    shutil.copytree(phantom_repository, root)
    path = root / "phantom" / "config.pbtxt"
    config = text_format.Parse(path.read_text("utf-8"), model_config_pb2.ModelConfig())
    config.parameters[MEASURED_PARAMETER].string_value = FIGURES.to_json()
    path.write_text(text_format.MessageToString(config, as_utf8=True), "utf-8")
    with EmbeddedServer(root) as server:
        with Client(server.grpc_url) as client:
            assert client.measured("phantom") == FIGURES
        done = galatea("plan", "phantom", "-n", 3_600_000, "--gpus", 4, "--sample", 0,
                       url=server.grpc_url)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 servers with 4 GPUs, 1000 images/s" in done.stdout
    assert "variant cuda" in done.stdout


def test_servers_are_counted_for_a_rate_and_for_gpus(phantom: EmbeddedServer) -> None:
    with Client(phantom.grpc_url) as client:
        card = client.model("phantom")
        assert client.measured("phantom") is None
    made = plan(card, FIGURES, 3_600_000, rate=1200, utilisation=0.8)
    assert made.servers == 3
    assert made.hours == pytest.approx(1 / 1.2)
    assert made.gpu_hours == pytest.approx(5)
    made = plan(card, FIGURES, 3_600_000, gpus=8)
    assert made.servers == 4
    assert made.hours == pytest.approx(0.5)
    assert made.core_hours is None
    with pytest.raises(InvalidInput, match="3 GPUs are no servers of 2"):
        plan(card, FIGURES, 1, gpus=3)
    with pytest.raises(InvalidInput, match="measured on a CPU"):
        plan(card, replace(FIGURES, gpus=0), 1, gpus=1)
    with pytest.raises(InvalidInput, match="are of masses"):
        plan(card, replace(FIGURES, model="masses"), 1)
    with pytest.raises(InvalidInput, match="are no plan"):
        plan(card, FIGURES, 1, utilisation=0)


def test_figures_that_cannot_be_read_are_refused(
    phantom: EmbeddedServer, report: Path, tmp_path: Path
) -> None:
    assert Measured.from_json(FIGURES.to_json()) == FIGURES
    with pytest.raises(InvalidInput, match="schema 2"):
        Measured.from_json(replace(FIGURES, schema=2).to_json())
    with pytest.raises(InvalidInput, match="no JSON"):
        Measured.from_json("fast")
    with pytest.raises(InvalidInput, match="batch is '16'"):
        Measured.from_dict({**FIGURES.to_dict(), "batch": "16"})
    for content, words in (("fast", "no JSON"), ('{"loads": []}', "no figures of callers")):
        path = tmp_path / "report.json"
        path.write_text(content)
        done = galatea("plan", "phantom", "-n", 1, "--bench", path, url=phantom.grpc_url)
        assert done.returncode == 5
        assert words in done.stderr
