"""Overlays and components go together, and the programs in them do what they should."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest

from galatea.errors import MachineError
from galatea.repository import verify
from galatea_server.cli import serve
from galatea_server.deploy.kustomize import Order, builder, render
from galatea_server.deploy.manifests import Manifest, dump, load
from galatea_server.deploy.rules import check
from galatea_server.deploy.schema import VERSION, check_schema
from galatea_server.server import EmbeddedServer
from support import ROOT, wait_until

K8S = ROOT / "k8s"
OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))
COMPONENTS = sorted(
    path.parent.relative_to(K8S / "components").as_posix()
    for path in K8S.glob("components/**/README.md")
)
OLDEST = "1.33"  # of which there are schemas
# What does not go together, and the rule that says so.
CONFLICTS = {
    ("cpu", "tensorrt-warm"): "no GPU",
    ("gpu-autoscaled", "keda"): "another autoscaler",
}


def needs_kustomize() -> None:
    try:
        builder()
    except MachineError as error:
        pytest.skip(str(error))


def rendered(name: str) -> list[Manifest]:
    path = K8S / "rendered" / f"{name}.yaml"
    return load(path.read_text("utf-8"), str(path))


def only(manifests: list[Manifest], kind: str) -> Any:
    return next(manifest for manifest in manifests if manifest["kind"] == kind)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", [OLDEST, VERSION])
def test_a_rendered_overlay_fits_the_schemas_and_the_rules(overlay: str, version: str) -> None:
    manifests = rendered(overlay)
    assert [*check_schema(manifests, version), *check(manifests)] == []


def test_the_namespace_fits_the_schemas_and_admits_no_more_than_needed() -> None:
    (namespace,) = load((K8S / "namespace.yaml").read_text("utf-8"), "namespace.yaml")
    assert check_schema([namespace]) == []
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_job_that_fills_a_claim_fits_the_schemas_and_the_rules() -> None:
    needs_kustomize()
    manifests = render(Order(K8S / "components/repository-pvc/fill"))
    assert [*check_schema(manifests), *check(manifests)] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_committed_is_what_is_rendered(overlay: str) -> None:
    needs_kustomize()
    fresh = dump(render(Order(K8S / "overlays" / overlay)))
    committed = (K8S / "rendered" / f"{overlay}.yaml").read_text("utf-8")
    assert fresh == committed, (
        f"run: galatea deploy render {overlay} -o k8s/rendered/{overlay}.yaml"
    )


@pytest.mark.parametrize(("overlay", "component"), [*itertools.product(OVERLAYS, COMPONENTS)])
def test_any_component_goes_on_any_overlay_or_is_refused_with_the_reason(
    overlay: str, component: str
) -> None:
    needs_kustomize()
    folder = K8S / "components" / component
    manifests = render(Order(K8S / "overlays" / overlay, [folder]))
    found = [str(fault) for fault in (*check_schema(manifests), *check(manifests))]
    conflict = CONFLICTS.get((overlay, component))
    if conflict is None:
        assert found == []
    else:
        assert all(conflict in fault for fault in found), found
        assert found


REPOSITORIES = [name for name in COMPONENTS if name.startswith("repository-")]


@pytest.mark.parametrize("pair", [*itertools.permutations(REPOSITORIES, 2)], ids="+".join)
def test_of_several_repositories_the_last_one_counts(pair: tuple[str, str]) -> None:
    needs_kustomize()
    base = K8S / "overlays" / "gpu"
    folders = [K8S / "components" / name for name in pair]
    both = only(render(Order(base, folders)), "Deployment")["spec"]["template"]["spec"]
    last = only(render(Order(base, folders[1:])), "Deployment")["spec"]["template"]["spec"]
    assert both == last


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_the_job_that_warms_runs_what_the_servers_run(repository: str) -> None:
    needs_kustomize()
    folders = [K8S / "components" / name for name in (repository, "mig", "tensorrt-warm")]
    manifests = render(Order(K8S / "overlays" / "gpu", folders))
    assert [*check_schema(manifests), *check(manifests)] == []
    server = only(manifests, "Deployment")["spec"]["template"]["spec"]
    warm = only(manifests, "Job")["spec"]["template"]["spec"]
    for key in ("volumes", "nodeSelector", "tolerations", "securityContext", "serviceAccountName"):
        assert warm[key] == server[key]
    for key in ("image", "resources", "envFrom", "volumeMounts", "securityContext"):
        assert warm["containers"][0][key] == server["containers"][0][key]
    assert not {"livenessProbe", "startupProbe", "ports"} & warm["containers"][0].keys()


def test_every_knob_and_component_is_in_the_table() -> None:
    text = (K8S / "README.md").read_text("utf-8")
    for option in serve.params:
        if isinstance(option, click.Option) and option.expose_value:
            name = max(option.opts, key=len).lstrip("-").replace("-", "_").upper()
            assert f"GALATEA_SERVE_{name}" in text
    for component in COMPONENTS:
        assert f"components/{component}" in text


# The programs that stand in the manifests, run as they stand there, with other folders.


def test_models_are_copied_from_a_store_whole_or_not_at_all(
    phantom_repository: Path, tmp_path: Path, store: str
) -> None:
    needs_kustomize()
    program = initial("repository-s3")["command"][2]
    aws = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": store}
    target = tmp_path / "repository"
    target.mkdir()

    def run(code: str, **more: str) -> subprocess.CompletedProcess[str]:
        code = code.replace("/repository/", f"{target}/")
        return subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **aws, **more},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    source = str(phantom_repository)
    for code in (
        "import fsspec; fsspec.filesystem('s3').mkdir('models')",
        f"import fsspec; fsspec.filesystem('s3').put('{source}/', 'models/r1/', recursive=True)",
    ):
        nothing = run(program, GALATEA_MODELS="s3://models/r1")
        assert nothing.returncode == 1
        done = run(code)
        assert done.returncode == 0, done.stderr
    assert "nothing lies at s3://models/r1" in nothing.stderr
    done = run(program, GALATEA_MODELS="s3://models/r1")
    assert done.returncode == 0, done.stderr
    assert verify(target) == []
    assert [path.name for path in sorted(target.iterdir())] == [
        path.name for path in sorted(phantom_repository.iterdir())
    ]


def test_a_release_gets_its_name_in_a_claim_when_it_is_whole(
    phantom_repository: Path, tmp_path: Path
) -> None:
    job = load((K8S / "components/repository-pvc/fill/job.yaml").read_text("utf-8"), "job.yaml")
    pod = job[0]["spec"]["template"]["spec"]
    claim = tmp_path / "claim"
    claim.mkdir()
    models = tmp_path / "models"
    shutil.copytree(phantom_repository, models)

    def step(container: dict[str, Any]) -> int:
        script = container["command"][2].replace("/models", str(models))
        script = script.replace("/claim", str(claim))
        paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", "-ec", script], env={**os.environ, "PATH": paths, "RELEASE": "r1"}, check=False
        ).returncode

    damaged = next(models.glob("phantom.*/*/model.onnx"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    assert step(pod["initContainers"][0]) == 0
    assert step(pod["containers"][0]) == 5
    assert not (claim / "r1").exists()
    damaged.write_bytes(whole)
    for _ in range(2):  # the second time all is there
        assert step(pod["initContainers"][0]) == 0
        assert step(pod["containers"][0]) == 0
        assert verify(claim / "r1") == []
        assert [path.name for path in claim.iterdir()] == ["r1"]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_server_is_started_until_it_is_ready_and_then_ended(
    phantom_repository: Path, tmp_path: Path, damaged: bool
) -> None:
    models = tmp_path / "models"
    shutil.copytree(phantom_repository, models)
    if damaged:
        (models / "phantom" / "config.pbtxt").write_text("")
    text = (K8S / "components/tensorrt-warm/job/job.yaml").read_text("utf-8")
    container = load(text, "job.yaml")[0]["spec"]["template"]["spec"]["containers"][0]
    bash, flag, script = container["command"]
    script = script.replace("/opt/galatea/bin/", f"{Path(sys.executable).parent}/")
    variables = {"GALATEA_SERVE_REPOSITORY": str(models)}
    for name, port in zip(("HTTP", "GRPC", "METRICS"), free_ports(3), strict=True):
        variables[f"GALATEA_SERVE_{name}_PORT"] = str(port)
    done = subprocess.run(
        [bash, flag, script], env={**os.environ, **variables},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == (5 if damaged else 0), done.stderr
    assert ("Triton serves 1 models" in done.stdout) is not damaged


def test_requests_with_a_trace_context_are_traced_to_the_collector(
    phantom_repository: Path, collector: tuple[str, list[bytes]]
) -> None:
    address, spans = collector
    text = (K8S / "components/otel/otel.env").read_text("utf-8")
    flags = text.partition("GALATEA_SERVE_TRITON=")[2]
    assert "http://otel-collector.observability.svc:4318" in flags
    flags = flags.replace("http://otel-collector.observability.svc:4318", address)
    trace = 16 * "0f"
    with EmbeddedServer(phantom_repository, restrict=True, further=flags.split()) as server:
        call = urllib.request.Request(
            f"http://{server.http_url}/v2/models/phantom/infer",
            json.dumps({"inputs": [number("seed", 7), number("label", 1)]}).encode(),
            {"traceparent": f"00-{trace}-{8 * '0a'}-01"},
        )
        with urllib.request.urlopen(call) as reply:
            assert reply.status == 200
        wait_until(lambda: any(b"phantom.synthesis" in span for span in spans))
    assert any(trace.encode() in span for span in spans)


def number(name: str, value: int) -> dict[str, Any]:
    """An input of one sample in the JSON of the protocol."""
    return {"name": name, "datatype": "INT64", "shape": [1, 1], "data": [value]}


def initial(component: str) -> Any:
    """The initial container that a component gives to the servers."""
    folder = K8S / "components" / component
    manifests = render(Order(K8S / "overlays" / "cpu", [folder]))
    return only(manifests, "Deployment")["spec"]["template"]["spec"]["initContainers"][0]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a collector of traces, and what it has got there."""
    spans: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.path == "/v1/traces":
                spans.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", spans
        running.shutdown()
        thread.join()


@pytest.fixture
def store() -> Iterator[str]:
    """The address of an S3 store."""
    command = [sys.executable, str(ROOT / "tests" / "s3_server.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.send_signal(signal.SIGKILL)
