"""What a schema cannot see: whether the objects of a rendering fit together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from galatea_server.deploy import pod_rules
from galatea_server.deploy.manifests import Fault, Manifest, Pod, World, expected, name_of

__all__ = ["check"]

LONGEST_PORT_NAME = 15  # of a container; IANA's rule
SCALERS = ("HorizontalPodAutoscaler", "ScaledObject")
WORKLOADS = ("Deployment", "StatefulSet")


def check(manifests: Iterable[Manifest]) -> list[Fault]:
    """All faults, in the order of the objects' names."""
    world = World(manifests)
    found = {fault for rule in RULES for fault in rule(world)}
    found |= {fault for rule in pod_rules.RULES for pod in world.pods for fault in rule(world, pod)}
    return sorted(found)


def duplicates(world: World) -> Iterator[Fault]:
    keys = Counter(
        (name_of(manifest), manifest["apiVersion"], manifest["metadata"].get("namespace", ""))
        for manifest in world.manifests
    )
    for (name, _, _), count in keys.items():
        if count > 1:
            yield Fault(
                name, "metadata.name", f"is there {count} times, and the last one would win",
                "give one of them another name",
            )  # fmt: skip


def selectors(world: World) -> Iterator[Fault]:
    """A workload owns the pods that it makes."""
    for pod in world.pods:
        if pod.owner["kind"] not in (*WORKLOADS, "DaemonSet", "ReplicaSet"):
            continue
        wanted = (_spec(pod.owner).get("selector") or {}).get("matchLabels") or {}
        if not wanted or not wanted.items() <= pod.labels.items():
            yield Fault(
                name_of(pod.owner), "spec.selector.matchLabels",
                f"is {_labels(wanted)}, and the pods {_labels(pod.labels)}: none would be owned",
                "give the template's metadata.labels all labels of the selector",
            )  # fmt: skip


def services(world: World) -> Iterator[Fault]:
    for service in world.of("Service"):
        spec = _spec(service)
        if not spec.get("selector"):
            continue
        pods = world.selected(spec["selector"], service)
        if not pods:
            yield _selects_none(service, "spec.selector", spec["selector"])
            continue
        for port in spec.get("ports") or []:
            target = port.get("targetPort", port.get("port"))
            if not any(pod.knows_port(target) for pod in pods):
                yield _no_port(service, f"spec.ports[{port.get('name')}].targetPort", target, pods)


def policies(world: World) -> Iterator[Fault]:
    """Disruption budgets and network policies are about pods that there are."""
    for policy in world.of("PodDisruptionBudget", "NetworkPolicy"):
        spec = _spec(policy)
        field = "selector" if policy["kind"] == "PodDisruptionBudget" else "podSelector"
        wanted = (spec.get(field) or {}).get("matchLabels") or {}
        pods = world.selected(wanted, policy) if wanted else world.pods
        if not pods:
            if not any(entry.startswith("Pod/") for entry in expected(policy)):
                yield _selects_none(policy, f"spec.{field}.matchLabels", wanted)
            continue
        for k, rule in enumerate(spec.get("ingress") or []):
            for port in rule.get("ports") or []:
                if not any(pod.knows_port(port.get("port")) for pod in pods):
                    yield _no_port(policy, f"spec.ingress[{k}].ports", port.get("port"), pods)


def scalers(world: World) -> Iterator[Fault]:
    """An autoscaler has something to scale, alone, and nobody else says how many."""
    targets = Counter[str]()
    for scaler in world.of(*SCALERS):
        spec = _spec(scaler)
        reference = spec.get("scaleTargetRef") or {}
        kind, name = reference.get("kind", "Deployment"), reference.get("name", "")
        target = world.find(kind, name, scaler)
        if target is None:
            yield Fault(
                name_of(scaler), "spec.scaleTargetRef", f"names {kind}/{name}, which is not there",
                "name a Deployment of this rendering",
            )  # fmt: skip
            continue
        targets[name_of(target)] += 1
        if targets[name_of(target)] > 1:
            yield Fault(
                name_of(scaler), "spec.scaleTargetRef",
                f"names {kind}/{name}, which another autoscaler scales too: they would fight",
                "use one of the components autoscaling and keda",
            )  # fmt: skip
        if "replicas" in _spec(target):
            yield Fault(
                name_of(target), "spec.replicas",
                f"is set, and {name_of(scaler)} sets it too: every apply would undo its work",
                "leave it out",
            )  # fmt: skip
        low, high = (
            spec.get(f"{end}Replicas", spec.get(f"{end}ReplicaCount")) for end in ("min", "max")
        )
        if low is not None and high is not None and low > high:
            yield Fault(
                name_of(scaler), "spec", f"has at least {low} and at most {high} replicas",
                "let the smaller number be the minimum",
            )  # fmt: skip


