"""The rules and schemas find what would go wrong on a cluster, and tell the remedy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from galatea_server.deploy.manifests import Fault, Manifest, load
from galatea_server.deploy.rules import check
from galatea_server.deploy.schema import check_schema
from support import ROOT


def rendered(name: str) -> list[Manifest]:
    path = ROOT / "k8s" / "rendered" / f"{name}.yaml"
    return load(path.read_text("utf-8"), str(path))


def only(manifests: list[Manifest], kind: str) -> Any:
    return next(manifest for manifest in manifests if manifest["kind"] == kind)


Plant = Callable[[list[Manifest], dict[str, Any], dict[str, Any]], None]


def planted(change: Plant, manifests: list[Manifest]) -> list[Fault]:
    """The faults of an overlay after a change to it, its pod or its container."""
    manifests = copy.deepcopy(manifests)
    pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
    change(manifests, pod, pod["containers"][0])
    return check(manifests)


def put(path: str, value: object) -> Plant:
    """Sets a field of the container, or takes it away."""

    def change(_: list[Manifest], pod: dict[str, Any], container: dict[str, Any]) -> None:
        *keys, last = path.split(".")
        holder: Any = container
        for key in keys:
            holder = holder[int(key) if key.isdecimal() else key]
        at = int(last) if last.isdecimal() else last
        if value is None:
            del holder[at]
        else:
            holder[at] = value

    return change


def of_pod(path: str, value: object) -> Plant:
    return lambda manifests, pod, _: put(path, value)(manifests, pod, pod)


def of(kind: str, path: str, value: object) -> Plant:
    return lambda manifests, pod, _: put(path, value)(manifests, pod, only(manifests, kind))


def knob(name: str, value: str) -> Plant:
    return of("ConfigMap", f"data.{name}", value)


def without(kind: str) -> Plant:
    return lambda manifests, *_: manifests.remove(only(manifests, kind))


def twice(manifests: list[Manifest], *_: object) -> None:
    manifests.append(copy.deepcopy(only(manifests, "Service")))


def lonely(kind: str, **spec: object) -> Plant:
    def change(manifests: list[Manifest], *_: object) -> None:
        api = {"PodDisruptionBudget": "policy/v1", "NetworkPolicy": "networking.k8s.io/v1"}
        version = api.get(kind, "autoscaling/v2")
        other = {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec}
        manifests.append(other)

    return change


CPU = {
    "a selector that owns no pod": (
        of("Deployment", "spec.template.metadata.labels", {"app": "x"}), "none would be owned"),
    "a service of nothing": (of("Service", "spec.selector", {"app": "x"}), "no pod here is"),
    "a service's port": (
        of("Service", "spec.ports.0.targetPort", "rpc"), "is rpc, which no container listens on"),
    "an object twice": (twice, "is there 2 times"),
    "no config map": (without("ConfigMap"), "names ConfigMap/galatea-server"),
    "no account": (without("ServiceAccount"), "names ServiceAccount/galatea-server"),
    "no volume": (of_pod("volumes", []), "which the pod has not"),
    "no claim": (
        of_pod("volumes.0", {"name": "models", "persistentVolumeClaim": {"claimName": "c"}}),
        "names PersistentVolumeClaim/c"),
    "no secret": (put("envFrom", [{"secretRef": {"name": "s"}}]), "names Secret/s"),
    "no models": (put("volumeMounts", []), "nothing at /models"),
    "models that can be changed": (put("volumeMounts.0.readOnly", False), "write to its models"),
    "a probe's port": (put("readinessProbe.httpGet.port", "web"), "asks the port 'web'"),
    "liveness by readiness": (
        put("livenessProbe.httpGet.path", "/v2/health/ready"), "would kill it while it loads"),
    "a port's name": (put("ports.0.name", "inference-requests"), "a name that Kubernetes refuses"),
    "two ports of a name": (put("ports.0.name", "grpc"), "that another port has"),
    "no limit of memory": (put("resources.limits", {}), "has no limit of memory"),
    "more than the limit": (put("resources.requests.memory", "9Gi"), "requests 9Gi of memory"),
    "no quantity": (put("resources.requests.cpu", "half"), "a quantity of cpu that is none"),
    "half a GPU": (
        put("resources.limits", {"memory": "1Gi", "nvidia.com/gpu": "500m"}), "no whole nvidia"),
    "a GPU that is only asked for": (
        put("resources.requests", {"nvidia.com/gpu": "1"}), "no whole nvidia.com/gpu"),
    "a surge of GPUs": (
        put("resources.limits", {"memory": "1Gi", "nvidia.com/gpu": "1"}), "a rollout never ends"),
    "CUDA without a GPU": (knob("GALATEA_SERVE_MODEL_CONFIG", "cuda"), "has no GPU for"),
    "TensorRT without a cache": (
        knob("GALATEA_SERVE_MODEL_CONFIG", "tensorrt"), "would make the engines anew"),
    "shm as large as the memory": (
        of_pod("volumes.1.emptyDir.sizeLimit", "1Gi"), "is 1024Mi, with 1024Mi of volumes"),
    "shm without a limit": (of_pod("volumes.1.emptyDir", {"medium": "Memory"}), "fill the node's"),
    "no preStop": (put("lifecycle", {}), "and requests are lost"),
    "a short grace": (of_pod("terminationGracePeriodSeconds", 45), "is 45 s, and the end may"),
    "a long exit": (knob("GALATEA_SERVE_EXIT_TIMEOUT", "300"), "the end may take 315 s"),
    "an unknown knob": (knob("GALATEA_SERVE_EXIT_TIME", "3"), "galatea serve does not know"),
    "a knob's value": (knob("GALATEA_SERVE_LOG", "loud"), "GALATEA_SERVE_LOG=loud"),
    "no tag": (put("image", "galatea-server-cpu"), "would change with the registry"),
    "latest": (put("image", "r.example:5000/x:latest"), "would change with the registry"),
    "root": (of_pod("securityContext.runAsUser", 0), "may run as root"),
    "perhaps root": (of_pod("securityContext.runAsNonRoot", None), "may run as root"),
    "no seccomp": (of_pod("securityContext.seccompProfile", None), "no seccomp profile"),
    "privileges": (put("securityContext.allowPrivilegeEscalation", None), "allows more privileges"),
    "privileged": (put("securityContext.privileged", True), "is privileged"),
    "capabilities": (put("securityContext.capabilities.drop", []), "keeps capabilities"),
    "more capabilities": (
        put("securityContext.capabilities.add", ["SYS_ADMIN"]), "adds capabilities"),
    "a root that can be written": (
        put("securityContext.readOnlyRootFilesystem", False), "change its image's files"),
    "the node's network": (of_pod("hostNetwork", True), "is refused by Pod Security"),
    "the node's files": (
        of_pod("volumes.0", {"name": "models", "hostPath": {"path": "/models"}}),
        "of a kind that Pod Security refuses"),
    "the node's port": (put("ports.0.hostPort", 80), "takes a port of the node"),
    "a budget for nothing": (
        lonely("PodDisruptionBudget", selector={"matchLabels": {"app": "x"}}), "no pod here is"),
    "a policy for nothing": (
        lonely("NetworkPolicy", podSelector={"matchLabels": {"app": "x"}}), "no pod here is"),
    "a policy's port": (
        lonely("NetworkPolicy", podSelector={}, ingress=[{"ports": [{"port": "web"}]}]),
        "is web, which no container listens on"),
    "an autoscaler of nothing": (
        lonely("HorizontalPodAutoscaler", scaleTargetRef={"kind": "Deployment", "name": "x"}),
        "names Deployment/x, which is not there"),
}  # fmt: skip

AUTOSCALED = {
    "replicas beside an autoscaler": (
        of("Deployment", "spec.replicas", 2), "every apply would undo its work"),
    "a minimum above the maximum": (
        of("HorizontalPodAutoscaler", "spec.minReplicas", 9), "has at least 9 and at most 4"),
    "a monitor of nothing": (
        of("ServiceMonitor", "spec.selector.matchLabels", {"app": "x"}), "would be scraped"),
    "a monitor's port": (of("ServiceMonitor", "spec.endpoints.0.port", "web"), "the port 'web'"),
    "a policy for pods that others bring": (
        of("NetworkPolicy", "spec.podSelector.matchLabels", {"app": "x"}), None),
}  # fmt: skip


@pytest.mark.parametrize(("overlay", "fault"), [
    *(("cpu", fault) for fault in CPU),
    *(("gpu-autoscaled", fault) for fault in AUTOSCALED),
])  # fmt: skip
def test_a_planted_fault_is_found_and_tells_its_remedy(overlay: str, fault: str) -> None:
    change, words = {**CPU, **AUTOSCALED}[fault]
    faults = planted(change, rendered(overlay))
    if words is None:  # excused by its annotation
        assert faults == []
        return
    assert any(words in str(found) for found in faults), [str(found) for found in faults]
    assert all(found.object and found.field and found.remedy for found in faults)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("imagePullpolicy", "Always"), "imagePullpolicy"),
        (of("Deployment", "spec.template.spec.terminationGracePeriodSeconds", "60"), "'60'"),
        (of("Deployment", "apiVersion", "extensions/v1beta1"), "is not known to Kubernetes"),
        (of("PrometheusRule", "spec.groups.0.rules.0.exprs", "up"), "exprs"),
        (of("ServiceMonitor", "spec.endpoints.0.interval", "15"), "'15'"),
        (of("ServiceMonitor", "kind", "ServiceMonitors"), "is not known to Kubernetes"),
    ],
)
def test_the_schemas_are_strict_also_for_extensions(change: Plant, words: str) -> None:
    manifests = rendered("gpu-autoscaled")
    pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
    change(manifests, pod, pod["containers"][0])
    (fault,) = check_schema(manifests)
    assert words in fault.problem
