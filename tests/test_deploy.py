"""``galatea deploy``: the same order gives the same manifests, and nothing faulty is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from galatea.errors import MachineError
from galatea_server.deploy.kustomize import builder
from galatea_server.deploy.manifests import quantity
from support import ROOT

RENDERED = ROOT / "k8s" / "rendered"
VARIANT = "GALATEA_SERVE_MODEL_CONFIG"


def deploy(*arguments: object, path: str | None = None) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PATH": path if path is not None else os.environ["PATH"]}
    command = [sys.executable, "-W", "error", "-m", "galatea", "deploy", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=variables
    )


def kind(text: str, name: str) -> Any:
    """The first object of a kind."""
    return next(found for found in yaml.safe_load_all(text) if found["kind"] == name)


@pytest.fixture
def kustomize() -> None:
    try:
        builder()
    except MachineError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("kustomize")
def test_an_order_is_rendered_to_the_same_bytes_on_stdout_and_into_a_file(tmp_path: Path) -> None:
    order = ("render", "cpu", "--component", "pdb", "--namespace", "x", "--replicas", 3)
    first, second = deploy(*order), deploy(*order)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    deployment = kind(first.stdout, "Deployment")
    assert deployment["metadata"]["namespace"] == "x"
    assert deployment["spec"]["replicas"] == 3
    assert kind(first.stdout, "PodDisruptionBudget")
    into = deploy(*order, "-o", tmp_path / "x.yaml")
    assert into.stdout == ""
    assert "kubectl apply -f" in into.stderr
    assert (tmp_path / "x.yaml").read_text("utf-8") == first.stdout


@pytest.mark.usefixtures("kustomize")
def test_an_order_for_programs_is_the_same_objects() -> None:
    people, programs = deploy("render", "cpu"), deploy("render", "cpu", "--json")
    objects = json.loads(programs.stdout)
    assert {o["kind"] for o in objects} == {o["kind"] for o in yaml.safe_load_all(people.stdout)}


@pytest.mark.usefixtures("kustomize")
def test_images_are_replaced_wherever_they_are_named() -> None:
    done = deploy(
        "render", "gpu", "--component", "repository-oci/image-volume",
        "--image", "galatea-server=r.example:5000/s:2",
        "--image", "galatea-models=r.example/m@sha256:" + 64 * "0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    spec = kind(done.stdout, "Deployment")["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == "r.example:5000/s:2"
    references = [volume["image"]["reference"] for volume in spec["volumes"] if "image" in volume]
    assert references == ["r.example/m@sha256:" + 64 * "0"]


@pytest.mark.usefixtures("kustomize")
def test_a_knob_is_set_and_makes_a_rollout() -> None:
    plain, other = (
        deploy("render", "cpu"),
        deploy("render", "cpu", "--set", "GALATEA_SERVE_LOG=error"),
    )
    assert kind(other.stdout, "ConfigMap")["data"]["GALATEA_SERVE_LOG"] == "error"
    names = [kind(done.stdout, "ConfigMap")["metadata"]["name"] for done in (plain, other)]
    assert names[0] != names[1]


@pytest.mark.usefixtures("kustomize")
def test_a_knob_on_the_command_line_has_the_last_word() -> None:
    order = ("render", "gpu", "--component", "tensorrt-warm")
    for given, knob in ((), "tensorrt"), (["--set", f"{VARIANT}=tensorrt-fp16"], "tensorrt-fp16"):
        done = deploy(*order, *given)
        assert done.returncode == 0, done.stderr
        assert kind(done.stdout, "ConfigMap")["data"][VARIANT] == knob


@pytest.mark.usefixtures("kustomize")
def test_memory_is_made_large_enough_for_a_repository(
    phantom_repository: Path, tmp_path: Path
) -> None:
    small = deploy("render", "cpu", "--repository", phantom_repository)
    assert small.stdout == (RENDERED / "cpu.yaml").read_text("utf-8")  # it is so already
    folder = tmp_path / "large" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(bytes(1 << 20))
    (folder.parent / "config.pbtxt").write_text(
        'name: "large" max_batch_size: 64\n'
        'output { name: "image" data_type: TYPE_UINT8 dims: [1024, 1024, 3] }\n'
    )
    spec = kind(deploy("render", "cpu", "--repository", tmp_path).stdout, "Deployment")
    pod = spec["spec"]["template"]["spec"]
    shm = next(volume for volume in pod["volumes"] if volume["name"] == "shm")
    size = quantity(shm["emptyDir"]["sizeLimit"])
    memory = quantity(pod["containers"][0]["resources"]["limits"]["memory"])
    assert size is not None
    assert memory is not None
    assert size >= 2 * 64 * 1024 * 1024 * 3
    assert memory >= size + (512 << 20)


@pytest.mark.usefixtures("kustomize")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["somewhere"], 5, "name one of: cpu"),
        (["cpu", "--component", "gpus"], 5, "name one of: autoscaling"),
        (["cpu", "--k8s", "nowhere"], 5, "nowhere/overlays: no such folder"),
        (["cpu", "--image", "galatea-server=x:1"], 5, "no container uses an image galatea-server"),
        (["cpu", "--image", "galatea-server-cpu=x"], 5, "would change with the registry"),
        (["cpu", "--image", "galatea-server-cpu"], 2, "write NAME=VALUE"),
        (["cpu", "--set", "GALATEA_SERVE_EXIT=3"], 5, "galatea serve does not know"),
        (["cpu", "--set", "GALATEA_SERVE_EXIT_TIMEOUT=60"], 5, "set it to 80"),
        (["cpu", "--set", "GALATEA_SERVE_MODEL_CONFIG=cuda"], 5, "add the component gpu"),
        (["cpu", "--component", "repository-none"], 5, "nothing at /models"),
        (["gpu-autoscaled", "--replicas", "3"], 5, "every apply would undo its work"),
        (["cpu", "--repository", "nowhere"], 5, "nowhere: no such folder"),
        (["cpu", "-o", "nowhere/x.yaml"], 1, "cannot be written"),
    ],
)
def test_what_cannot_work_is_refused_with_the_next_step(
    arguments: list[str], code: int, words: str
) -> None:
    done = deploy("render", *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stdout == ""


def test_an_old_kustomize_is_refused_and_a_missing_one(tmp_path: Path) -> None:
    done = deploy("render", "cpu", path=str(tmp_path))
    assert done.returncode == 1
    assert "neither kubectl nor kustomize is installed" in done.stderr
    old = tmp_path / "kubectl"  # as Debian has it
    old.write_text('#!/bin/sh\necho \'{"clientVersion": {"major": "1", "minor": "20"}}\'\n')
    old.chmod(0o755)
    done = deploy("render", "cpu", path=str(tmp_path))
    assert done.returncode == 1
    assert "an unknown version" in done.stderr
    assert "install kubectl 1.27" in done.stderr


def test_files_are_checked_without_kustomize(tmp_path: Path) -> None:
    done = deploy("check", *sorted(RENDERED.glob("*.yaml")), path=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "no faults (Kubernetes 1." in done.stdout


def test_faults_are_listed_one_a_line_and_for_programs(tmp_path: Path) -> None:
    text = (RENDERED / "cpu.yaml").read_text("utf-8")
    path = tmp_path / "x.yaml"
    path.write_text(
        text.replace("path: /v2/health/live", "paht: x").replace("seconds: 5", "seconds: 99")
    )
    done = deploy("check", path)
    assert done.returncode == 5
    lines = done.stdout.splitlines()
    assert all(line.startswith(f"{path}: Deployment/galatea-server: ") for line in lines)
    assert any("'paht' was unexpected" in line for line in lines)
    assert any("the end may take 139 s" in line for line in lines)
    (report,) = json.loads(deploy("check", path, "--json").stdout)
    assert len(report["faults"]) == len(lines)
    assert {"object", "field", "problem", "remedy"} == set(report["faults"][0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no manifests"),
        ("a: [", "is no YAML"),
        ("a: 1", "without apiVersion"),
        ("- 1", "without"),
    ],
)
def test_a_file_without_manifests_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    done = deploy("check", tmp_path / "x.yaml")
    assert done.returncode == 5
    assert words in done.stderr


def test_a_version_without_schemas_is_refused() -> None:
    done = deploy("check", RENDERED / "cpu.yaml", "--kubernetes", "1.20")
    assert done.returncode == 5
    assert "name one of: 1." in done.stderr
