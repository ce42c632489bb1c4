"""What is measured of a server under load, and how ``galatea bench`` tells it."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from PIL import Image

from galatea import Client, InvalidInput, ModelUnavailable, ServerUnreachable
from galatea._requests import samplings
from galatea._wire.messages import pack
from galatea.load import Load, Timing, bytes_per_image, canvas, closed_loop, open_loop
from galatea.load._arrivals import gaps
from galatea.load._gpus import utilisations
from galatea.load._processes import server_processes
from galatea_exporter.export import export
from galatea_exporter.family import random_weights
from galatea_exporter.layers.guided_diffusion import UNet
from galatea_exporter.layers.guided_layout import GuidedOptions, Layout, Level
from galatea_server.server import EmbeddedServer
from support import INTERRUPTIBLE

HELD = 8  # samples that the diffusion generator takes at a time


@pytest.fixture(scope="module")
def phantom(phantom_repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(phantom_repository) as running:
        yield running


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of ``steps``, a diffusion generator that is soon full."""
    folder = tmp_path_factory.mktemp("steps")
    layout = Layout(1, 1, 32, (Level(32, False), Level(64, True)), blocks=1)
    torch.save(random_weights(UNet(layout, GuidedOptions())), folder / "model.pt")
    settings = {"image_size": "16", "sampler": "ddim", "steps": "10", "sigma_small": "true"}
    root = folder / "models"
    export(
        "guided_diffusion", folder / "model.pt",
        name="steps", repository=root, settings=settings, max_batch=4,
    )  # fmt: skip
    for config in root.glob("steps*/config.pbtxt"):
        held = config.read_text().replace(r"\"max_samples\": 256", rf"\"max_samples\": {HELD}")
        config.write_text(held)
    with EmbeddedServer(root) as running:
        yield running


def bench(server: EmbeddedServer, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "galatea", "bench", *map(str, arguments)]
    return subprocess.run(
        [*command, "--url", server.grpc_url], capture_output=True, text=True, check=False
    )


def is_plausible(load: Load) -> bool:
    """Whether the figures of a load agree with each other."""
    assert load.requests > 0
    assert load.errors == {}
    assert load.images_per_second == pytest.approx(load.requests_per_second * load.batch, rel=1e-3)
    assert load.requests_per_second == pytest.approx(load.requests / load.seconds, rel=1e-3)
    latencies = (load.p50_ms, load.p90_ms, load.p95_ms, load.p99_ms, load.max_ms)
    assert all(0 < a <= b for a, b in pairwise(latencies))
    assert load.breakdown is not None
    assert load.breakdown.server_ms + load.breakdown.wire_ms == pytest.approx(
        load.mean_ms, rel=1e-3
    )
    return True