def monitors(world: World) -> Iterator[Fault]:
    for monitor in world.of("ServiceMonitor"):
        wanted = (_spec(monitor).get("selector") or {}).get("matchLabels") or {}
        found = [
            service
            for service in world.of("Service")
            if wanted.items() <= (service["metadata"].get("labels") or {}).items()
        ]
        if not found:
            yield Fault(
                name_of(monitor), "spec.selector.matchLabels",
                f"is {_labels(wanted)}, which no Service has: nothing would be scraped",
                "give it the labels of the Service",
            )  # fmt: skip
            continue
        names = {port.get("name") for service in found for port in _spec(service).get("ports", [])}
        for endpoint in _spec(monitor).get("endpoints") or []:
            if endpoint.get("port") not in names:
                yield Fault(
                    name_of(monitor), "spec.endpoints",
                    f"names the port {endpoint.get('port')!r}, which the Service has not",
                    f"name one of: {', '.join(sorted(filter(None, names)))}",
                )  # fmt: skip


def routes(world: World) -> Iterator[Fault]:
    for route in world.of("GRPCRoute", "HTTPRoute"):
        for parent in _spec(route).get("parentRefs") or []:
            kind = parent.get("kind", "Gateway")
            if "namespace" in parent or world.has(kind, parent["name"], route):
                continue
            yield Fault(
                name_of(route), "spec.parentRefs",
                f"names {kind}/{parent['name']}, which is not there",
                f"add it, or annotate the route with galatea/expects: {kind}/{parent['name']}",
            )  # fmt: skip
        for rule in _spec(route).get("rules") or []:
            for backend in rule.get("backendRefs") or []:
                service = world.find("Service", backend["name"], route)
                ports = [port.get("port") for port in _spec(service or {}).get("ports") or []]
                if backend.get("port") not in ports:
                    yield Fault(
                        name_of(route), "spec.rules.backendRefs",
                        f"names {backend['name']}:{backend.get('port')}, which no Service is",
                        "name a Service and one of its ports",
                    )  # fmt: skip
    for gateway in world.of("Gateway"):
        for listener in _spec(gateway).get("listeners") or []:
            for reference in (listener.get("tls") or {}).get("certificateRefs") or []:
                if not world.has("Secret", reference["name"], gateway):
                    yield Fault(
                        name_of(gateway), f"spec.listeners[{listener.get('name')}].tls",
                        f"names Secret/{reference['name']}, which is not there",
                        f"annotate it with galatea/expects: Secret/{reference['name']}",
                    )  # fmt: skip


def port_names(world: World) -> Iterator[Fault]:
    for pod in world.pods:
        seen: set[str] = set()
        for path, port in pod.ports():
            name = port.get("name")
            if name is None:
                continue
            if len(name) > LONGEST_PORT_NAME or not re.fullmatch(r"(?=.*[a-z])[a-z0-9-]+", name):
                yield Fault(
                    name_of(pod.owner), path,
                    "has a name that Kubernetes refuses",
                    f"use at most {LONGEST_PORT_NAME} small letters, digits and hyphens",
                )  # fmt: skip
            if name in seen:
                yield Fault(
                    name_of(pod.owner),
                    path,
                    "has a name that another port has",
                    "name it otherwise",
                )
            seen.add(name)


def _spec(manifest: Manifest) -> dict[str, Any]:
    return manifest.get("spec") or {}


def _labels(labels: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or "empty"


def _selects_none(manifest: Manifest, field: str, wanted: dict[str, str]) -> Fault:
    return Fault(
        name_of(manifest), field, f"is {_labels(wanted)}, which no pod here is",
        "give it labels of a pod template, or the annotation galatea/expects: Pod/NAME",
    )  # fmt: skip


def _no_port(manifest: Manifest, field: str, port: object, pods: list[Pod]) -> Fault:
    names = sorted(
        str(p.get("name", p.get("containerPort"))) for pod in pods for _, p in pod.ports()
    )
    return Fault(
        name_of(manifest), field, f"is {port}, which no container listens on",
        f"name one of: {', '.join(dict.fromkeys(names))}",
    )  # fmt: skip


RULES = (duplicates, selectors, services, policies, scalers, monitors, routes, port_names)
