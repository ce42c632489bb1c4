"""Diffusion generators on a real server, as callers in any language see them."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from galatea.repository import find
from galatea_exporter.export import export
from galatea_exporter.family import random_weights
from galatea_exporter.layers.guided_diffusion import UNet, load_unet
from galatea_exporter.layers.guided_layout import GuidedOptions, Layout, Level
from galatea_exporter.sampler.noise import noise_of
from galatea_exporter.sampler.samplers import Settings, start
from galatea_exporter.scheduler_config import guided_schedule
from galatea_server.server import EmbeddedServer
from support import metric, wait_until

SIZE, CLASSES = 16, 3
BOUND = 64  # samples that the engine holds
SHAPE = (1, SIZE, SIZE)
LAYOUT = Layout(1, 1, 32, (Level(32, False), Level(64, True)), blocks=1, classes=CLASSES + 1)
SCHEDULE = guided_schedule(sigma_small=True)
SETTINGS = {
    "image_size": "16", "sampler": "ddim", "steps": "10", "sigma_small": "true",
    "rounding": "nearest", "unconditional_label": str(CLASSES), "guidance": "2",
}  # fmt: skip


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return random_weights(UNet(LAYOUT, GuidedOptions()))


@pytest.fixture(scope="module")
def repository(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the diffusion generator ``g``, whose queue is short."""
    folder = tmp_path_factory.mktemp("diffusion")
    torch.save(state, folder / "model.pt")
    root = folder / "models"
    export(
        "guided_diffusion", folder / "model.pt",
        name="g", repository=root, settings=SETTINGS, max_batch=8, fp16=True,
    )  # fmt: skip
    config = root / "g" / "config.pbtxt"
    bounded = config.read_text().replace(r"\"max_samples\": 256", rf"\"max_samples\": {BOUND}")
    config.write_text(bounded)
    return root


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    further = ["--model-control-mode=explicit", "--load-model=*"]
    with EmbeddedServer(repository, further=further) as running:
        yield running


@pytest.fixture
def wire(server: EmbeddedServer) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(server.grpc_url)
    yield client
    client.close()


def inputs(seeds: list[int], **controls: Any) -> list[triton.InferInput]:
    """A request's tensors; each control is one value for all samples, or a list."""
    types = {
        "INT64": ("seed", "label"), "INT32": ("steps", "preview_every"),
        "FP32": ("eta", "guidance"), "BYTES": ("sampler",),
    }  # fmt: skip
    tensors = []
    for name, value in {"seed": seeds, "label": 0, **controls}.items():
        kind = next(kind for kind, names in types.items() if name in names)
        column = np.broadcast_to(np.asarray(value), len(seeds)).reshape(-1, 1)
        tensor = triton.InferInput(name, list(column.shape), kind)
        tensor.set_data_from_numpy(column.astype(triton_to_np_dtype(kind)))
        tensors.append(tensor)
    return tensors


def sample(wire: triton.InferenceServerClient, seeds: list[int], **controls: Any) -> NDArray[Any]:
    made: NDArray[Any] = wire.infer("g", inputs(seeds, **controls)).as_numpy("image")
    return made


def by_hand(unet: UNet, seed: int, label: int, settings: Settings, guidance: float) -> NDArray[Any]:
    """The same in PyTorch, without a server or an engine."""

    def noise(stream: int) -> NDArray[np.float32]:
        return noise_of(seed, SHAPE, stream)

    def predict(x: NDArray[np.float32], t: float, label: int) -> NDArray[np.float32]:
        with torch.no_grad():
            given = torch.from_numpy(x[None]), torch.tensor([[t]]).float(), torch.tensor([[label]])
            made: NDArray[np.float32] = unet(*given)[0].numpy()
        return made

    run = start(settings, SCHEDULE, SHAPE, noise)
    while not run.finished:
        x, t = run.row()
        base, told = predict(x, t, CLASSES), predict(x, t, label)
        run.advance(base + guidance * (told - base))
    levels: NDArray[Any] = np.clip(np.round((run.sample + 1) * 127.5), 0, 255)
    return levels[0, :, :, None]


