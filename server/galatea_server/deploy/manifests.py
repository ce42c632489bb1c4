"""Kubernetes manifests as data: read, written, and the pods that they make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import yaml

from galatea.errors import InvalidInput

__all__ = ["Fault", "Manifest", "Pod", "World", "dump", "load", "name_of", "quantity"]

Manifest = dict[str, Any]

EXPECTS = "galatea/expects"  # annotation: what others bring, as Kind/name, separated by commas

TEMPLATES = {
    "Deployment": "spec.template",
    "StatefulSet": "spec.template",
    "DaemonSet": "spec.template",
    "ReplicaSet": "spec.template",
    "Job": "spec.template",
    "CronJob": "spec.jobTemplate.spec.template",
    "Pod": "",
}

# What must be there before what follows, for clients that apply one object after the other.
ORDER = (
    "Namespace", "PersistentVolumeClaim", "ServiceAccount", "Secret", "ConfigMap", "Service",
    "Deployment", "Job",
)  # fmt: skip

_FACTORS = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    **{unit: Decimal(1000) ** (k + 1) for k, unit in enumerate("kMGTPE")},
    **{f"{unit}i": Decimal(1024) ** (k + 1) for k, unit in enumerate("KMGTPE")},
}  # fmt: skip


@dataclass(frozen=True, order=True)
class Fault:
    """Something that will go wrong on a cluster.

    Attributes:
        object: kind and name.
        field: path of the field in it.
        problem: what is wrong with it, and why it matters.
        remedy: what to write instead.
    """

    object: str
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.object}: {self.field} {self.problem}; {self.remedy}"


@dataclass(frozen=True)
class Pod:
    """A pod template, or a pod.

    Attributes:
        owner: the manifest that it is in.
        path: of the template in that manifest; empty for a pod.
        template: with metadata and spec.
    """

    owner: Manifest
    path: str
    template: Manifest

    @property
    def spec(self) -> dict[str, Any]:
        return self.template.get("spec") or {}

    @property
    def labels(self) -> dict[str, str]:
        return (self.template.get("metadata") or {}).get("labels") or {}

    @property
    def volumes(self) -> list[dict[str, Any]]:
        return self.spec.get("volumes") or []

    def containers(self, *, initial: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
        """(path in the owner, container) of each, with the initial ones unless told otherwise."""
        for key in ("initContainers", "containers") if initial else ("containers",):
            for container in self.spec.get(key) or []:
                yield self.at(f"{key}[{container.get('name', '')}]"), container

    def at(self, field: str) -> str:
        """Path in the owner of a field of the pod's spec."""
        return f"{self.path}.spec.{field}" if self.path else f"spec.{field}"

    def ports(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(path in the owner, port) of all containers."""
        for path, container in self.containers():
            for port in container.get("ports") or []:
                yield f"{path}.ports[{port.get('name', port.get('containerPort'))}]", port

    def knows_port(self, port: str | int | None) -> bool:
        """Whether a container has a port with this name or number."""
        return any(port in (p.get("name"), p.get("containerPort")) for _, p in self.ports())


class World:
    """All objects of one rendering."""

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        self.manifests = list(manifests)

    @cached_property
    def pods(self) -> list[Pod]:
        """All pod templates."""
        found = []
        for manifest in self.manifests:
            path = TEMPLATES.get(manifest["kind"])
            if path is not None:
                template: Any = manifest
                for key in filter(None, path.split(".")):
                    template = template.get(key) or {}
                found.append(Pod(manifest, path, template))
        return found

    def of(self, *kinds: str) -> list[Manifest]:
        """The objects of some kinds."""
        return [manifest for manifest in self.manifests if manifest["kind"] in kinds]

    def find(self, kind: str, name: str, beside: Manifest) -> Manifest | None:
        """An object by name in the namespace of another one."""
        for manifest in self.of(kind):
            if _metadata(manifest)["name"] == name and _namespace(manifest) == _namespace(beside):
                return manifest
        return None

    def has(self, kind: str, name: str, beside: Manifest) -> bool:
        """Whether an object is there, or `beside` says by an annotation that others bring it."""
        return self.find(kind, name, beside) is not None or f"{kind}/{name}" in expected(beside)

    def selected(self, labels: dict[str, str], beside: Manifest) -> list[Pod]:
        """The pods in the namespace of an object that have all of these labels."""
        return [
            pod
            for pod in self.pods
            if labels.items() <= pod.labels.items() and _namespace(pod.owner) == _namespace(beside)
        ]

    def environment(self, pod: Pod, container: dict[str, Any]) -> dict[str, str]:
        """The variables of a container, as far as they are written in the manifests."""
        found: dict[str, str] = {}
        for source in container.get("envFrom") or []:
            name = (source.get("configMapRef") or {}).get("name")
            settings = self.find("ConfigMap", name, pod.owner) if name else None
            for key, value in ((settings or {}).get("data") or {}).items():
                found[source.get("prefix", "") + key] = value
        for entry in container.get("env") or []:
            if "value" in entry:
                found[entry["name"]] = entry["value"]
        return found


def load(text: str, origin: str) -> list[Manifest]:
    """The manifests of a YAML stream, lists taken apart.

    Raises:
        InvalidInput: it is no YAML, there is nothing in it, or something that is no object of
            Kubernetes.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"{origin}: is no YAML ({reason})", "render it again") from error
    manifests = [manifest for document in documents for manifest in _unpack(document, origin)]
    if not manifests:
        raise InvalidInput(f"{origin}: holds no manifests", "render it again")
    return manifests


