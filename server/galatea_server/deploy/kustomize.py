"""Renders overlays and components with the user's own kustomize."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from galatea.errors import InvalidInput, MachineError
from galatea_server.deploy.manifests import Manifest, World, load, quantity

__all__ = ["Order", "Sizes", "builder", "render"]

OLDEST = (5, 0)  # of kustomize; kubectl brings it from 1.27 on
CONFIG = "kustomization.yaml"
HEAD = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
INNER = "overlay"
SERVER = "galatea-server"  # name of the Deployment and of the ConfigMap
CONTAINER = "triton"
SHM = "shm"  # its volume for /dev/shm
MEBI = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """What serving a repository takes, in bytes.

    Attributes:
        shared_memory: of /dev/shm.
        memory: of the container, /dev/shm included.
    """

    shared_memory: int
    memory: int


@dataclass(frozen=True)
class Order:
    """What is rendered.

    Attributes:
        overlay: folder with a ``kustomization.yaml``.
        components: folders that are put on top of it, in this order.
        namespace: for all objects.
        images: references by the names that they replace.
        replicas: servers.
        settings: GALATEA_SERVE_* variables of the servers.
        sizes: what the servers need at least.
    """

    overlay: Path
    components: Sequence[Path] = ()
    namespace: str | None = None
    images: Mapping[str, str] = field(default_factory=dict)
    replicas: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    sizes: Sizes | None = None


def render(order: Order) -> list[Manifest]:
    """The objects that an order makes.

    Raises:
        MachineError: there is no kustomize, or one that is too old.
        InvalidInput: a folder is none of kustomize, or it refuses them; or there is no such image.
    """
    for folder in (order.overlay, *order.components):
        if not (folder / CONFIG).is_file():
            raise InvalidInput(f"{folder}: has no {CONFIG}", "name a folder that has one")
    command = builder()
    with tempfile.TemporaryDirectory(prefix="galatea-") as scratch:
        # Kustomize takes no absolute paths.
        top = Path(scratch).resolve()
        for folder, config in ((top, _top(order)), (top / INNER, _inner(order, top / INNER))):
            folder.mkdir(exist_ok=True)
            content = yaml.safe_dump({**HEAD, **config}, sort_keys=False)
            (folder / CONFIG).write_text(content, "utf-8")
        done = subprocess.run(
            [*command, str(top)], capture_output=True, text=True, encoding="utf-8", check=False
        )
    if done.returncode:
        words = done.stderr.strip().splitlines()
        raise InvalidInput(
            f"{order.overlay}: kustomize refuses it: {words[-1] if words else 'without a word'}",
            f"see all of it: {' '.join(command)} {order.overlay}",
        )
    manifests = load(done.stdout, str(order.overlay))
    _rename(manifests, order.images)
    if order.sizes is not None:
        _enlarge(manifests, order.sizes)
    return manifests


def builder() -> list[str]:
    """The command that renders a folder: kubectl's kustomize, or kustomize itself.

    Raises:
        MachineError: there is neither, or both are too old.
    """
    found = []
    for program, ask, build in (
        ("kubectl", ["version", "--client", "--output=json"], ["kustomize"]),
        ("kustomize", ["version"], ["build"]),
    ):
        path = shutil.which(program)
        if path is None:
            continue
        version = _version(path, ask)
        if version is not None and version >= OLDEST:
            return [path, *build]
        told = ".".join(map(str, version)) if version else "an unknown version"
        found.append(f"{path} has kustomize {told}")
    raise MachineError(
        "; ".join(found) or "neither kubectl nor kustomize is installed",
        "install kubectl 1.27 or kustomize 5.0 or newer, and put it first on PATH",
    )


def _version(path: str, arguments: Sequence[str]) -> tuple[int, int] | None:
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    told = done.stdout
    if told.lstrip().startswith("{"):
        try:
            told = str(json.loads(told).get("kustomizeVersion", ""))
        except ValueError:
            return None
    match = re.search(r"v?(\d+)\.(\d+)\.\d+", told)
    return (int(match[1]), int(match[2])) if match else None


def _inner(order: Order, place: Path) -> dict[str, Any]:
    """The overlay with further components."""
    # Objects that are there already would be refused; patches are made again: the last ones count.
    has = {(order.overlay / entry).resolve() for entry in _read(order.overlay, "components")}
    wanted = [
        folder.resolve()
        for folder in order.components
        if folder.resolve() not in has or not _adds_objects(folder)
    ]
    config: dict[str, Any] = {"resources": [os.path.relpath(order.overlay.resolve(), place)]}
    if wanted:
        config["components"] = [os.path.relpath(folder, place) for folder in wanted]
    return config


def _top(order: Order) -> dict[str, Any]:
    """What is said on the command line, above the components, so that it has the last word."""
    config: dict[str, Any] = {"resources": [INNER]}
    if order.namespace is not None:
        config["namespace"] = order.namespace
    if order.replicas is not None:
        config["replicas"] = [{"name": SERVER, "count": order.replicas}]
    if order.settings:
        literals = [f"{key}={value}" for key, value in order.settings.items()]
        config["configMapGenerator"] = [{"name": SERVER, "behavior": "merge", "literals": literals}]
    return config


def _adds_objects(folder: Path) -> bool:
    generators = _read(folder, "configMapGenerator")
    return bool(_read(folder, "resources")) or any("behavior" not in each for each in generators)


def _read(folder: Path, key: str) -> list[Any]:
    """A list of a kustomization; empty where it cannot be read, which kustomize then says."""
    try:
        config = yaml.safe_load((folder / CONFIG).read_text("utf-8"))
        return list(config.get(key) or [])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError):
        return []


def _enlarge(manifests: Sequence[Manifest], sizes: Sizes) -> None:
    """Gives the servers what they need where they have less."""
    for pod in World(manifests).pods:
        for _, container in pod.containers(initial=False):
            if container["name"] != CONTAINER:
                continue
            for volume in pod.volumes:
                if volume["name"] == SHM:
                    _raise(volume["emptyDir"], "sizeLimit", sizes.shared_memory)
            for kind in ("requests", "limits"):
                _raise(container["resources"][kind], "memory", sizes.memory)


def _raise(holder: dict[str, Any], key: str, needed: int) -> None:
    if needed > (quantity(holder.get(key, 0)) or 0):
        holder[key] = f"{-(-needed // MEBI)}Mi"


def _rename(manifests: Sequence[Manifest], images: Mapping[str, str]) -> None:
    """Puts other images in place; kustomize itself leaves out those of volumes."""
    used = set()
    for holder, key in _references(manifests):
        name = _image_name(holder[key])
        used.add(name)
        if name in images:
            holder[key] = images[name]
    for name in images:
        if name not in used:
            raise InvalidInput(
                f"no container uses an image {name}", f"name one of: {', '.join(sorted(used))}"
            )


def _references(manifests: Sequence[Manifest]) -> Iterator[tuple[dict[str, Any], str]]:
    for pod in World(manifests).pods:
        for _, container in pod.containers():
            if "image" in container:
                yield container, "image"
        for volume in pod.volumes:
            if "reference" in (volume.get("image") or {}):
                yield volume["image"], "reference"


def _image_name(reference: str) -> str:
    name = reference.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name
