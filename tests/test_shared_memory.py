"""Images come through shared memory where client and server share a machine."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from galatea import Client
from galatea._wire import memory
from galatea._wire.memory import FOLDER, PREFIX, SystemRegion
from galatea_server.server import EmbeddedServer

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no /dev/shm on this system")


def regions(process: int = os.getpid()) -> set[str]:
    """Names of what the clients of a process have."""
    return {path.name for path in FOLDER.iterdir() if path.name.startswith(f"{PREFIX}{process}-")}


@pytest.fixture
def sharing(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.grpc_url, transport="shm") as client:
        yield client


def test_images_are_the_same_either_way(server: EmbeddedServer, sharing: Client) -> None:
    with Client(server.grpc_url, transport="grpc") as client:
        sent = client.sample("phantom", 100, seed=5)
        assert not regions()
    shared = sharing.sample("phantom", 100, seed=5)
    assert regions()
    assert shared.masks is not None
    assert sent.masks is not None
    assert np.array_equal(shared.images, sent.images)
    assert np.array_equal(shared.masks, sent.masks)
    assert shared.images.flags.writeable


def test_a_server_that_refuses_shared_memory_gets_messages(
    phantom_repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        EmbeddedServer(phantom_repository, restrict=True) as server,
        Client(server.grpc_url, transport="shm") as client,
    ):
        assert len(client.sample("phantom", 100, seed=5)) == 100
    assert caplog.text.count("images come in messages") == 1
    assert not regions()


def test_memory_is_used_again_and_given_back(server: EmbeddedServer) -> None:
    with Client(server.grpc_url, transport="shm") as client:
        kept = list(client.stream("phantom", 200, seed=0, batch_size=8))
        first = [batch.images.copy() for batch in kept]
        most = len(regions())
        list(client.stream("phantom", 200, seed=999, batch_size=8))
        assert len(regions()) <= most + 16
        # What was handed out is the caller's own, whatever is written into the memory later.
        assert all(np.array_equal(a, batch.images) for a, batch in zip(first, kept, strict=True))
    assert not regions()


def test_a_client_that_is_closed_in_the_middle_leaves_no_memory(server: EmbeddedServer) -> None:
    for _ in range(10):
        with Client(server.grpc_url, transport="shm") as client:
            stream = client.stream("phantom", seed=0)
            next(stream)
            kept = client.stream("phantom", seed=0)
            next(kept)
        # Both streams have requests on their way, and nobody has closed them.
        assert not regions()


def test_it_is_found_out_whether_memory_is_shared(server: EmbeddedServer) -> None:
    with Client(server.grpc_url) as client:
        client.sample("phantom", 1)
        assert not regions()  # small answers are not worth it
        client.sample("phantom", 32)
        assert regions()


def test_a_stream_that_is_left_leaves_its_memory_whole(sharing: Client) -> None:
    expected = sharing.sample("phantom", 64, seed=0).images
    for _ in range(10):
        stream = sharing.stream("phantom", seed=0, batch_size=32)
        next(stream)
        stream.close()  # type: ignore[attr-defined] # a generator behind the iterator
        assert np.array_equal(sharing.sample("phantom", 64, seed=0).images, expected)


def test_memory_that_is_not_there_is_done_without_and_told(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    # As in a container of its own: what the client makes, the server cannot open.
    monkeypatch.setattr(memory, "FOLDER", tmp_path)
    with Client(server.grpc_url, transport="shm") as client, caplog.at_level(logging.WARNING):
        assert len(client.sample("phantom", 64, seed=0)) == 64
    assert "--ipc=host" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_memory_is_done_without_and_kills_nobody(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        monkeypatch.setattr(memory, "FOLDER", tmp_path)
        with Client(server.grpc_url, transport="shm") as client:
            assert len(client.sample("phantom", 64, seed=0)) == 64
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_what_a_killed_client_left_is_cleared_away_by_the_next(server: EmbeddedServer) -> None:
    code = f"""
from galatea import Client
client = Client({server.grpc_url!r}, transport="shm")
for _ in client.stream("phantom", seed=0): print("here", flush=True)
"""
    victim = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert victim.stdout is not None
    victim.stdout.readline()
    assert regions(victim.pid)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    with Client(server.grpc_url, transport="shm") as client:
        client.sample("phantom", 64)
        assert not regions(victim.pid)


def test_memory_of_a_client_that_lives_is_left_alone() -> None:
    region = SystemRegion(1 << 16)
    try:
        assert not memory._is_abandoned(FOLDER / region.name)
    finally:
        region.close()
    assert memory._is_abandoned(FOLDER / region.name)


def test_a_restarted_server_is_given_memory_anew(repository: Path) -> None:
    first = EmbeddedServer(repository)
    with first, Client(first.grpc_url, transport="shm") as client:
        expected = client.sample("phantom", 64, seed=0).images
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with EmbeddedServer(repository, grpc_port=first.ports["grpc"]):
            assert np.array_equal(client.sample("phantom", 64, seed=0).images, expected)
            assert regions()


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
def test_without_a_gpu_its_memory_is_done_without_and_told(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(server.grpc_url, transport="cuda") as client, caplog.at_level(logging.WARNING):
        assert len(client.sample("phantom", 64, seed=0)) == 64
    assert "images come in messages" in caplog.text
