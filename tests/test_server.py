"""The embedded server: real tritonserver, our onnxruntime backend, and how both end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from galatea import (
    Client,
    DeadlineExceeded,
    InvalidInput,
    MachineError,
    RepositoryError,
    ServerUnreachable,
)
from galatea_server import doctor, installation
from galatea_server.log import last_words, shown
from galatea_server.server import EmbeddedServer
from support import is_running, wait_until

Floats = NDArray[np.float32]

CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: -1 }}
input {{ name: "row" data_type: TYPE_INT64 dims: 1 }}
output {{ name: "double" data_type: TYPE_FP32 dims: -1 }}
output {{ name: "picked" data_type: TYPE_FP32 dims: 1 }}
instance_group {{ count: {instances} kind: KIND_CPU }}
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
"""


def write_model(root: Path, name: str, *, delay: int = 0, instances: int = 1) -> Path:
    """double = 2 x, of any length; picked = the row-th of five numbers, an error above 4."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["double"]),
            helper.make_node("Gather", ["table", "row"], ["picked"], axis=0),
        ],
        "test",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "n"]),
            helper.make_tensor_value_info("row", TensorProto.INT64, ["batch", 1]),
        ],
        [
            helper.make_tensor_value_info("double", TensorProto.FLOAT, ["batch", "n"]),
            helper.make_tensor_value_info("picked", TensorProto.FLOAT, ["batch", 1]),
        ],
        [helper.make_tensor("table", TensorProto.FLOAT, [5], [10.0, 11.0, 12.0, 13.0, 14.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder = root / name
    (folder / "1").mkdir(parents=True)
    onnx.save(model, folder / "1" / "model.onnx")
    text = CONFIG.format(instances=instances, delay=delay)
    (folder / "config.pbtxt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of two models that collect requests for 200 ms and run them together."""
    root = tmp_path_factory.mktemp("plain")
    write_model(root, "collects", delay=200_000)
    write_model(root, "twice", instances=2)
    with EmbeddedServer(root) as running:
        yield running


@pytest.fixture
def wire(plain: EmbeddedServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(plain.grpc_url) as client:
        yield client


def ask(
    wire: triton.InferenceServerClient,
    x: Floats,
    row: int = 0,
    model: str = "collects",
    outputs: tuple[str, ...] = ("double", "picked"),
) -> triton.InferResult:
    first = triton.InferInput("x", x.shape, "FP32")
    first.set_data_from_numpy(x)
    second = triton.InferInput("row", (len(x), 1), "INT64")
    second.set_data_from_numpy(np.full((len(x), 1), row, np.int64))
    wanted = [triton.InferRequestedOutput(name) for name in outputs]
    return wire.infer(model, [first, second], outputs=wanted)


def executions(wire: triton.InferenceServerClient, model: str) -> int:
    return int(wire.get_inference_statistics(model).model_stats[0].execution_count)


def numbers(start: int, rows: int, length: int = 3) -> Floats:
    return np.arange(start, start + rows * length, dtype=np.float32).reshape(rows, length)


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


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"x"', '"y"', "config.pbtxt names 'y', the graph has x, row"),
        ("TYPE_FP32 dims: -1", "TYPE_FP64 dims: -1", "'x' is TYPE_FP64 in config.pbtxt"),
        ("TYPE_FP32 dims: -1", "TYPE_FP32 dims: [2, 2]", "'x' has the dims [2, 2] in config.pbtxt"),
        ('backend: "onnxruntime"', "backend: oops {", "failed to read text proto"),
    ],
)
def test_a_config_that_triton_cannot_serve_names_model_and_reason(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    config = write_model(tmp_path, "wrong") / "config.pbtxt"
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(RepositoryError, match="'wrong'") as refused:
        EmbeddedServer(tmp_path).start()
    assert reason in str(refused.value)


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    graph = write_model(tmp_path, "wrong") / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:50])
    with pytest.raises(RepositoryError, match=r"'wrong': ONNX Runtime refuses .*model\.onnx"):
        EmbeddedServer(tmp_path).start()


def test_a_release_without_one_of_its_stages_is_refused(repository: Path, tmp_path: Path) -> None:
    for model in ("masses", "masses.noise"):
        shutil.copytree(repository / model, tmp_path / model)
    with pytest.raises(RepositoryError, match=r"'masses': contains models .*masses\.synthesis"):
        EmbeddedServer(tmp_path).start()


