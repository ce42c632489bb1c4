"""Training data is new in each epoch, the same in each run, and shared among workers."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from galatea import Client, InvalidInput
from galatea.torch import SyntheticDataset
from galatea.training import Synthesis
from galatea_server.server import EmbeddedServer

N = 40


def seeds(items: Any) -> list[int]:
    return sorted(int(seed) for item in items for seed in np.atleast_1d(item["seed"]))


@pytest.fixture
def place(server: EmbeddedServer) -> dict[str, Any]:
    return {"url": server.grpc_url, "batch_size": 4}


def test_epochs_of_batches_are_parts_of_one_stream(place: dict[str, Any], client: Client) -> None:
    synthesis = Synthesis("masses", N, seed=100, labels="balanced", **place)
    batches = list(itertools.islice(iter(synthesis), 2 * N // 4))
    expected = client.sample("masses", 2 * N, seed=100)
    assert np.array_equal(np.concatenate([batch["image"] for batch in batches]), expected.images)
    assert expected.labels is not None
    assert np.array_equal(np.concatenate([batch["label"] for batch in batches]), expected.labels)
    again = list(synthesis.batches(epoch=1))
    assert np.array_equal(again[0]["image"], expected.images[N : N + 4])


def test_workers_share_an_epoch_without_doubling_an_image(place: dict[str, Any]) -> None:
    synthesis = Synthesis("masses", N, **place)
    parts = [seeds(synthesis.batches(0, (k, 3))) for k in range(3)]
    assert sorted(itertools.chain(*parts)) == list(range(N))


def test_items_are_tensors_as_networks_take_them(place: dict[str, Any], client: Client) -> None:
    items = list(SyntheticDataset("masses", N, **place))
    assert len(items) == N
    expected = client.sample("masses", N, seed=0)
    assert items[0]["image"].shape == (1, 64, 64)
    assert items[0]["image"].dtype == torch.uint8
    assert torch.equal(items[5]["image"][0], torch.from_numpy(expected.images[5, :, :, 0]))
    assert expected.masks is not None
    assert torch.equal(items[5]["mask"][0], torch.from_numpy(expected.masks[5, :, :, 0]))
    assert [int(item["label"]) for item in items[:4]] == [0, 1, 0, 1]


@pytest.mark.parametrize("persistent", [False, True])
def test_every_epoch_of_a_data_loader_is_new_and_whole(
    place: dict[str, Any], persistent: bool
) -> None:
    def epochs() -> list[list[int]]:
        dataset = SyntheticDataset("masses", N, batched=True, **place)
        loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=persistent,
                            multiprocessing_context="spawn")  # fmt: skip
        return [seeds(loader) for _ in range(2)]

    first = epochs()
    assert first == [list(range(N)), list(range(N, 2 * N))]


def test_workers_that_are_forked_work_too(place: dict[str, Any]) -> None:
    dataset = SyntheticDataset("masses", N, **place)
    assert seeds(DataLoader(dataset, batch_size=8, num_workers=2)) == list(range(N))


def test_ranks_share_an_epoch(place: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        made.append(seeds(SyntheticDataset("masses", N, **place)))
    assert len(made[0]) == len(made[1]) == N // 2
    assert sorted(itertools.chain(*made)) == list(range(N))


def test_a_training_goes_on_at_its_epoch(place: dict[str, Any]) -> None:
    dataset = SyntheticDataset("masses", N, **place)
    dataset.set_epoch(3)
    assert seeds(dataset) == list(range(3 * N, 4 * N))
    assert seeds(dataset) == list(range(4 * N, 5 * N))


def test_what_is_no_size_is_refused_at_once() -> None:
    with pytest.raises(InvalidInput, match="n is 0"):
        SyntheticDataset("masses", 0)
    with pytest.raises(InvalidInput, match="batch_size is -1"):
        Synthesis("masses", batch_size=-1)
    with pytest.raises(InvalidInput, match="no epoch 2"):
        next(Synthesis("masses").batches(2))


def test_batches_need_no_torch() -> None:
    code = "import sys, galatea.training; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
