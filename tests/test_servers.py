"""Several servers behind one client: one dies, hangs, or serves something else."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from galatea import Client, DeadlineExceeded, ModelUnavailable, Samples, ServerUnreachable
from galatea_exporter.export import export
from galatea_exporter.family import find_family
from galatea_server.server import EmbeddedServer

NAME = "tiny"


def release(folder: Path, seed: int = 0) -> Path:
    """A repository with one small generator, whose weights depend on `seed`."""
    family = find_family("dcgan_mammo")
    state = {key: value * (1 + seed / 8) if value.ndim == 4 else value
             for key, value in family.example().items()}  # fmt: skip
    checkpoint = family.save(state, folder / "checkpoint")
    export("dcgan_mammo", checkpoint, name=NAME, repository=folder / "models", max_batch=32)
    return folder / "models"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def other_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same name and version with other weights."""
    return release(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="module")
def three(models: Path) -> Iterator[list[EmbeddedServer]]:
    with EmbeddedServer(models) as a, EmbeddedServer(models) as b, EmbeddedServer(models) as c:
        yield [a, b, c]


@pytest.fixture
def urls(three: list[EmbeddedServer]) -> list[str]:
    return [server.grpc_url for server in three]


def digest(batches: Iterator[Samples]) -> tuple[list[int], str]:
    """All seeds, and the sha256 of all pixels."""
    seeds, pixels = [], hashlib.sha256()
    for batch in batches:
        seeds += batch.seeds.tolist()
        pixels.update(batch.images.tobytes())
    return seeds, pixels.hexdigest()


