"""Diffusion generators through the client: prompts, steps, previews, time, and giving up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models
from torch import Tensor, nn

from galatea import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidInput,
    ModelUnavailable,
    Samples,
    ServerError,
)
from galatea.card import ValueRange
from galatea_exporter.assembly import Text, by_diffusion
from galatea_exporter.checkpoint import State, load_strictly
from galatea_exporter.export import export
from galatea_exporter.family import Family, Options, random_weights
from galatea_exporter.layers.guided_diffusion import UNet
from galatea_exporter.layers.guided_layout import GuidedOptions, Layout, Level
from galatea_exporter.pixels import Pixels
from galatea_exporter.sampler.schedules import Schedule
from galatea_exporter.stages import StagedGenerator
from galatea_server.server import EmbeddedServer
from support import metric, wait_until

LAYOUT = Layout(1, 1, 32, (Level(32, False), Level(64, True)), blocks=1, classes=3)
SETTINGS = {
    "image_size": "16", "sampler": "ddim", "steps": "10", "sigma_small": "true",
    "unconditional_label": "2", "guidance": "2",
}  # fmt: skip


BOUND = 16  # samples that the engine holds
WORDS = {"[UNK]": 0, "left": 1, "right": 2, "Zyste": 3}


class Guided(nn.Module):
    """x, t and the context of a prompt → a prediction that the prompt has a part in."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return self.weight * x + context.mean((1, 2))[:, None, None, None] + 0 * t[:, :, None, None]


