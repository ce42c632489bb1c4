"""A real Docker Engine for the tests, and the images that they run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import DockerException

from support import ROOT

DOCKERFILES = sorted((ROOT / "containers").glob("*.Dockerfile"))
SHAPED = "galatea-test/tritonserver"  # stands in for NVIDIA's image


@cache
def engine() -> Any:
    """The engine's client.

    Skips the test where no engine answers.
    """
    try:
        client = docker.from_env()
        client.ping()
    except DockerException:
        pytest.skip("no Docker Engine answers")
    return client


@cache
def build(image: str) -> str:
    """An image as ``make`` builds it; its name."""
    if image == "galatea-server":
        return _build_for_gpus()
    done = subprocess.run(
        ["make", "--silent", f"image-{image.removeprefix('galatea-')}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return f"{image}:{version('galatea')}"


def running() -> set[str]:
    """Names of all servers in containers."""
    found = engine().containers.list(all=True, filters={"label": "galatea"})
    return {container.name for container in found}


@contextmanager
def container(image: str, command: list[str], **options: Any) -> Iterator[Any]:
    """A container that can do nothing but run, and is removed in the end."""
    made = engine().containers.run(
        image, command, detach=True, read_only=True, cap_drop=["ALL"],
        security_opt=["no-new-privileges"], tmpfs={"/tmp": "rw"}, **options,
    )  # fmt: skip
    try:
        yield made
    finally:
        made.remove(force=True)


def run(image: str, *command: str, **options: Any) -> str:
    """What a container says that ends by itself, and well."""
    with container(image, list(command), **options) as made:
        status = made.wait(timeout=300)["StatusCode"]
        said: str = made.logs().decode()
        assert status == 0, said
        return said


def open_folder(folder: Path) -> Path:
    """A new folder that the containers' user may write to."""
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def mounted(**folders: Path) -> Mapping[str, Mapping[str, str]]:
    """Folders of this machine by where they are in the container, writable."""
    return {str(path): {"bind": f"/{name}", "mode": "rw"} for name, path in folders.items()}


def _build_for_gpus() -> str:
    base = build("galatea-server-cpu")
    client = engine()
    client.images.build(
        path=str(ROOT / "tests" / "containers"), dockerfile="tritonserver.Dockerfile",
        buildargs={"SERVER": base}, tag=SHAPED, rm=True,
    )  # fmt: skip
    client.images.build(
        path=str(ROOT), dockerfile="containers/server.Dockerfile",
        buildargs={"TRITON_IMAGE": SHAPED}, tag="galatea-test/server", rm=True,
    )  # fmt: skip
    return "galatea-test/server"