def dump(manifests: Iterable[Manifest]) -> str:
    """YAML that depends on the content alone, not on kustomize or the order of patches."""
    ordered = sorted(
        manifests,
        key=lambda m: (
            ORDER.index(m["kind"]) if m["kind"] in ORDER else len(ORDER),
            m["kind"],
            _namespace(m),
            _metadata(m)["name"],
        ),
    )
    return "---\n".join(yaml.dump(m, Dumper=_Dumper, width=100) for m in ordered)


def name_of(manifest: Manifest) -> str:
    """Kind and name, as kubectl writes them."""
    return f"{manifest['kind']}/{_metadata(manifest)['name']}"


def expected(manifest: Manifest) -> set[str]:
    """What the object says that others bring."""
    written = (_metadata(manifest).get("annotations") or {}).get(EXPECTS, "")
    return {entry.strip() for entry in written.split(",") if entry.strip()}


def quantity(value: object) -> Decimal | None:
    """A number of cores, bytes or devices; None for what is none."""
    match = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?\d+)?)([numkMGTPE]?|[KMGTPE]i)", str(value))
    if match is None:
        return None
    try:
        return Decimal(match[1]) * _FACTORS[match[2]]
    except ArithmeticError:
        return None


def _unpack(document: Any, origin: str) -> Iterator[Manifest]:
    if isinstance(document, dict) and document.get("kind") == "List":
        for item in document.get("items") or []:
            yield from _unpack(item, origin)
        return
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if (
        not isinstance(metadata, dict)
        or not isinstance(metadata.get("name", metadata.get("generateName")), str)
        or not all(isinstance(document.get(key), str) for key in ("apiVersion", "kind"))
    ):
        raise InvalidInput(
            f"{origin}: has a document without apiVersion, kind or metadata.name",
            "name a file with rendered manifests, or a folder with a kustomization.yaml",
        )
    metadata.setdefault("name", metadata.get("generateName"))
    yield document


def _metadata(manifest: Manifest) -> dict[str, Any]:
    metadata: dict[str, Any] = manifest["metadata"]
    return metadata


def _namespace(manifest: Manifest) -> str:
    return str(_metadata(manifest).get("namespace", ""))


class _Dumper(yaml.SafeDumper):
    """Text of several lines as such, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
