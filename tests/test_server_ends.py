"""The embedded server starts and ends in order, whoever is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton

from galatea import (
    DeadlineExceeded,
)
from galatea_server.server import EmbeddedServer
from plain_models import ask, children, command_line, numbers, start, write_model
from support import is_running, wait_until


def test_a_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    write_model(tmp_path, "twice")
    server = EmbeddedServer(tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with triton.InferenceServerClient(server.grpc_url) as wire:
        assert ask(wire, numbers(0, 1), model="twice").as_numpy("double").tolist() == [[0, 2, 4]]
    assert server.stop() == 0


def test_sigterm_lets_requests_finish_and_passes_on_tritons_status(tmp_path: Path) -> None:
    write_model(tmp_path, "collects", delay=1_500_000)
    process, urls = serve(tmp_path)
    assert urls["models"] == [{"name": "collects", "version": 1}]
    with triton.InferenceServerClient(urls["grpc"]) as wire, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, wire, numbers(0, 1))
        wait_until(lambda: pending(urls["metrics"]) == 1)
        process.send_signal(signal.SIGTERM)
        assert answer.result().as_numpy("double").tolist() == [[0, 2, 4]]
    assert process.wait(30) == 0


def test_kill_9_of_the_parent_leaves_nothing_behind(tmp_path: Path) -> None:
    write_model(tmp_path, "twice", instances=2)
    process, _ = serve(tmp_path)
    (triton_pid,) = children(process.pid)
    family = [triton_pid, *children(triton_pid)]
    assert len(family) == 3
    left = regions_of(triton_pid)
    assert len(left()) == 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(is_running(pid) for pid in family))
    wait_until(lambda: left() == [])


def test_kill_9_of_the_parent_while_models_load_leaves_nothing_behind(tmp_path: Path) -> None:
    write_model(tmp_path, "twice", instances=2)
    process = start(tmp_path)
    wait_until(lambda: any(children(pid) for pid in children(process.pid)))
    (triton_pid,) = children(process.pid)
    family = [triton_pid, *children(triton_pid)]
    left = regions_of(triton_pid)
    with process:
        process.kill()
    wait_until(lambda: not any(is_running(pid) for pid in family))
    wait_until(lambda: left() == [])


def test_a_signal_while_models_load_ends_the_server_in_peace(tmp_path: Path) -> None:
    write_model(tmp_path, "twice", instances=2)
    process = start(tmp_path)
    wait_until(lambda: any(children(pid) for pid in children(process.pid)))
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == ""
    assert process.returncode == 0


def test_a_server_that_is_not_ready_in_time_is_stopped(plain: EmbeddedServer) -> None:
    server = EmbeddedServer(plain.repository)
    with pytest.raises(DeadlineExceeded, match=r"not ready within 0 s"):
        server.start(timeout=0)
    assert server.stop() is None


def test_a_start_that_triton_aborts_by_chance_is_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "late" / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text('backend: "python"\nmax_batch_size: 1\n')
    (folder / "model.py").write_text(f"""
import os, pathlib, signal, sys

class TritonPythonModel:
    def initialize(self, args):
        once = pathlib.Path({str(tmp_path / "once")!r})
        if not once.exists():
            once.touch()
            print("what():  boost::interprocess::lock_exception", file=sys.stderr, flush=True)
            os.kill(os.getpgrp(), signal.SIGABRT)
            signal.pause()

    def execute(self, requests):
        return []
""")
    with EmbeddedServer(tmp_path / "models") as server:
        assert (tmp_path / "once").exists()
        assert server.models() == [("late", 1)]


def test_kill_9_of_triton_itself_leaves_no_process_behind(tmp_path: Path) -> None:
    write_model(tmp_path, "twice")
    server = EmbeddedServer(tmp_path)
    server.start()
    stubs = children(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait(10) == -signal.SIGKILL
    wait_until(lambda: not any(is_running(pid) for pid in stubs))
    server.stop()


def serve(repository: Path) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """The same, and what it announces when it is ready."""
    process = start(repository)
    assert process.stdout is not None
    with process.stdout as output:
        return process, json.loads(output.readline())


def pending(metrics: str) -> int:
    """Requests that wait in the queue of the model ``collects``."""
    with urllib.request.urlopen(metrics) as reply:
        text = reply.read().decode()
    found = re.search(r'nv_inference_pending_request_count\{model="collects".*\} (\d+)', text)
    return int(found[1]) if found else 0


def regions_of(triton_pid: int) -> Callable[[], list[str]]:
    """A function that lists the server's regions of shared memory, also when it has gone."""
    found = re.search(r"galatea-[0-9a-f]{32}-", command_line(triton_pid))
    assert found
    prefix = found[0]
    return lambda: [name for name in os.listdir("/dev/shm") if name.startswith(prefix)]
