"""The embedded server: what it serves, where it listens, and what it refuses."""

from __future__ import annotations

import os
import re
import shutil
import socket
import urllib.request
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from galatea import (
    Client,
    InvalidInput,
    MachineError,
    RepositoryError,
    ServerUnreachable,
)
from galatea_server import installation
from galatea_server.server import EmbeddedServer
from plain_models import write_model


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


def test_an_address_that_is_no_server_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(ServerUnreachable):
        client.models()