def test_a_sweep_measures_each_load_and_where_its_time_goes(
    phantom: EmbeddedServer, tmp_path: Path
) -> None:
    done = bench(phantom, "phantom", "--batch", "1,4", "--callers", "1:2", "--seconds", 0.5,
                 "--warmup", 0.1, "--label", "malignant", "--csv", tmp_path / "f.csv",
                 "--metrics-url", phantom.metrics_url, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["conditions"] == {"label": "malignant"}
    assert report["server"].startswith("triton 2.")
    loads = report["loads"]
    assert [(load["callers"], load["batch"]) for load in loads] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    for load in loads:
        assert 0 < load["p50_ms"] <= load["p95_ms"] <= load["p99_ms"]
        stages = {stage["model"]: stage for stage in load["breakdown"]["stages"]}
        assert list(stages) == ["phantom", "phantom.noise", "phantom.synthesis"]
        heavy = stages["phantom.synthesis"]
        if load["batch"] == 4:
            assert heavy["infer_ms"] > stages["phantom.noise"]["infer_ms"]
        # Two requests may be on their way at either end of the time that is looked at.
        assert heavy["executions"] * heavy["mean_batch"] == pytest.approx(
            heavy["requests"] * load["batch"], abs=2.5 * load["batch"]
        )
        assert load["usage"]["client_cpu_seconds"] > 0
        assert load["usage"]["server_cpu_seconds"] > 0
        assert load["usage"]["gpu_utilisation"] is None  # there is no GPU, and none is invented
    fastest = max(loads, key=lambda load: load["images_per_second"])
    assert report["measured"]["images_per_second"] == fastest["images_per_second"]
    assert report["measured"]["cores"] == len(os.sched_getaffinity(0))
    with (tmp_path / "f.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["batch"] for row in rows] == ["1", "4", "1", "4"]
    assert float(rows[0]["phantom.synthesis infer_ms"]) > 0


def test_windows_go_on_until_they_agree(phantom: EmbeddedServer) -> None:
    def measured(timing: Timing) -> Load:
        return closed_loop(
            lambda: Client(phantom.grpc_url), "phantom", batch=2, callers=2, timing=timing
        )

    told: list[Load] = []
    load = measured(Timing(warmup=0.1, window=0.3, stability=0.9))
    assert is_plausible(load)
    assert load.stable
    assert 3 <= load.windows < 10
    assert 0.5 < load.seconds < 5  # of three windows
    load = closed_loop(
        lambda: Client(phantom.grpc_url), "phantom", callers=1, report=told.append,
        timing=Timing(warmup=0, window=1.1, stability=1e-9, most=3),
    )  # fmt: skip
    assert load.stable is False
    assert load.batch == 32
    assert told
    assert all(part.breakdown is None and part.requests > 0 for part in told)


def test_requests_of_a_rate_arrive_by_chance_or_evenly(phantom: EmbeddedServer) -> None:
    for arrivals in ("poisson", "constant"):
        load = open_loop(
            lambda: Client(phantom.grpc_url), "phantom", batch=1, rate=20, arrivals=arrivals,
            seconds=1.5, warmup=0.2,
        )  # fmt: skip
        assert is_plausible(load)
        assert (load.callers, load.rate, load.arrivals) == (None, 20, arrivals)
        assert 10 < load.requests_per_second < 30
        assert load.lateness is not None
        assert 0 <= load.lateness.p50_ms <= load.lateness.max_ms
    drawn = np.array(list(islice(gaps(100, "poisson", 7), 5000)))
    assert drawn.tolist() == list(islice(gaps(100, "poisson", 7), 5000))
    # Exponential: mean and deviation are the same.
    assert drawn.mean() == pytest.approx(0.01, rel=0.1)
    assert drawn.std() == pytest.approx(0.01, rel=0.1)
    assert list(islice(gaps(100, "constant", 7), 2)) == [0.01, 0.01]


def test_pictures_are_translated_under_load(translators: EmbeddedServer, tmp_path: Path) -> None:
    for name, size in (("banded", 16), ("negative", 32)):
        pictures = tmp_path / name
        pictures.mkdir()
        for k in range(3):
            Image.new("L", (size, size), 80 * k).save(pictures / f"{k}.png")
    load = closed_loop(
        lambda: Client(translators.grpc_url), "banded", batch=2, callers=1, seconds=0.3, warmup=0
    )
    assert is_plausible(load)
    with Client(translators.grpc_url) as client:
        free = client.model("negative")  # of any size
    each = bytes_per_image(free, 4, canvas(free))
    assert 2 * 256 * 256 < each < 2.01 * 256 * 256
    done = bench(translators, "negative", "--source", tmp_path / "negative", "--batch", 2,
                 "--callers", 1, "--seconds", 0.3, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["loads"][0]["requests"] > 0
    Image.new("L", (16, 16)).save(tmp_path / "negative" / "small.png")
    mixed = bench(translators, "negative", "--source", tmp_path / "negative", "--batch", 4)
    assert mixed.returncode == 5
    assert "several sizes" in mixed.stderr
    none = bench(translators, "masses", "--source", tmp_path / "negative")
    assert none.returncode == 5
    assert "takes none" in none.stderr


def test_diffusion_takes_steps_and_refusals_are_counted(diffusion: EmbeddedServer) -> None:
    def connect() -> Client:
        return Client(diffusion.grpc_url, patience=0)

    load = closed_loop(connect, "steps", batch=2, callers=2, seconds=0.5, warmup=0, steps=3)
    assert is_plausible(load)
    assert load.breakdown is not None
    network = next(stage for stage in load.breakdown.stages if stage.model == "steps.unet")
    images = network.executions * network.mean_batch
    assert images == pytest.approx(3 * 2 * load.requests, rel=0.5)  # a row for each step
    load = open_loop(
        connect, "steps", batch=4, rate=200, arrivals="constant", seconds=1, warmup=0.2, steps=10
    )
    assert load.requests > 0
    assert load.errors["ServerError"] > 0  # busy


def test_a_load_without_a_success_is_an_error(phantom: EmbeddedServer) -> None:
    def connect() -> Client:
        return Client(phantom.grpc_url)

    with pytest.raises(ModelUnavailable):
        closed_loop(connect, "xyz", callers=1)
    with pytest.raises(InvalidInput, match="no label 7"):
        closed_loop(connect, "phantom", callers=2, label=7)
    with pytest.raises(InvalidInput, match="at most"):
        open_loop(connect, "phantom", batch=1000, rate=1)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(ServerUnreachable):
            closed_loop(lambda: Client(nobody), "phantom", callers=1)


def test_the_process_of_a_server_is_known_by_its_port(phantom: EmbeddedServer) -> None:
    assert server_processes([phantom.grpc_url]) == [phantom.pid]
    assert server_processes([phantom.grpc_url, "triton.example:8001"]) is None
    with socket.socket() as sock:  # a proxy, as it were
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        assert server_processes([f"127.0.0.1:{sock.getsockname()[1]}"]) is None


def test_gpus_are_read_from_what_triton_documents() -> None:
    page = (
        '# TYPE nv_gpu_utilization gauge\nnv_gpu_utilization{gpu_uuid="GPU-1"} 0.93\n'
        'nv_gpu_utilization{gpu_uuid="GPU-2"} 0.5\nnv_gpu_power_usage{gpu_uuid="GPU-1"} 70\n'
    )
    assert utilisations(page) == [0.93, 0.5]


def test_the_bytes_of_an_image_are_those_of_the_messages(phantom: EmbeddedServer) -> None:
    with Client(phantom.grpc_url, transport="grpc") as client:
        card = client.model("phantom")
        served = client._session.served("phantom")
        endpoint = client._session._pool.endpoints[0]
        (request,) = samplings(served, 8, 8, 0, {})
        _, head, arrays = endpoint._prepare(served.call(request), 60)
    message = pack(head, arrays)
    with grpc.insecure_channel(phantom.grpc_url) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer"
        )
        answer = infer(message)
    told = 8 * bytes_per_image(card, 8)
    frames = 9 * (len(answer) // 16384 + 2) + 2 * 5  # of HTTP/2 and gRPC
    assert told == pytest.approx(len(message) + len(answer) + frames, abs=64)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["phantom", "--callers", "0"], 5, "measure nothing"),
        (["phantom", "--rate", "0"], 5, "measure nothing"),
        (["phantom", "--seconds", "0"], 5, "measure nothing"),
        (["phantom", "--windows", "2"], 5, "never stable"),
        (["phantom", "--callers", "2", "--rate", "5"], 2, "--callers or --rate"),
        (["phantom", "--batch", "1:x"], 2, "is no series"),
        (["phantom", "--metrics-url", "ftp://x"], 5, "no URL of metrics"),
        (["xyz", "--seconds", "0.1"], 4, "no model 'xyz'"),
    ],
)
def test_a_load_that_is_none_is_refused(
    phantom: EmbeddedServer, arguments: list[str], code: int, words: str
) -> None:
    done = bench(phantom, *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert done.stdout == ""


def test_an_interrupted_sweep_prints_what_there_is(phantom: EmbeddedServer) -> None:
    process = subprocess.Popen(
        [*INTERRUPTIBLE, "bench", "phantom", "--batch", "1", "--callers", "1,2",
         "--seconds", "0.5", "--warmup", "2", "--url", phantom.grpc_url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("callers 2"):
                    break
            process.send_signal(signal.SIGINT)
            out, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert told.endswith("interrupted\n")
    callers, batch, rate, *_ = out.splitlines()[0].split("\t")
    assert (callers, batch) == ("1", "1")
    assert float(rate) > 0