def test_an_input_that_the_config_lacks_is_refused(tmp_path: Path) -> None:
    config = write_model(tmp_path, "wrong") / "config.pbtxt"
    text = config.read_text().replace('input { name: "row" data_type: TYPE_INT64 dims: 1 }\n', "")
    config.write_text(text)
    with pytest.raises(
        RepositoryError, match=r"'wrong': config\.pbtxt lacks the graph's inputs row"
    ):
        EmbeddedServer(tmp_path).start()


def test_an_ensemble_whose_step_has_another_version_is_refused(
    repository: Path, tmp_path: Path
) -> None:
    for model in ("masses", "masses.noise", "masses.synthesis"):
        shutil.copytree(repository / model, tmp_path / model)
    config = tmp_path / "masses" / "config.pbtxt"
    text = config.read_text()
    config.write_text(re.sub(r"model_version: 1\b", "model_version: 7", text))
    assert config.read_text() != text
    with pytest.raises(RepositoryError, match=r"'masses': depends on .* version 7 is not loaded"):
        EmbeddedServer(tmp_path).start()


def test_a_variant_of_the_configuration_is_chosen_by_name(
    plain: EmbeddedServer, tmp_path: Path
) -> None:
    folder = write_model(tmp_path, "varied")
    (folder / "configs").mkdir()
    text = (folder / "config.pbtxt").read_text()
    (folder / "configs" / "small.pbtxt").write_text(text.replace("size: 8", "size: 2"))
    write_model(tmp_path, "only")  # has no such variant
    with (
        EmbeddedServer(tmp_path, model_config="small") as server,
        triton.InferenceServerClient(server.grpc_url) as wire,
    ):
        assert wire.get_model_config("varied").config.max_batch_size == 2
        assert wire.get_model_config("only").config.max_batch_size == 8


def test_a_variant_that_no_model_has_is_refused(repository: Path) -> None:
    with pytest.raises(InvalidInput, match=r"'cudda'; there are: cpu, cuda, cuda-fp16, "):
        EmbeddedServer(repository, model_config="cudda").start()


def test_an_empty_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("models come here")
    with pytest.raises(RepositoryError, match="holds no model"):
        EmbeddedServer(tmp_path).start()


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


@pytest.mark.parametrize(("host", "address"), [("localhost", "127.0.0.1"), ("::1", "[::1]")])
def test_a_server_listens_on_a_name_and_on_ipv6(tmp_path: Path, host: str, address: str) -> None:
    write_model(tmp_path, "twice")
    with (
        EmbeddedServer(tmp_path, host=host) as server,
        triton.InferenceServerClient(server.grpc_url) as wire,
        urllib.request.urlopen(f"http://{server.metrics_url}/metrics") as metrics,
    ):
        assert server.grpc_url == f"{address}:{server.ports['grpc']}"
        assert wire.is_model_ready("twice")
        assert metrics.status == 200


def test_a_host_without_an_address_is_named(plain: EmbeddedServer) -> None:
    with pytest.raises(MachineError, match=r"the host 'nowhere\.invalid' has no address"):
        EmbeddedServer(plain.repository, host="nowhere.invalid").start()


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


class Robbed(EmbeddedServer):
    """A server whose gRPC port is taken by another at the last moment, once."""

    thief: socket.socket | None = None

    def _flags(self, backends: Path) -> list[str]:
        if self.thief is None:
            self.thief = socket.create_server(("127.0.0.1", self.ports["grpc"]))
        return super()._flags(backends)


def test_a_free_port_that_is_lost_is_replaced(plain: EmbeddedServer) -> None:
    robbed = Robbed(plain.repository)
    with robbed, triton.InferenceServerClient(robbed.grpc_url) as wire:
        assert robbed.thief is not None
        assert robbed.ports["grpc"] != robbed.thief.getsockname()[1]
        assert wire.is_server_ready()
    robbed.thief.close()


def test_a_chosen_port_that_is_lost_is_named(plain: EmbeddedServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    robbed = Robbed(plain.repository, grpc_port=port)
    with pytest.raises(MachineError, match=f"the grpc port {port} was taken while Triton started"):
        robbed.start()
    assert robbed.thief is not None
    robbed.thief.close()


def test_a_missing_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="nowhere: no such folder"):
        EmbeddedServer(tmp_path / "nowhere").start()


def test_a_taken_port_is_named(plain: EmbeddedServer, tmp_path: Path) -> None:
    taken = plain.ports["grpc"]
    with pytest.raises(MachineError, match=f"grpc port {taken} .* Address already in use"):
        EmbeddedServer(plain.repository, grpc_port=taken).start()


