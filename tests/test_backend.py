"""Our onnxruntime backend in a real tritonserver: how requests are computed."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from galatea_server import installation
from galatea_server.server import EmbeddedServer
from plain_models import ask, children, command_line, numbers, write_model


def test_requests_are_run_together_and_each_gets_its_own_slice(
    wire: triton.InferenceServerClient,
) -> None:
    before = executions(wire, "collects")
    with ThreadPoolExecutor(3) as pool:
        batches = [numbers(100 * k, rows) for k, rows in enumerate((1, 3, 2))]
        answers = list(pool.map(lambda x: ask(wire, x, row=len(x)), batches))
    assert executions(wire, "collects") - before < 3
    for x, answer in zip(batches, answers, strict=True):
        assert answer.as_numpy("double").tolist() == (2 * x).tolist()
        assert answer.as_numpy("picked").tolist() == [[10.0 + len(x)]] * len(x)


def test_a_bad_request_fails_alone(wire: triton.InferenceServerClient) -> None:
    def one(row: int) -> list[float] | str:
        try:
            picked: list[float] = ask(wire, numbers(0, 1), row).as_numpy("picked")[0].tolist()
        except InferenceServerException as error:
            return str(error.message())
        return picked

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(one, (0, 1, 99, 2)))
    assert [answers[0], answers[1], answers[3]] == [[10.0], [11.0], [12.0]]
    assert "indices element out of data bounds" in str(answers[2])


def test_requests_of_different_shapes_do_not_disturb_each_other(
    wire: triton.InferenceServerClient,
) -> None:
    with ThreadPoolExecutor(3) as pool:
        batches = [numbers(0, 2, length) for length in (2, 5, 2)]
        answers = list(pool.map(lambda x: ask(wire, x), batches))
    for x, answer in zip(batches, answers, strict=True):
        assert answer.as_numpy("double").tolist() == (2 * x).tolist()


def test_only_the_outputs_that_are_asked_for_are_answered(
    wire: triton.InferenceServerClient,
) -> None:
    answer = ask(wire, numbers(0, 2), outputs=("picked",), model="twice")
    assert answer.as_numpy("double") is None
    assert answer.as_numpy("picked").tolist() == [[10.0], [10.0]]


def test_instances_are_processes_of_their_own(plain: EmbeddedServer) -> None:
    stubs = [pid for pid in children(plain.pid) if "twice" in command_line(pid)]
    assert len(stubs) == 2


def test_a_model_without_a_batch_dimension_is_served(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "single")
    text = (folder / "config.pbtxt").read_text()
    text = text.replace("max_batch_size: 8", "max_batch_size: 0")
    (folder / "config.pbtxt").write_text(
        re.sub(r"dynamic_batching {.*}", "", text).replace("dims: ", "dims: -1 dims: ")
    )
    with EmbeddedServer(tmp_path) as server, triton.InferenceServerClient(server.grpc_url) as wire:
        answer = ask(wire, numbers(0, 2), row=3, model="single")
        assert answer.as_numpy("double").tolist() == [[0, 2, 4], [6, 8, 10]]
        assert answer.as_numpy("picked").tolist() == [[13.0], [13.0]]


def test_neither_path_nor_home_decides_which_python_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No ``python3`` on PATH, and no cache that can be written: a temporary one, then gone."""
    write_model(tmp_path / "models", "twice")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    server = EmbeddedServer(tmp_path / "models")
    with server, triton.InferenceServerClient(server.grpc_url) as wire:
        assert ask(wire, numbers(0, 1), model="twice").as_numpy("double").tolist() == [[0, 2, 4]]
        assert list(temporary.iterdir()) != []
    assert list(temporary.iterdir()) == []


def test_the_backend_directory_is_made_of_real_files_and_kept(tmp_path: Path) -> None:
    found = installation.locate_embedded()
    folder = installation.backend_directory(found, tmp_path / "cache")
    backends = [folder / "onnxruntime", folder / "python"]
    files = [path for backend in backends for path in sorted(backend.rglob("*"))]
    assert [path.name for path in files] == [
        "model.py", "libtriton_python.so", "triton_python_backend_stub",
        "triton_python_backend_utils.py",
    ]  # fmt: skip
    assert not any(path.is_symlink() for path in files)
    assert installation.backend_directory(found, tmp_path / "cache") == folder
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def executions(wire: triton.InferenceServerClient, model: str) -> int:
    return int(wire.get_inference_statistics(model).model_stats[0].execution_count)