def test_it_makes_what_a_loop_in_pytorch_makes(
    state: dict[str, torch.Tensor], wire: triton.InferenceServerClient
) -> None:
    unet = load_unet(state, GuidedOptions(), Path("model.pt"), "guided_diffusion")
    for sampler, steps, eta, guidance in (
        ("ddim", 1, 0.0, 1.0), ("ddim", 10, 1.0, 2.0), ("ddpm", 5, 0.0, 3.0), ("plms", 5, 0.0, 1.5),
        ("euler", 5, 0.0, 1.0), ("dpmpp_2m", 7, 0.0, 2.0),
    ):  # fmt: skip
        controls = {"sampler": sampler, "steps": steps, "eta": eta, "guidance": guidance}
        made = sample(wire, [3, -4], label=[0, 2], **controls)
        assert made.dtype == np.uint8
        for image, seed, label in zip(made, (3, -4), (0, 2), strict=True):
            expected = by_hand(unet, seed, label, Settings(steps, sampler, eta), guidance)
            assert np.abs(image.astype(float) - expected).max() <= 1
    told = sample(wire, [3], steps=10, sampler="ddim", guidance=2, eta=0)
    assert np.array_equal(sample(wire, [3]), told)


def test_the_card_says_how_far_all_of_it_is_from_pytorch(repository: Path) -> None:
    card = find(repository, "g").card()
    assert [entry.name for entry in card.inputs] == [
        "seed", "label", "steps", "sampler", "eta", "guidance"
    ]  # fmt: skip
    for parity in (card.parity, card.parity_sampling, card.parity_fp16):
        assert parity is not None
        assert parity.max_abs <= parity.tolerance
    assert set(card.graphs) == {"unet", "unet.fp16", "pixels"}


def test_images_do_not_depend_on_callers_that_come_and_go_or_on_a_restart(
    wire: triton.InferenceServerClient, repository: Path
) -> None:
    chance = random.Random(0)
    asked = [(seed, seed % CLASSES, 2 + seed % 9, chance.expovariate(40)) for seed in range(32)]
    alone = [sample(wire, [seed], label=label, steps=steps)[0] for seed, label, steps, _ in asked]

    def come(order: tuple[int, int, int, float]) -> NDArray[Any]:
        seed, label, steps, pause = order
        time.sleep(pause)
        image: NDArray[Any] = sample(wire, [seed], label=label, steps=steps)[0]
        return image

    with ThreadPoolExecutor(16) as callers:
        crowd = list(callers.map(come, asked))
    seeds, labels, steps, _ = zip(*asked[:8], strict=True)
    together = sample(wire, list(seeds), label=labels, steps=steps)
    assert all(np.array_equal(a, b) for a, b in zip(alone, crowd, strict=True))
    assert np.array_equal(together, alone[:8])
    with EmbeddedServer(repository) as again:
        other = triton.InferenceServerClient(again.grpc_url)
        assert np.array_equal(sample(other, list(seeds), label=labels, steps=steps), alone[:8])
        other.close()


@pytest.mark.parametrize(
    ("controls", "told"),
    [
        ({"steps": 0}, "steps must be 1 … 1000, not 0"),
        ({"label": CLASSES}, "label must be 0 … 2, not 3"),
        ({"sampler": "heun"}, "'heun' is unknown: choose one of ddpm, ddim"),
        ({"guidance": float("nan")}, "guidance must be 0.0 … 50.0, not nan"),
        ({"sampler": "ddpm", "eta": 0.5}, "ddpm has no eta"),
    ],
)
def test_a_wrong_order_is_refused_alone(
    wire: triton.InferenceServerClient, controls: dict[str, Any], told: str
) -> None:
    with ThreadPoolExecutor(2) as callers:
        right = callers.submit(sample, wire, [1], steps=20)
        with pytest.raises(triton.InferenceServerException, match=told):
            sample(wire, [2], **controls)
        assert right.result().shape == (1, SIZE, SIZE, 1)


