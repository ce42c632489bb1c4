"""The sampler as a Triton model, on a real server."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2 as pb

from galatea.card import ValueRange
from galatea_exporter.family import random_weights
from galatea_exporter.graph import export_stage, serialise, without_probes
from galatea_exporter.layers.guided_diffusion import UNet, load_unet, unet_stage
from galatea_exporter.layers.guided_layout import GuidedOptions, Layout, Level
from galatea_exporter.pixels import Picture, Pixels
from galatea_exporter.sampler.noise import noise_v1
from galatea_exporter.sampler.samplers import Settings, start
from galatea_exporter.sampler.schedules import Schedule
from galatea_exporter.stages import Stage, TensorSpec
from galatea_exporter.triton_config import stage_config, to_text
from galatea_server.server import EmbeddedServer
from support import wait_until

SIZE, CLASSES, MAX_ROWS = 16, 3, 4
SHAPE = (1, SIZE, SIZE)
LAYOUT = Layout(1, 1, 32, (Level(32, False), Level(64, True)), blocks=1, classes=CLASSES)
SCHEDULE = Schedule(train_steps=1000, sampler="ddim")
PIXELS = Pixels(ValueRange(-1.0, 1.0, "nearest"))


@pytest.fixture(scope="module")
def unet() -> UNet:
    torch.manual_seed(0)
    state = random_weights(UNet(LAYOUT, GuidedOptions()))
    return load_unet(state, GuidedOptions(), Path("unet.pt"), "guided_diffusion")


@pytest.fixture(scope="module")
def repository(unet: UNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion generator ``g`` with its network and its decoder."""
    root = tmp_path_factory.mktemp("diffusion")
    _, specs = PIXELS.outputs(("intensity",), (SIZE, SIZE))
    decoder = Stage(
        "decoder",
        Picture(torch.nn.Identity(), 1, PIXELS).eval(),
        (TensorSpec("sample", "float32", SHAPE),),
        specs,
        (TensorSpec("floats", "float32", SHAPE),),
    )
    for stage in (unet_stage(unet, SIZE), decoder):
        folder = root / f"g.{stage.name}" / "1"
        folder.mkdir(parents=True)
        graph = serialise(without_probes(export_stage(stage), stage))
        (folder / "model.onnx").write_bytes(graph)
        config = stage_config(
            f"g.{stage.name}", stage, version=1, max_batch=8, variant="cpu", graph_sha256="0"
        )
        (folder.parent / "config.pbtxt").write_bytes(to_text(config))
    code = root / "g" / "1"
    code.mkdir(parents=True)
    for path in Path(str(files("galatea_exporter") / "sampler")).iterdir():
        if path.is_file() and path.name != "__init__.py":
            shutil.copy(path, code)
    (code.parent / "config.pbtxt").write_bytes(to_text(public()))
    return root


def public() -> Any:
    settings = {
        "schedule": {"train_steps": 1000, "sampler": "ddim"},
        "shape": SHAPE,
        "network": "g.unet",
        "decoder": "g.decoder",
        "conditions": ["label"],
        "unconditional": None,
        "steps": 10,
        "guidance": 1.0,
        "max_rows": MAX_ROWS,
        "max_samples": 64,
    }
    config = text_format.Parse(
        """
        name: "g" backend: "python" max_batch_size: 8
        input { name: "seed" data_type: TYPE_INT64 dims: 1 }
        input { name: "label" data_type: TYPE_INT64 dims: 1 }
        input { name: "steps" data_type: TYPE_INT32 dims: 1 optional: true }
        input { name: "eta" data_type: TYPE_FP32 dims: 1 optional: true }
        instance_group { kind: KIND_CPU count: 1 }
        """,
        pb.ModelConfig(),
    )
    config.output.add(name="image", data_type=pb.TYPE_UINT8, dims=[SIZE, SIZE, 1])
    config.parameters["sampler"].string_value = json.dumps(settings)
    return config


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository) as running:
        yield running


@pytest.fixture
def wire(server: EmbeddedServer) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(server.grpc_url)
    yield client
    client.close()


def inputs(seeds: list[int], **controls: Any) -> list[triton.InferInput]:
    """A request's tensors; each control is one value for all samples, or a list."""
    types = {"seed": np.int64, "label": np.int64, "steps": np.int32, "eta": np.float32}
    tensors = []
    for name, value in {"seed": seeds, "label": 0, **controls}.items():
        column = np.broadcast_to(np.asarray(value, types[name]), len(seeds)).reshape(-1, 1)
        wanted = {"int64": "INT64", "int32": "INT32", "float32": "FP32"}[column.dtype.name]
        tensor = triton.InferInput(name, list(column.shape), wanted)
        tensor.set_data_from_numpy(np.ascontiguousarray(column))
        tensors.append(tensor)
    return tensors