class Trouble:
    """Does something to servers again and again, as long as the block lasts."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act, self._stop = act, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.times = 0

    def _run(self) -> None:
        while not self._stop.is_set():
            self._act()
            self.times += 1

    def __enter__(self) -> Trouble:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_every_sample_comes_once_while_servers_are_killed_and_restarted(
    three: list[EmbeddedServer], urls: list[str]
) -> None:
    n = 20_000
    with Client(urls[0]) as client:
        undisturbed = digest(client.stream(NAME, n, seed=1, batch_size=32))
    turn = itertools.count()

    def kill_and_restart() -> None:
        k = next(turn) % 3
        os.kill(three[k].pid, signal.SIGKILL)
        three[k].wait()
        _, _, port = urls[k].rpartition(":")
        three[k].stop()
        three[k] = EmbeddedServer(three[k].repository, grpc_port=int(port))
        three[k].start()

    with Client(urls) as client, Trouble(kill_and_restart) as trouble:
        disturbed = digest(client.stream(NAME, n, seed=1, batch_size=32))
    assert trouble.times > 1
    assert disturbed[0] == list(range(1, n + 1))
    assert disturbed == undisturbed


def test_requests_are_divided_among_the_servers(
    three: list[EmbeddedServer], urls: list[str]
) -> None:
    def made(server: EmbeddedServer) -> int:
        text = server._ask("metrics", "GET", "/metrics")[1].decode()
        wanted = f'nv_inference_count{{model="{NAME}.synthesis",version="1"}} '
        return int(float(text.partition(wanted)[2].split()[0] or 0))

    before = [made(server) for server in three]
    with Client(urls) as client:
        client.sample(NAME, 3000)
    shares = [made(server) - count for server, count in zip(three, before, strict=True)]
    assert sum(shares) >= 3000
    assert min(shares) > 300


def test_a_server_that_is_away_is_no_matter(urls: list[str]) -> None:
    with Client(["localhost:1", *urls]) as client:
        assert [card.name for card in client.models()] == [NAME]
        assert len(client.sample(NAME, 500)) == 500
        with pytest.raises(ModelUnavailable, match="no model 'tinny'; did you mean 'tiny'"):
            client.sample("tinny")


def test_servers_with_other_weights_of_the_same_version_are_left_out(
    urls: list[str], other_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(urls[0]) as client:
        expected = client.sample(NAME, 1000, seed=4).images
    with EmbeddedServer(other_models) as other:
        with Client(other.grpc_url) as client:
            assert not np.array_equal(client.sample(NAME, 1000, seed=4).images, expected)
        with Client([urls[0], other.grpc_url]) as client:
            assert np.array_equal(client.sample(NAME, 1000, seed=4).images, expected)
    assert "serves another version or other weights" in caplog.text


def test_a_stream_is_of_one_version_or_ends(models: Path, other_models: Path) -> None:
    first = EmbeddedServer(models)
    with first, Client(first.grpc_url) as client:
        stream = client.stream(NAME, seed=0)
        next(stream)
        first.stop()
        with EmbeddedServer(other_models, grpc_port=first.ports["grpc"]):
            with pytest.raises(ModelUnavailable, match="version 1 of tiny is not served any more"):
                for _ in stream:
                    pass
            assert len(client.sample(NAME, 1)) == 1


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_stream_outlives_a_restart_of_its_only_server(
    phantom_repository: Path, ending: signal.Signals
) -> None:
    first = EmbeddedServer(phantom_repository)
    with first, Client(first.grpc_url) as client:
        expected = digest(client.stream("phantom", 1000, seed=0))
        stream = client.stream("phantom", 1000, seed=0)
        begun = next(stream)
        first.signal(ending)  # an orderly one goes on answering, that its model is not ready
        with ThreadPoolExecutor(1) as other:
            rest = other.submit(digest, itertools.chain([begun], stream))
            first.wait()
            with EmbeddedServer(phantom_repository, grpc_port=first.ports["grpc"]):
                assert rest.result() == expected


def test_patience_ends(models: Path) -> None:
    victim = EmbeddedServer(models)
    with victim, Client(victim.grpc_url, patience=1.5) as client:
        stream = client.stream(NAME, seed=0)
        next(stream)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        begin = time.monotonic()
        with pytest.raises(ServerUnreachable, match=victim.grpc_url):
            for _ in stream:
                pass
        assert 1 < time.monotonic() - begin < 15


def test_requests_to_a_server_that_hangs_are_made_by_another(
    three: list[EmbeddedServer], urls: list[str]
) -> None:
    with Client(urls, timeout=2.0) as client:
        expected = digest(client.stream(NAME, 2000, seed=0))
        stream = client.stream(NAME, 2000, seed=0)
        begun = next(stream)
        os.kill(three[0].pid, signal.SIGSTOP)
        try:
            assert digest(itertools.chain([begun], stream)) == expected
        finally:
            os.kill(three[0].pid, signal.SIGCONT)


def test_a_hedge_does_not_wait_for_a_straggler(
    three: list[EmbeddedServer], urls: list[str]
) -> None:
    with Client(urls, timeout=60.0, hedge=20) as client:
        stream = client.stream(NAME, 4000, seed=0, batch_size=8)
        begun = [next(stream) for _ in range(20)]
        os.kill(three[1].pid, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            rest = sum(len(batch) for batch in stream)
            assert rest + sum(map(len, begun)) == 4000
            assert time.monotonic() - begin < 50  # and not the 60 s of a request
        finally:
            os.kill(three[1].pid, signal.SIGCONT)


def test_a_deadline_is_for_the_whole(urls: list[str]) -> None:
    with Client(urls) as client:
        with pytest.raises(DeadlineExceeded, match=r"batches of tiny came within 0\.5 s"):
            client.sample(NAME, 5000, deadline=0.5)
        with pytest.raises(DeadlineExceeded):
            for _ in client.stream(NAME, deadline=0.5):
                pass


def test_a_deadline_is_kept_while_nobody_answers(three: list[EmbeddedServer]) -> None:
    with Client(three[0].grpc_url, timeout=60) as client:
        client.model(NAME)
        os.kill(three[0].pid, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                client.sample(NAME, 10, deadline=1.0)
            assert time.monotonic() - begin < 10
        finally:
            os.kill(three[0].pid, signal.SIGCONT)