def test_a_server_that_is_not_ready_in_time_is_stopped(plain: EmbeddedServer) -> None:
    server = EmbeddedServer(plain.repository)
    with pytest.raises(DeadlineExceeded, match=r"not ready within 0 s"):
        server.start(timeout=0)
    assert server.stop() is None


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


def test_the_log_is_shown_from_a_level_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [
        "I1121 07:00:00.000000 1 server.cc:1] news\n", "+---+\n",
        "E1121 07:00:00.000000 1 server.cc:241] \"CudaDriverHelper has not been initialized.\"\n",
        "W1121 07:00:00.000000 1 server.cc:2] a warning\n", "that goes on\n",
    ]  # fmt: skip
    with (tmp_path / "log").open("w+b") as log:
        with shown(log, "warning"):
            for message in messages:
                log.write(message.encode())
                log.flush()
        assert capsys.readouterr().err == "".join(messages[3:])
        with shown(log, "info"):
            pass
        assert capsys.readouterr().err == "".join(messages[:2] + messages[3:])


def test_what_was_shown_of_a_long_log_takes_no_room(tmp_path: Path) -> None:
    line = b"I1121 07:00:00.000000 1 server.cc:1] " + b"x" * 100_000 + b"\n"
    with (tmp_path / "log").open("w+b") as log, shown(log, "error"):
        for _ in range(40):
            log.write(line)
        log.flush()
        assert os.fstat(log.fileno()).st_size == 40 * len(line)
        wait_until(lambda: os.fstat(log.fileno()).st_blocks * 512 < len(line))


def test_a_log_with_dates_is_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["2026-01-31T07:00:00Z I 1 a.cc:1] news\n", "2026-01-31T07:00:01Z E 1 a.cc:2] bad\n"]
    with (tmp_path / "log").open("w+b") as log:
        log.write("".join(lines).encode())
        log.flush()
        with shown(log, "warning"):
            pass
    assert capsys.readouterr().err == lines[1]
    assert last_words("".join(lines)) == lines[1].strip()


def test_a_restricted_server_refuses_shared_memory(plain: EmbeddedServer) -> None:
    asked = service_pb2.SystemSharedMemoryStatusRequest()
    with (
        EmbeddedServer(plain.repository, restrict=True) as server,
        grpc.insecure_channel(server.grpc_url) as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="restricted"):
            stub.SystemSharedMemoryStatus(asked)


def test_models_are_reported_to_nobody() -> None:
    found = installation.locate_embedded()
    assert found.environment({})["ORT_DISABLE_TELEMETRY"] == "1"
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"  # since the exporter was imported


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


def test_an_address_that_is_no_server_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(ServerUnreachable):
        client.models()


def test_the_doctor_finds_this_machine_fit() -> None:
    findings = doctor.examine({"grpc": 0})
    assert [finding for finding in findings if finding.state == "fail"] == []


def test_the_doctor_names_each_illness_with_its_cure(plain: EmbeddedServer, tmp_path: Path) -> None:
    venv.create(tmp_path, symlinks=True)
    backends = installation.backend_directory(installation.locate_embedded(), tmp_path / "cache")
    copied = backends / "python" / "libtriton_python.so"
    sick = [
        doctor.check_numpy("2.1.0"),
        doctor.check_numpy(None),
        doctor.check_onnxruntime(str(tmp_path / "bin" / "python")),
        doctor.check_tritonclient(None),
        doctor.check_libraries([copied], {"PATH": os.defpath}),
        doctor.check_libpython(None),
        doctor.check_bash(None),
        doctor.check_port("grpc", plain.ports["grpc"]),
        doctor.check_shared_memory(Path("/proc")),
    ]
    assert [finding.state for finding in sick] == ["fail"] * len(sick)
    assert all(finding.remedy for finding in sick)
    assert "numpy<2" in sick[0].remedy
    assert "No module named 'onnxruntime'" in sick[2].fact
    assert "libarchive" in sick[4].fact


def start(repository: Path) -> subprocess.Popen[str]:
    """``galatea serve`` in a process of its own."""
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    return subprocess.Popen(
        [sys.executable, "-m", "galatea", "serve", "--repository", str(repository), *ports,
         "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


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


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    text = " ".join((thread / "children").read_text() for thread in threads)
    return sorted(int(child) for child in text.split())


def regions_of(triton_pid: int) -> Callable[[], list[str]]:
    """A function that lists the server's regions of shared memory, also when it has gone."""
    found = re.search(r"galatea-[0-9a-f]{32}-", command_line(triton_pid))
    assert found
    prefix = found[0]
    return lambda: [name for name in os.listdir("/dev/shm") if name.startswith(prefix)]


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