def sample(wire: triton.InferenceServerClient, seeds: list[int], **controls: Any) -> NDArray[Any]:
    made: NDArray[Any] = wire.infer("g", inputs(seeds, **controls)).as_numpy("image")
    return made


def by_hand(unet: UNet, seed: int, label: int, steps: int, eta: float = 0.0) -> NDArray[Any]:
    """The same in PyTorch, without a server or an engine."""

    def noise(stream: int) -> NDArray[np.float32]:
        return noise_v1(np.array([seed]), SIZE * SIZE, stream).reshape(SHAPE)

    run = start(Settings(steps, eta=eta), SCHEDULE, SHAPE, noise)
    while not run.finished:
        x, t = run.row()
        with torch.no_grad():
            given = torch.from_numpy(x[None]), torch.tensor([[t]]).float()
            run.advance(unet(*given, torch.tensor([[label]]))[0].numpy())
    levels: NDArray[Any] = np.clip(np.round((run.sample + 1) * 127.5), 0, 255)
    return levels[0, :, :, None]


def test_it_makes_what_a_loop_in_pytorch_makes(
    unet: UNet, wire: triton.InferenceServerClient
) -> None:
    for steps, eta in ((1, 0.0), (7, 0.0), (10, 1.0)):
        made = sample(wire, [3, -4], label=[0, 2], steps=steps, eta=eta)
        assert made.dtype == np.uint8
        for image, seed, label in zip(made, (3, -4), (0, 2), strict=True):
            expected = by_hand(unet, seed, label, steps, eta)
            assert np.abs(image.astype(float) - expected).max() <= 1
    assert np.array_equal(sample(wire, [3]), sample(wire, [3], steps=10))


def test_images_do_not_depend_on_the_neighbours_or_a_restart(
    wire: triton.InferenceServerClient, repository: Path
) -> None:
    asked = [(seed, seed % CLASSES, 2 + seed % 9) for seed in range(24)]
    alone = [sample(wire, [seed], label=label, steps=steps)[0] for seed, label, steps in asked]
    with ThreadPoolExecutor(12) as callers:
        crowd = list(callers.map(lambda a: sample(wire, [a[0]], label=a[1], steps=a[2])[0], asked))
    seeds, labels, steps = zip(*asked[:8], strict=True)
    together = sample(wire, list(seeds), label=labels, steps=steps)
    assert all(np.array_equal(a, b) for a, b in zip(alone, crowd, strict=True))
    assert np.array_equal(together, alone[:8])
    with EmbeddedServer(repository) as again:
        other = triton.InferenceServerClient(again.grpc_url)
        assert np.array_equal(sample(other, list(seeds), label=labels, steps=steps), alone[:8])
        other.close()


def test_a_wrong_order_is_refused_alone(wire: triton.InferenceServerClient) -> None:
    with ThreadPoolExecutor(2) as callers:
        right = callers.submit(sample, wire, [1], steps=20)
        with pytest.raises(triton.InferenceServerException, match="steps"):
            sample(wire, [2], steps=0)
        assert right.result().shape == (1, SIZE, SIZE, 1)


def test_a_cancelled_request_frees_its_rows(
    server: EmbeddedServer, wire: triton.InferenceServerClient
) -> None:
    sample(wire, [0], steps=1)
    before = rows(server)
    done = threading.Event()
    call = wire.async_infer(
        "g", inputs(list(range(8)), steps=1000), callback=lambda result, error: done.set()
    )
    wait_until(lambda: rows(server) > before)
    call.cancel()
    assert done.wait(20)
    began = time.perf_counter()
    sample(wire, [1], steps=1)
    # The 8 samples would have held the engine for 2,000 calls.
    assert time.perf_counter() - began < 5


def rows(server: EmbeddedServer) -> float:
    """Rows that the network has computed."""
    metrics = urllib.request.urlopen(f"http://{server.metrics_url}/metrics").read().decode()
    lines = metrics.splitlines()
    return sum(
        float(line.split()[-1])
        for line in lines
        if line.startswith('nv_inference_count{model="g.unet"')
    )


def test_more_than_the_engine_holds_is_answered_busy(server: EmbeddedServer) -> None:
    clients = [triton.InferenceServerClient(server.grpc_url) for _ in range(12)]

    def ask(client: triton.InferenceServerClient) -> str:
        try:
            sample(client, list(range(8)), steps=40)
        except triton.InferenceServerException as error:
            return str(error.message())
        return "made"

    with ThreadPoolExecutor(len(clients)) as callers:
        answers = list(callers.map(ask, clients))
    for client in clients:
        client.close()
    assert answers.count("made") >= 8
    assert all("busy" in answer for answer in answers if answer != "made")
    assert any("busy" in answer for answer in answers)
