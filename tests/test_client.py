"""Sampling through the client: reproducible, checked, ordered, in bounded memory."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from galatea import (
    Client,
    DeadlineExceeded,
    InvalidInput,
    MachineError,
    ModelUnavailable,
    Samples,
    ServerUnreachable,
)
from galatea_server.server import EmbeddedServer
from support import served_names


def test_models_are_the_generators_and_not_their_stages(client: Client) -> None:
    assert [card.name for card in client.models()] == served_names()
    assert client.model("masses").title == "Masses"


def test_samples_carry_what_makes_them(client: Client) -> None:
    samples = client.sample("masses", 10, seed=100)
    assert samples.images.shape == (10, 64, 64, 1)
    assert samples.images.dtype == np.uint8
    assert samples.images.flags.writeable
    assert samples.masks is not None
    assert samples.masks.shape == (10, 64, 64, 1)
    assert set(np.unique(samples.masks)) == {0, 255}
    assert samples.seeds.tolist() == list(range(100, 110))
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1] * 5
    assert samples.card == client.model("masses")


def test_the_same_seed_gives_the_same_bytes_whatever_the_batch(client: Client) -> None:
    whole = client.sample("phantom", 96, seed=7, label=1)
    assert whole.masks is not None
    for size in (1, 3, 32):
        parts = list(client.stream("phantom", 96, seed=7, label=1, batch_size=size))
        assert {len(part) for part in parts} == {size}
        assert b"".join(part.images.tobytes() for part in parts) == whole.images.tobytes()
        assert b"".join(as_bytes(part.masks) for part in parts) == whole.masks.tobytes()


def test_the_same_seed_gives_the_same_bytes_among_16_callers(
    server: EmbeddedServer, client: Client
) -> None:
    alone = [client.sample("phantom", 5, seed=seed, label=seed % 2) for seed in range(16)]

    def call(seed: int) -> set[bytes]:
        with Client(server.grpc_url) as own:
            answers = [own.sample("phantom", 5, seed=seed, label=seed % 2) for _ in range(4)]
        return {answer.images.tobytes() + as_bytes(answer.masks) for answer in answers}

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(call, range(16)))
    for expected, got in zip(alone, together, strict=True):
        assert got == {expected.images.tobytes() + as_bytes(expected.masks)}


def test_the_same_seed_gives_the_same_bytes_after_a_restart(
    client: Client, repository: Path
) -> None:
    before = client.sample("phantom", 40, seed=3)
    with EmbeddedServer(repository) as again, Client(again.grpc_url) as other:
        after = other.sample("phantom", 40, seed=3)
    assert after.images.tobytes() == before.images.tobytes()
    assert as_bytes(after.masks) == as_bytes(before.masks)


def as_bytes(array: NDArray[np.uint8] | None) -> bytes:
    assert array is not None
    return array.tobytes()


def test_one_client_serves_many_threads(client: Client) -> None:
    expected = client.sample("masses", 8, seed=1).images.tobytes()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: client.sample("masses", 8, seed=1), range(32)))
    assert {samples.images.tobytes() for samples in results} == {expected}


def test_without_a_seed_images_are_new_and_can_be_had_again(client: Client) -> None:
    first, second = client.sample("masses", 4), client.sample("masses", 4)
    assert first.images.tobytes() != second.images.tobytes()
    again = client.sample("masses", 4, seed=int(first.seeds[0]))
    assert again.images.tobytes() == first.images.tobytes()


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**32, 2**63 - 2])
def test_every_64_bit_seed_is_a_seed(client: Client, seed: int) -> None:
    assert client.sample("masses", 2, seed=seed).seeds.tolist() == [seed, seed + 1]


@pytest.mark.parametrize(
    ("label", "labels"),
    [
        (1, [1, 1, 1, 1]),
        ("benign", [0, 0, 0, 0]),
        ("1", [1, 1, 1, 1]),
        ("balanced", [0, 1, 0, 1]),
        (None, [0, 1, 0, 1]),
        (["malignant", 0, 1, "benign"], [1, 0, 1, 0]),
        ({"malignant": 1}, [1, 1, 1, 1]),
        ({0: 1, "malignant": 1}, [0, 1, 0, 1]),
        (np.array([1, 1, 0, 0]), [1, 1, 0, 0]),
    ],
)
def test_a_class_is_given_by_number_name_or_list(
    client: Client, label: object, labels: list[int]
) -> None:
    samples = client.sample("masses", 4, seed=0, label=label)
    assert samples.labels is not None
    assert samples.labels.tolist() == labels


@pytest.mark.parametrize("n", [8, 100, 997])
def test_weights_deal_classes_out_evenly_at_every_length(client: Client, n: int) -> None:
    batches = client.stream("masses", n, seed=0, labels={"malignant": 3, "benign": 1})
    labels = np.concatenate([batch.labels for batch in batches if batch.labels is not None])
    counts = np.cumsum(labels)
    assert np.abs(counts - 0.75 * np.arange(1, n + 1)).max() < 4


def test_any_part_of_a_job_is_made_alone(client: Client) -> None:
    plan: dict[str, Any] = {"seed": 7, "labels": {"benign": 2, "malignant": 1}, "batch_size": 4}
    whole = list(client.stream("masses", 40, **plan))
    part = list(client.stream("masses", 12, start=20, **plan))
    assert [batch.images.tobytes() for batch in part] == [
        batch.images.tobytes() for batch in whole[5:8]
    ]
    shards = [list(client.stream("masses", 40, shard=(k, 3), **plan)) for k in range(3)]
    for k, batch in enumerate(whole):
        assert shards[k % 3][k // 3].seeds.tolist() == batch.seeds.tolist()
        assert shards[k % 3][k // 3].images.tobytes() == batch.images.tobytes()


@pytest.mark.parametrize("arguments", [{"start": -1}, {"start": 0.5}, {"shard": (2, 2)}])
def test_a_part_that_is_none_is_refused(client: Client, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"start is|shard 2 of 2"):
        client.stream("masses", 8, **arguments)


def test_more_images_than_memory_holds_are_refused(client: Client) -> None:
    with pytest.raises(MachineError, match=r"1000000000000 images of masses need .* GB of memory"):
        client.sample("masses", 10**12, seed=0)


def test_images_follow_their_label(client: Client) -> None:
    benign, malignant = (client.sample("masses", 4, seed=0, label=k) for k in (0, 1))
    assert benign.images.tobytes() != malignant.images.tobytes()
    mixed = client.sample("masses", 4, seed=0, label=[0, 1, 1, 0])
    assert mixed.images[0].tobytes() == benign.images[0].tobytes()
    assert mixed.images[1].tobytes() == malignant.images[1].tobytes()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"n": 0}, "n is 0"),
        ({"n": -3}, "n is -3"),
        ({"n": 2.5}, "n is 2.5"),
        ({"n": True}, "n is True"),
        ({"seed": "seven"}, "seed 'seven' is no whole number"),
        ({"seed": 1.0}, "seed 1.0 is no whole number"),
        ({"seed": 2**63}, "leaves the 64-bit integers"),
        ({"seed": 2**63 - 1, "n": 2}, "leaves the 64-bit integers"),
        ({"label": 2}, r"no label 2; choose one of: benign \(0\), malignant \(1\)"),
        ({"label": -1}, "no label -1"),
        ({"label": "bening"}, "no label 'bening'"),
        ({"label": 0.5}, "no label 0.5"),
        ({"label": [0, 1], "n": 3}, "2 values of 'label' for 3 samples"),
        ({"labels": {"benign": -1}}, "the class 'benign' has the weight -1"),
        ({"labels": {"benign": float("nan")}}, "the class 'benign' has the weight nan"),
        ({"labels": {"bening": 1}}, "no label 'bening'"),
        ({"labels": {}}, "no class has a weight"),
        ({"labels": 0, "label": 1}, "both label and labels are given"),
        ({"deadline": 0}, "a deadline of 0 s has passed"),
        ({"truncation": 0.7}, "no condition 'truncation'; it has: label"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_is_right(
    client: Client, arguments: dict[str, object], problem: str
) -> None:
    given = {"n": 1, "seed": 0, **arguments}
    with pytest.raises(InvalidInput, match=problem):
        client.sample("masses", **given)  # type: ignore[arg-type] # wrong on purpose


def test_a_batch_that_the_server_does_not_take_is_refused(client: Client) -> None:
    with pytest.raises(InvalidInput, match="a batch of 9 is larger than masses takes"):
        client.stream("masses", 20, batch_size=9)


def test_a_wrong_model_is_answered_with_the_nearest_name(client: Client) -> None:
    with pytest.raises(ModelUnavailable, match=r"no model 'mases'; did you mean 'masses'\?"):
        client.sample("mases")
    with pytest.raises(ModelUnavailable, match=f"served are: {', '.join(served_names())}"):
        client.sample("xyz")
    with pytest.raises(ModelUnavailable, match="no generator of galatea"):
        client.sample("masses.noise")


@pytest.mark.parametrize("url", ["http://localhost:8000", "localhost", ""])
def test_an_address_of_no_grpc_port_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="no address of a gRPC port"):
        Client(url)


class Unloaded(EmbeddedServer):
    """A server that has loaded nothing of its repository."""

    def _flags(self, backends: Path) -> list[str]:
        return [*super()._flags(backends), "--model-control-mode=explicit"]


def test_a_model_that_is_not_ready_is_told(repository: Path) -> None:
    with Unloaded(repository) as idle, Client(idle.grpc_url) as client:
        assert client.models() == []
        with pytest.raises(ModelUnavailable, match="'masses' is not ready"):
            client.sample("masses")


def test_a_stream_is_endless_in_order_and_can_be_left(client: Client) -> None:
    stream = client.stream("masses", seed=50, label="balanced", batch_size=3)
    batches = list(itertools.islice(stream, 7))
    stream.close()  # type: ignore[attr-defined] # a generator behind the iterator
    assert np.concatenate([batch.seeds for batch in batches]).tolist() == list(range(50, 71))
    assert client.sample("masses", 1, seed=0).images.shape == (1, 64, 64, 1)


def test_a_mistake_in_a_stream_is_told_at_the_call(client: Client) -> None:
    with pytest.raises(InvalidInput):
        client.stream("masses", 0)


def test_a_passed_deadline_is_told(server: EmbeddedServer) -> None:
    with (
        Client(server.grpc_url, timeout=1e-4) as hurried,
        pytest.raises(DeadlineExceeded, match=r"no answer within 0\.0001 s"),
    ):
        hurried.sample("masses")


def test_a_deadline_in_the_middle_of_sampling_is_told(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with Client(server.grpc_url, timeout=0.5) as client, pytest.raises(DeadlineExceeded):
            client.sample("masses", 64)
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_a_server_killed_in_the_middle_is_told(repository: Path) -> None:
    with EmbeddedServer(repository) as victim, Client(victim.grpc_url, patience=1) as client:
        stream = client.stream("masses", seed=0)
        next(stream)
        os.kill(victim.pid, signal.SIGKILL)
        with pytest.raises(ServerUnreachable, match=victim.grpc_url):
            for _ in stream:
                pass


def test_a_newer_version_is_found_after_the_older_one_has_gone(
    repository: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    import shutil

    from galatea_exporter.export import export

    copy = shutil.copytree(repository, tmp_path / "models")
    first = EmbeddedServer(copy)
    with first, Client(first.grpc_url) as client:
        assert client.sample("masses").card.version == 1
        port = first.ports["grpc"]
        first.stop()
        export("dcgan_mammo", checkpoints["dcgan_mammo"], name="masses", repository=copy)
        with EmbeddedServer(copy, grpc_port=port):
            with pytest.raises(ModelUnavailable):
                client.sample("masses")
            assert client.sample("masses").card.version == 2


@pytest.fixture(scope="module")
def samples(server: EmbeddedServer) -> Iterator[Samples]:
    with Client(server.grpc_url) as client:
        yield client.sample("masses", 6, seed=40)


def test_saved_images_tell_where_they_come_from(samples: Samples, tmp_path: Path) -> None:
    paths = samples.save(tmp_path / "out")
    assert [path.name for path in paths[:2]] == [
        "masses-v1-000000000040-benign.png",
        "masses-v1-000000000041-malignant.png",
    ]
    assert len(list((tmp_path / "out").iterdir())) == 12
    with Image.open(paths[1]) as image:
        assert isinstance(image, Image.Image)
        image.load()
        assert np.array_equal(np.asarray(image), samples.images[1, :, :, 0])
        facts = image.info
    assert facts["galatea:model"] == "masses"
    assert facts["galatea:version"] == "1"
    assert facts["galatea:seed"] == "41"
    assert facts["galatea:label_name"] == "malignant"
    assert facts["galatea:weights"] == f"sha256:{samples.card.checkpoint_sha256}"
    assert facts["galatea:licence"] == "CC0-1.0"
    assert facts["galatea:synthetic"] == "true"
    assert samples.masks is not None
    with Image.open(paths[1].with_name(f"{paths[1].stem}-mask.png")) as mask:
        assert np.array_equal(np.asarray(mask), samples.masks[1, :, :, 0])


def test_a_folder_that_cannot_be_written_is_named(samples: Samples, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"file/.*cannot be written.*0 of 6 images"):
        samples.save(tmp_path / "file" / "out")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_leaves_only_whole_files(samples: Samples, tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=20k", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with pytest.raises(MachineError, match="No space left on device"):
            samples.save(tmp_path / "out")
        written = list((tmp_path / "out").iterdir())
        assert all(path.suffix == ".png" for path in written)
        for path in written:
            with Image.open(path) as image:
                image.load()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_grid_shows_every_image_and_outlines_its_mask(samples: Samples) -> None:
    plain = samples.grid(3)
    assert plain.size == (3 * 64 + 4, 2 * 64 + 2)
    pixels = np.asarray(plain)
    assert np.array_equal(pixels[66:130, 66:130, 0], samples.images[4, :, :, 0])
    outlined = np.asarray(samples.grid(3, outline=True))
    assert (outlined != pixels).any()


def test_progress_counts_every_image_once(client: Client) -> None:
    seen: list[int] = []
    client.sample("masses", 20, seed=0, progress=seen.append)
    assert sum(seen) == 20


def test_a_batch_stays_as_it_is_while_anybody_looks_at_it(client: Client) -> None:
    expected = client.sample("phantom", 640, seed=0).images
    addresses = set()
    views = []
    for k, batch in enumerate(client.stream("phantom", 640, seed=0, batch_size=32)):
        addresses.add(batch.images.ctypes.data)
        if k % 2:
            views.append((32 * k + 3, batch.images[3, ::2]))  # of a whole batch this alone is kept
        del batch
    assert len(addresses) < 20  # memory of the others was used again
    for i, view in views:
        assert np.array_equal(view, expected[i, ::2])


def test_a_stream_keeps_few_requests_on_their_way(client: Client) -> None:
    before = threading.active_count()
    for batch in itertools.islice(client.stream("masses", seed=0), 50):
        assert len(batch) == 8
    assert threading.active_count() <= before + 4