def test_a_stream_tells_how_far_it_is_and_shows_previews(
    wire: triton.InferenceServerClient,
) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    wire.start_stream(lambda result, error: answers.put((result, error)))
    asked = inputs([5, 6], steps=[4, 8], preview_every=2)
    wire.async_stream_infer("g.stream", asked)
    told, previews = [], []
    while True:
        result, error = answers.get(timeout=60)
        assert error is None
        image, *numbers = (result.as_numpy(name) for name in ("image", "index", "step", "calls"))
        index, step, calls = (array.ravel().tolist() for array in numbers)
        if image is None:
            told.append((index, calls))
        elif len(image) == 1:
            previews.append((index[0], step[0], calls[0]))
        else:
            break
    wire.stop_stream()
    assert told[0] == ([0, 1], [4, 8])
    assert set(previews) <= {(0, 2, 4), (1, 2, 8), (1, 4, 8), (1, 6, 8)}
    assert {index for index, _, _ in previews} == {0, 1}
    assert (index, step, calls) == ([0, 1], [4, 8], [4, 8])
    assert np.array_equal(image, sample(wire, [5, 6], steps=[4, 8]))


def test_a_cancelled_request_frees_its_rows(
    server: EmbeddedServer, wire: triton.InferenceServerClient
) -> None:
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
    # The 8 samples would have held the engine for 8,000 calls.
    assert time.perf_counter() - began < 5


def test_a_request_costs_at_most_its_deadline(wire: triton.InferenceServerClient) -> None:
    began = time.perf_counter()
    with pytest.raises(triton.InferenceServerException, match=r"not ready after 0\.5 s: .* calls"):
        wire.infer("g", inputs(list(range(8)), steps=1000), timeout=500_000)
    assert time.perf_counter() - began < 5


def test_without_its_network_a_request_fails_and_the_next_one_does_not(
    server: EmbeddedServer, wire: triton.InferenceServerClient
) -> None:
    first = sample(wire, [1], steps=3)
    with ThreadPoolExecutor(1) as caller:
        before = rows(server)
        running = caller.submit(sample, wire, list(range(8)), steps=1000)
        wait_until(lambda: rows(server) > before)
        wire.unload_model("g.unet")
        with pytest.raises(triton.InferenceServerException, match=r"model failed: .*g\.unet"):
            running.result()
    wire.load_model("g.unet")
    assert np.array_equal(sample(wire, [1], steps=3), first)


def test_more_than_the_engine_holds_is_answered_busy(server: EmbeddedServer) -> None:
    clients = [triton.InferenceServerClient(server.grpc_url) for _ in range(12)]

    def ask(client: triton.InferenceServerClient) -> str:
        try:
            sample(client, list(range(8)), steps=40)
        except triton.InferenceServerException as error:
            return f"{error.status()} {error.message()}"
        return "made"

    with ThreadPoolExecutor(len(clients)) as callers:
        answers = list(callers.map(ask, clients))
    for client in clients:
        client.close()
    refused = [answer for answer in answers if answer != "made"]
    assert answers.count("made") >= 8
    assert refused
    assert all("UNAVAILABLE" in answer and "in the queue" in answer for answer in refused)


def test_the_engines_counters_are_among_the_metrics(
    server: EmbeddedServer, wire: triton.InferenceServerClient
) -> None:
    before = metric(server, "galatea_sampler_rows_total", "g")
    sample(wire, [1, 2, 3], steps=5)
    wait_until(lambda: metric(server, "galatea_sampler_rows_total", "g") >= before + 2 * 3 * 5)
    assert metric(server, "galatea_sampler_jobs", "g") == 0


def rows(server: EmbeddedServer) -> float:
    """Rows that the network has computed."""
    return metric(server, "nv_inference_count", "g.unet")
