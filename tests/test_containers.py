"""The images, on a real Docker Engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

import docker_engine
from data_sets import command_line, files, galatea
from galatea import Client, datasets
from galatea.errors import MachineError, RepositoryError, ServerError
from galatea_server.container import ContainerServer
from galatea_server.server import EmbeddedServer
from galatea_server.sizing import LEAST_SHARED_MEMORY, shared_memory
from support import ROOT, wait_until

MEGABYTE = 1_000_000
SIZES = {  # MB that each may have
    "galatea-server-cpu": 700,
    "galatea-client": 250,
    "galatea-exporter": 1600,
    "galatea-server": 200,  # above NVIDIA's image
}


@pytest.fixture(scope="session", params=SIZES)
def image(request: pytest.FixtureRequest) -> str:
    docker_engine.engine()
    name: str = request.param
    return docker_engine.build(name)


@pytest.fixture(scope="session")
def server_image() -> str:
    docker_engine.engine()
    return docker_engine.build("galatea-server-cpu")


@pytest.fixture(scope="session")
def client_image() -> str:
    docker_engine.engine()
    return docker_engine.build("galatea-client")


@pytest.fixture(scope="module")
def served(server_image: str, phantom_repository: Path) -> Iterator[ContainerServer]:
    with serve(phantom_repository, server_image) as running:
        yield running


def serve(repository: Path, image: str) -> ContainerServer:
    return ContainerServer(repository, image, shm_bytes=LEAST_SHARED_MEMORY)


def test_dockerfiles_are_clean() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    config = ROOT / "containers" / "hadolint.yaml"
    done = subprocess.run(
        [hadolint, "--config", config, *docker_engine.DOCKERFILES],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_release_of_triton_is_pinned_by_digest_in_one_file() -> None:
    naming = [
        path
        for path in [*docker_engine.DOCKERFILES, ROOT / "containers" / "compose.yaml"]
        if "tritonserver:" in path.read_text()
    ]
    assert [path.name for path in naming] == ["server.Dockerfile"]
    assert "-py3@sha256:" in naming[0].read_text()


def test_an_image_holds_what_it_runs_and_no_more(
    image: str, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["image"]
    found = docker_engine.engine().images.get(image)
    base = 0
    if name == "galatea-server":
        base = docker_engine.engine().images.get(docker_engine.SHAPED).attrs["Size"]
    assert found.attrs["Size"] - base <= SIZES[name] * MEGABYTE
    assert found.attrs["Config"]["User"] == "1000:1000"
    code = """