class Reports(Family):
    """Images of prompts; it is no part of the registry."""

    name = "reports"
    title = source = "a formula"

    def recognises(self, state: State) -> bool:
        return list(state) == ["weight"]

    def build(self, state: State, options: Options, path: Path) -> StagedGenerator:
        network = Guided()
        load_strictly(network, state, path, self.name)
        tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
        tokenizer.enable_padding(length=2)
        tokenizer.enable_truncation(2)
        torch.manual_seed(0)
        return by_diffusion(
            network,
            schedule=Schedule(train_steps=1000, sampler="ddim"), shape=(1, 16, 16), decoder=None,
            size=(16, 16), channels=("intensity",), pixels=Pixels(ValueRange(-1, 1, "nearest")),
            steps=4, guidance=2.0,
            text=Text(nn.Embedding(len(WORDS), 4), 2, 4, len(WORDS), tokenizer.to_str()),
        )  # fmt: skip

    def example(self, published: bool = False) -> dict[str, Tensor]:
        return {"weight": torch.tensor(0.3)}


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with ``g``, which has two classes and a short queue, and ``reports``."""
    folder = tmp_path_factory.mktemp("diffusion")
    torch.save(random_weights(UNet(LAYOUT, GuidedOptions())), folder / "model.pt")
    root = folder / "models"
    export(
        "guided_diffusion", folder / "model.pt",
        name="g", repository=root, settings=SETTINGS, max_batch=8,
    )  # fmt: skip
    for model in ("g", "g.stream"):
        config = root / model / "config.pbtxt"
        held = config.read_text().replace(r"\"max_samples\": 256", rf"\"max_samples\": {BOUND}")
        config.write_text(held)
    torch.save(Reports().example(), folder / "weight.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("galatea_exporter.export.find_family", lambda name: Reports())
        export("reports", folder / "weight.pt", name="reports", repository=root)
    return root


@pytest.fixture(scope="module")
def diffusion(generators: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(generators) as running:
        yield running


@pytest.fixture
def client(diffusion: EmbeddedServer) -> Iterator[Client]:
    with Client(diffusion.grpc_url) as connected:
        yield connected


def rows(server: EmbeddedServer) -> float:
    """Rows that the network has computed."""
    return metric(server, "nv_inference_count", "g.unet")


def rows_until_idle(server: EmbeddedServer) -> float:
    """The rows when there come no more."""
    counts = [rows(server)]

    def is_idle() -> bool:
        time.sleep(0.5)
        counts.append(rows(server))
        return counts[-1] == counts[-2]

    wait_until(is_idle)
    return counts[-1]


def test_images_are_those_of_their_seeds_and_conditions(client: Client) -> None:
    samples = client.sample("g", 11, seed=3, steps=4, sampler="euler", guidance=3)
    assert samples.images.shape == (11, 16, 16, 1)
    told = samples.provenance(10)
    assert (told["galatea:steps"], told["galatea:sampler"]) == ("4", "euler")
    alone = client.sample("g", seed=13, label=0, steps=4, sampler="euler", guidance=3)
    assert np.array_equal(alone.images[0], samples.images[10])
    each = client.sample("g", seed=3, steps=[2, 4], sampler=["ddim", "euler"], guidance=3)
    assert np.array_equal(each.images[1], samples.images[1])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"sampler": "eulr"}, "no sampler 'eulr', but 'euler'"),
        ({"sampler": 3}, "is 3 and no text"),
        ({"steps": 0}, "no steps 0"),
        ({"prompt": "a cyst"}, "no condition 'prompt'"),
        ({"n": 2, "steps": [1, 2, 3]}, "3 values of 'steps' for 2 samples"),
    ],
)
def test_what_the_card_does_not_allow_is_not_sent(
    client: Client, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidInput, match=told):
        client.sample("g", **wrong)


def test_a_prompt_is_for_all_images_or_for_each(client: Client) -> None:
    left, right = (client.sample("reports", 2, seed=1, prompt=side) for side in ("left", "right"))
    each = client.sample("reports", seed=1, prompt=["left", "right"])
    assert each.conditions["prompt"].tolist() == ["left", "right"]
    assert np.array_equal(each.images, [left.images[0], right.images[1]])
    assert not np.array_equal(left.images, right.images)
    unlike = client.sample("reports", seed=1, prompt="left", negative_prompt="Zyste")
    assert not np.array_equal(unlike.images[0], left.images[0])
    assert [len(batch) for batch in client.stream("reports", prompt=["left"] * 10)] == [8, 2]


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (None, "needs the condition 'prompt'; .*--prompt TEXT"),
        (b"left", "no text"),
        ([], "0 values of 'prompt'"),
        ("x" * 10_001, "10001 characters"),
        ("a\0b", "a character of value 0"),
        ("\ud800", "no character of Unicode"),
    ],
)
def test_what_is_no_prompt_is_not_sent(client: Client, prompt: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        client.sample("reports", prompt=prompt)


def test_a_png_tells_its_prompt(client: Client, tmp_path: Path) -> None:
    prompt = "Zyste, 3 mm – 左\nleft"
    (path,) = client.sample("reports", prompt=prompt).save(tmp_path)
    with Image.open(path) as picture:
        assert picture.info["galatea:prompt"] == prompt


def test_previews_come_before_the_images(client: Client) -> None:
    told: list[tuple[int, int]] = []
    items = list(client.stream(
        "g", 10, seed=5, batch_size=4, steps=[6] * 9 + [3], previews=2,
        on_step=lambda calls, of: told.append((calls, of)),
    ))  # fmt: skip
    finished = [item for item in items if item.progress is None]
    assert [item.seeds.tolist() for item in finished] == [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14]]
    assert np.array_equal(
        np.concatenate([item.images for item in finished]),
        client.sample("g", 10, seed=5, steps=[6] * 9 + [3]).images,
    )
    previews = [item for item in items if item.progress is not None]
    states = {(p.index, p.step, p.calls) for item in previews if (p := item.progress)}
    assert states <= {(i, step, 6) for i in range(9) for step in (2, 4)} | {(9, 2, 3)}
    assert {index for index, _, _ in states} == set(range(10))
    for item in previews:
        assert item.progress is not None
        assert item.seeds.tolist() == [5 + item.progress.index]
        assert item.images.shape == (1, 16, 16, 1)
    assert told == sorted(told, key=lambda entry: entry[0])
    assert told[-1] == (57, 57)


def test_a_coroutine_gets_the_same(client: Client, diffusion: EmbeddedServer) -> None:
    async def run() -> tuple[list[Samples], list[tuple[int, int]]]:
        told: list[tuple[int, int]] = []
        async with AsyncClient(diffusion.grpc_url) as connected:
            stream = connected.stream(
                "g", 2, seed=1, steps=4, previews=True,
                on_step=lambda calls, of: told.append((calls, of)),
            )  # fmt: skip
            return [item async for item in stream], told

    items, told = asyncio.run(run())
    assert np.array_equal(items[-1].images, client.sample("g", 2, seed=1, steps=4).images)
    assert {item.progress.step for item in items if item.progress} == {1, 2, 3}
    assert told[-1] == (8, 8)


@pytest.mark.parametrize("previews", [False, True])
def test_an_iterator_that_is_closed_frees_the_server(
    diffusion: EmbeddedServer, previews: bool
) -> None:
    with Client(diffusion.grpc_url) as client:
        stream = client.stream("g", 24, steps=[1, *[1000] * 23], batch_size=1, previews=previews)
        assert len(next(item for item in stream if item.progress is None)) == 1
        before = rows(diffusion)
        stream.close()  # type: ignore[attr-defined]  # a generator
        # Those that were on their way would have taken 3,000 calls and more, of two rows each.
        assert rows_until_idle(diffusion) - before < 3_000


def test_a_deadline_frees_the_server_too(diffusion: EmbeddedServer) -> None:
    before = rows_until_idle(diffusion)
    with Client(diffusion.grpc_url) as client:
        for on_step in (None, lambda calls, of: None):
            with pytest.raises(DeadlineExceeded):
                client.sample("g", 8, steps=1000, deadline=0.3, on_step=on_step)
        assert rows_until_idle(diffusion) - before < 16_000  # half of them


def test_a_request_takes_no_longer_than_its_timeout(diffusion: EmbeddedServer) -> None:
    with (
        Client(diffusion.grpc_url, timeout=0.5) as client,
        pytest.raises(DeadlineExceeded, match=r"within 0\.5 s"),
    ):
        client.sample("g", 8, steps=1000)


@pytest.mark.parametrize("previews", [False, True])
def test_a_server_that_is_full_is_asked_again(
    client: Client, diffusion: EmbeddedServer, previews: bool
) -> None:
    items = client.stream("g", 3 * BOUND, seed=0, steps=3, previews=previews)
    assert sum(len(item) for item in items if item.progress is None) == 3 * BOUND
    with (
        Client(diffusion.grpc_url, patience=0) as impatient,
        pytest.raises(ServerError, match="busy: "),
    ):
        list(impatient.stream("g", 3 * BOUND, steps=20, previews=previews))


def test_an_export_without_a_stream_says_so(generators: Path) -> None:
    loaded = [f"--load-model={model}" for model in ("g", "g.unet", "g.pixels")]
    further = ["--model-control-mode=explicit", *loaded]
    with EmbeddedServer(generators, further=further) as older, Client(older.grpc_url) as client:
        assert len(client.sample("g", steps=1)) == 1
        with pytest.raises(ModelUnavailable, match=r"g is served without g\.stream"):
            client.stream("g", previews=True)


def test_the_command_line_takes_steps_and_texts_and_shows_previews(
    diffusion: EmbeddedServer, tmp_path: Path
) -> None:
    def galatea(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-m", "galatea", *map(str, arguments)]
        command += ["--url", diffusion.grpc_url]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = galatea(
        "sample", "g", "-n", 2, "--seed", 1, "--label", 0, "--steps", 6, "--set", "sampler=plms",
        "-o", tmp_path / "out", "--previews", tmp_path / "way",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--label 0 --steps 6 --set sampler=plms" in done.stdout
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "way").iterdir())
    with Image.open(tmp_path / "way" / names[0]) as preview:
        assert preview.info["galatea:preview"].startswith("step ")
    refused = galatea("sample", "g", "--prompt", "a cyst", "-o", tmp_path / "out")
    assert (refused.returncode, "no condition 'prompt'" in refused.stderr) == (5, True)
    walk = galatea("interpolate", "g", "--seeds", "1,2", "-o", tmp_path / "walk.gif")
    assert (walk.returncode, "makes its images in steps" in walk.stderr) == (5, True)