import importlib.util, json, os, shutil
print(json.dumps({
    "user": os.getuid(),
    "packages": [name for name in ("torch", "onnxruntime", "pytriton", "galatea")
                 if importlib.util.find_spec(name)],
    "tools": [name for name in ("gcc", "cc", "g++", "clang", "ld", "strip", "make")
              if shutil.which(name)],
}))"""
    said = json.loads(docker_engine.run(image, "-c", code, entrypoint="/opt/galatea/bin/python"))
    assert said == {
        "user": 1000,
        "packages": {
            "galatea-server-cpu": ["onnxruntime", "pytriton", "galatea"],
            "galatea-client": ["galatea"],
            "galatea-exporter": ["torch", "onnxruntime", "galatea"],
            "galatea-server": ["galatea"],
        }[name],
        "tools": [],
    }


@pytest.mark.parametrize("name", ["galatea-server-cpu", "galatea-server"])
def test_a_hardened_container_serves_the_images_of_the_embedded_server(
    name: str, phantom_repository: Path
) -> None:
    docker_engine.engine()
    with (
        EmbeddedServer(phantom_repository) as embedded,
        serve(phantom_repository, docker_engine.build(name)) as server,
        Client(embedded.grpc_url) as expected,
        Client(server.grpc_url) as client,
    ):
        ours, theirs = (one.sample("phantom", 40, seed=3) for one in (client, expected))
        assert np.array_equal(ours.images, theirs.images)
        assert ours.masks is not None
        assert theirs.masks is not None
        assert np.array_equal(ours.masks, theirs.masks)
        wait_until(lambda: health(server) == "healthy", 30)
        metrics = urllib.request.urlopen(f"http://{server.metrics_url}/metrics").read().decode()
        assert 'nv_inference_request_summary_us{model="phantom"' in metrics
        container = docker_engine.engine().containers.get(server.name)
        code, said = container.exec_run("touch /opt/galatea/x")
        assert code == 1, said
        assert b"Read-only" in said


def health(server: ContainerServer) -> str:
    state = docker_engine.engine().containers.get(server.name).attrs["State"]
    return str(state["Health"]["Status"])


def test_nobody_changes_the_server_over_the_wire(served: ContainerServer) -> None:
    with grpc.insecure_channel(served.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for method, asked in {
            "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
            "TraceSetting": service_pb2.TraceSettingRequest(),
            "LogSettings": service_pb2.LogSettingsRequest(),
        }.items():
            with pytest.raises(grpc.RpcError, match="restricted"):
                getattr(stub, method)(asked)
    wire = triton.InferenceServerClient(served.grpc_url)
    with pytest.raises(triton.InferenceServerException, match="not allowed"):
        wire.load_model("phantom")
    with pytest.raises(triton.InferenceServerException, match="not allowed"):
        wire.unload_model("phantom")
    wire.close()
    asked = urllib.request.Request(
        f"http://{served.http_url}/v2/systemsharedmemory/region/x/register", b"{}", method="POST"
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(asked)


def test_requests_under_way_are_finished_when_the_container_is_stopped(
    server_image: str, phantom_repository: Path
) -> None:
    server = serve(phantom_repository, server_image)
    server.start()
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server.grpc_url, patience=0)) for _ in range(8)]
        for client in clients:
            client.sample("phantom", 1, seed=0)
        begun, done = made(server, "phantom.noise"), made(server, "phantom.synthesis")
        callers = stack.enter_context(ThreadPoolExecutor(len(clients)))
        answers = [callers.submit(client.sample, "phantom", 32, seed=1) for client in clients]
        wait_until(lambda: made(server, "phantom.noise") == begun + 32 * len(clients))
        assert made(server, "phantom.synthesis") < done + 32 * len(clients)
        status = server.stop()
        assert [len(answer.result()) for answer in answers] == [32] * len(clients)
    assert status == 0


def made(server: ContainerServer, model: str) -> int:
    """Samples that a model has computed."""
    metrics = urllib.request.urlopen(f"http://{server.metrics_url}/metrics").read().decode()
    line = next(
        line
        for line in metrics.splitlines()
        if line.startswith(f'nv_inference_count{{model="{model}"')
    )
    return int(float(line.split()[-1]))


def test_a_damaged_repository_is_never_ready_and_says_why(
    server_image: str, phantom_repository: Path, tmp_path: Path
) -> None:
    damaged = shutil.copytree(phantom_repository, tmp_path / "models")
    graph = damaged / "phantom.synthesis" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    server = serve(damaged, server_image)
    with pytest.raises(RepositoryError, match=r"phantom.synthesis/1/model.onnx: has \d+ bytes"):
        server.start()
    assert docker_engine.engine().containers.list(all=True, filters={"name": server.name}) == []


def test_a_half_copied_repository_is_never_ready_and_says_why(
    server_image: str, phantom_repository: Path, tmp_path: Path
) -> None:
    half = shutil.copytree(phantom_repository, tmp_path / "models")
    (half / "phantom" / "1" / "manifest.json").unlink()
    with pytest.raises(RepositoryError, match=r"no manifest\.json: an unfinished copy"):
        serve(half, server_image).start()


def test_the_command_line_serves_in_a_container(
    server_image: str, phantom_repository: Path
) -> None:
    before = docker_engine.running()
    command = command_line(
        "serve", "--engine", "docker", "--image", server_image, "--repository", phantom_repository,
        "--http-port", 0, "--grpc-port", 0, "--metrics-port", 0, "--log", "info", "--json",
    )  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        log: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        reader = threading.Thread(target=log.extend, args=(process.stderr,))
        reader.start()
        said = json.loads(process.stdout.readline())
        assert said["models"] == [{"name": "phantom", "version": 1}]
        with Client(said["grpc"]) as client:
            assert len(client.sample("phantom", 5, seed=1)) == 5
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        reader.join()
    assert any("successfully loaded 'phantom'" in line for line in log)
    assert docker_engine.running() == before


def test_an_image_that_is_nowhere_is_named(phantom_repository: Path) -> None:
    docker_engine.engine()
    with pytest.raises(MachineError, match="cannot be pulled") as caught:
        serve(phantom_repository, "galatea-nowhere.invalid/server:1").start()
    assert "make images" in caught.value.remedy


def test_an_image_that_does_something_else_is_named(
    server_image: str, phantom_repository: Path
) -> None:
    other = "python:3.11-slim-bookworm"
    with pytest.raises((ServerError, MachineError), match=other):
        serve(phantom_repository, other).start()


def test_without_an_engine_the_command_says_so(phantom_repository: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"}
    done = subprocess.run(
        command_line("serve", "--engine", "docker", "--repository", phantom_repository),
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no Docker Engine answers" in done.stderr
    assert "--engine embedded" in done.stderr


def test_shared_memory_is_sized_by_the_largest_answers(
    phantom_repository: Path, tmp_path: Path
) -> None:
    assert shared_memory(phantom_repository) == LEAST_SHARED_MEMORY
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "config.pbtxt").write_text("""
        max_batch_size: 64
        input { name: "seed" data_type: TYPE_INT64 dims: 1 }
        output { name: "image" data_type: TYPE_UINT8 dims: [1024, 1024, 3] }
        instance_group { count: 2 }
    """)
    assert shared_memory(tmp_path) == 2 * 2 * 64 * (3 * 2**20 + 8)


def test_a_checkpoint_is_exported_without_a_network(
    phantom_repository: Path, tmp_path: Path
) -> None:
    docker_engine.engine()
    work = docker_engine.open_folder(tmp_path / "work")
    for path in (ROOT / "examples" / "phantom").iterdir():
        shutil.copy(path, work)
    docker_engine.run(
        docker_engine.build("galatea-exporter"),
        "export", "dcgan_mammo", "phantom_cdcgan.pt", "--name", "phantom", "--card", "card.toml",
        network_mode="none", volumes=docker_engine.mounted(work=work),
    )  # fmt: skip
    models = work / "model_repository"
    assert galatea("repo", "verify", "--repository", models).returncode == 0
    ours, theirs = files(models), files(phantom_repository)
    assert ours.keys() == theirs.keys()
    graphs = [name for name in ours if str(name).endswith(".onnx")]
    assert [ours[name] for name in graphs] == [theirs[name] for name in graphs]


def test_the_client_makes_the_data_set_of_a_client_without_containers(
    client_image: str, served: ContainerServer, tmp_path: Path
) -> None:
    data = docker_engine.open_folder(tmp_path / "data")
    said = docker_engine.run(
        client_image,
        "generate", "phantom", "-n", "100", "--seed", "5", "-o", "/data/made",
        "--shard-size", "30", "--url", served.grpc_url,
        network_mode="host", volumes=docker_engine.mounted(data=data),
    )  # fmt: skip
    assert "complete: 100 images" in said
    assert datasets.verify(data / "made") == []
    with Client(served.grpc_url) as client:
        datasets.generate(client, "phantom", 100, tmp_path / "here", seed=5, shard_size=30)
    pixels = [
        [json.loads(path.read_text())["samples_sha256"] for path in sorted(folder.iterdir())]
        for folder in (data / "made" / "shards", tmp_path / "here" / "shards")
    ]
    assert pixels[0] == pixels[1]


def test_compose_brings_up_a_server_and_its_client(
    server_image: str, client_image: str, phantom_repository: Path, tmp_path: Path
) -> None:
    compose = find_compose()
    environment = {
        **os.environ,
        "GALATEA_MODELS": str(phantom_repository),
        "GALATEA_DATA": str(docker_engine.open_folder(tmp_path / "data")),
    }
    base = [*compose, "-p", "galatea-test", "-f", str(ROOT / "containers" / "compose.yaml")]

    def call(*arguments: str) -> str:
        done = subprocess.run(
            [*base, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        call("up", "--detach", "--no-build")
        call("run", "--rm", "client", "sample", "phantom", "-n", "3", "-o", "/data/samples")
    finally:
        call("down", "--volumes")
    assert len(list((tmp_path / "data" / "samples").glob("*-mask.png"))) == 3


def find_compose() -> list[str]:
    """Compose of this machine, as a plug-in of docker or a program."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, "version"], capture_output=True, check=False).returncode
            == 0
        ):
            return command
    pytest.skip("no docker compose on this machine")
