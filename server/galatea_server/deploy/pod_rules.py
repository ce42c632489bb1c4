"""What has to fit together within a pod, and with what it names."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import click

from galatea_server.cli import serve
from galatea_server.deploy.manifests import Fault, Manifest, Pod, World, name_of, quantity
from galatea_server.deploy.restricted import restricted

__all__ = ["RULES"]

GPU = "nvidia.com/"
PREFIX = "GALATEA_SERVE_"
EXIT_TIMEOUT = 30  # seconds, the default of `galatea serve`
KILLED_AFTER = 10  # seconds after that
LEAST_MEMORY = 512 << 20  # bytes of a server besides /dev/shm
ENGINES = PurePosixPath("/var/cache/galatea/tensorrt")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def references(world: World, pod: Pod) -> Iterator[Fault]:
    """Everything that a pod names is there, may be missing, or is said to be brought by others."""
    owner = pod.owner

    def missing(kind: str, reference: Any, field: str) -> Iterator[Fault]:
        reference = reference or {}
        name = reference.get("name", reference.get("secretName", reference.get("claimName")))
        if name and not reference.get("optional") and not world.has(kind, name, owner):
            yield Fault(
                name_of(owner), field, f"names {kind}/{name}, which is not there",
                f"add it, or the annotation galatea/expects: {kind}/{name}",
            )  # fmt: skip

    account = pod.spec.get("serviceAccountName")
    if account != "default":
        yield from missing("ServiceAccount", {"name": account}, pod.at("serviceAccountName"))
    for volume in pod.volumes:
        field = pod.at(f"volumes[{volume['name']}]")
        yield from missing("ConfigMap", volume.get("configMap"), field)
        yield from missing("Secret", volume.get("secret"), field)
        yield from missing("PersistentVolumeClaim", volume.get("persistentVolumeClaim"), field)
    for path, container in pod.containers():
        for source in container.get("envFrom") or []:
            yield from missing("ConfigMap", source.get("configMapRef"), f"{path}.envFrom")
            yield from missing("Secret", source.get("secretRef"), f"{path}.envFrom")
        for entry in container.get("env") or []:
            value = entry.get("valueFrom") or {}
            yield from missing("ConfigMap", value.get("configMapKeyRef"), f"{path}.env")
            yield from missing("Secret", value.get("secretKeyRef"), f"{path}.env")


def volumes(_: World, pod: Pod) -> Iterator[Fault]:
    known = {volume["name"] for volume in pod.volumes}
    for path, container in pod.containers():
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in known:
                yield Fault(
                    name_of(pod.owner), f"{path}.volumeMounts",
                    f"mounts the volume {mount['name']!r}, which the pod has not",
                    "add it to volumes; for models, add a component repository-*",
                )  # fmt: skip


def repository(_: World, pod: Pod) -> Iterator[Fault]:
    """A server has models, and cannot change them."""
    for path, container in _servers(pod):
        mounts = [m for m in container.get("volumeMounts") or [] if m["mountPath"] == "/models"]
        if not mounts:
            yield Fault(
                name_of(pod.owner), f"{path}.volumeMounts", "has nothing at /models to serve",
                "add a component repository-*",
            )  # fmt: skip
        for mount in mounts:
            if not mount.get("readOnly"):
                yield Fault(
                    name_of(pod.owner), f"{path}.volumeMounts[{mount['name']}]",
                    "lets the server write to its models", "set readOnly: true",
                )  # fmt: skip


def probes(_: World, pod: Pod) -> Iterator[Fault]:
    for path, container in pod.containers(initial=False):
        ports = {
            port.get(key)
            for port in container.get("ports") or []
            for key in ("name", "containerPort")
        }
        for probe in PROBES:
            action = (container.get(probe) or {}).get("httpGet") or {}
            if action and action.get("port") not in ports:
                yield Fault(
                    name_of(pod.owner), f"{path}.{probe}",
                    f"asks the port {action.get('port')!r}, which the container has not",
                    "name one of its ports",
                )  # fmt: skip
            if probe == "livenessProbe" and action.get("path") == "/v2/health/ready":
                yield Fault(
                    name_of(pod.owner), f"{path}.{probe}",
                    "asks whether the server is ready, and would kill it while it loads",
                    "ask /v2/health/live",
                )  # fmt: skip


def resources(_: World, pod: Pod) -> Iterator[Fault]:
    for path, container in pod.containers():
        given = container.get("resources") or {}
        requests, limits = given.get("requests") or {}, given.get("limits") or {}
        where = name_of(pod.owner), f"{path}.resources"
        if "memory" not in limits:
            yield Fault(*where, "has no limit of memory", "set limits.memory")
        for name in sorted({*requests, *limits}):
            request, limit = quantity(requests.get(name, 0)), quantity(limits.get(name, "1E"))
            if request is None or limit is None:
                yield Fault(
                    *where, f"has a quantity of {name} that is none", "write it as 500m, 2Gi"
                )
            elif request > limit:
                yield Fault(
                    *where, f"requests {requests[name]} of {name} and limits it to {limits[name]}",
                    "let the limit be the larger one",
                )  # fmt: skip
            if name.startswith(GPU):
                amount = quantity(limits.get(name, 0))
                if amount is None or amount < 1 or amount % 1:
                    yield Fault(*where, f"has no whole {name} in its limits", "set it to 1 or more")
                elif name in requests and quantity(requests[name]) != amount:
                    yield Fault(
                        *where, f"requests another {name} than its limit", "make them equal"
                    )


def shared_memory(_: World, pod: Pod) -> Iterator[Fault]:
    """What lies in memory counts as the container's."""
    sizes: dict[str, Decimal] = {}
    for volume in pod.volumes:
        kept = volume.get("emptyDir") or {}
        if kept.get("medium") == "Memory":
            size = quantity(kept.get("sizeLimit", ""))
            if size is None:
                yield Fault(
                    name_of(pod.owner), pod.at(f"volumes[{volume['name']}]"),
                    "may fill the node's memory", "set emptyDir.sizeLimit",
                )  # fmt: skip
            sizes[volume["name"]] = size or Decimal(0)
    for path, container in pod.containers(initial=False):
        mounted = sum(
            (sizes.get(mount["name"], Decimal(0)) for mount in container.get("volumeMounts") or []),
            Decimal(0),
        )
        limit = quantity(((container.get("resources") or {}).get("limits") or {}).get("memory", ""))
        if mounted and limit is not None and limit < mounted + LEAST_MEMORY:
            yield Fault(
                name_of(pod.owner), f"{path}.resources.limits.memory",
                f"is {_mebi(limit)}, with {_mebi(mounted)} of volumes in memory: as they fill, the "
                "server is killed",
                f"give it {_mebi(mounted + LEAST_MEMORY)} or more",
            )  # fmt: skip


def shutdown(world: World, pod: Pod) -> Iterator[Fault]:
    """A server that is taken away loses no request."""
    if pod.owner["kind"] != "Deployment":
        return
    for path, container in _servers(pod):
        sleep = ((container.get("lifecycle") or {}).get("preStop") or {}).get("sleep") or {}
        if not sleep.get("seconds"):
            yield Fault(
                name_of(pod.owner), f"{path}.lifecycle.preStop",
                "does not sleep: Triton stops listening at once, and requests are lost",
                "set sleep.seconds: 5",
            )  # fmt: skip
        told = world.environment(pod, container).get(f"{PREFIX}EXIT_TIMEOUT", str(EXIT_TIMEOUT))
        exit_timeout = int(told) if told.isdecimal() else EXIT_TIMEOUT
        needed = sleep.get("seconds", 0) + exit_timeout + KILLED_AFTER
        grace = pod.spec.get("terminationGracePeriodSeconds", 30)
        if grace <= needed:
            yield Fault(
                name_of(pod.owner), pod.at("terminationGracePeriodSeconds"),
                f"is {grace} s, and the end may take {needed} s: preStop, exit timeout and "
                f"{KILLED_AFTER} s more",
                f"set it to {needed + 5}",
            )  # fmt: skip


def gpus(world: World, pod: Pod) -> Iterator[Fault]:
    owner: Manifest = pod.owner
    for path, container in pod.containers(initial=False):
        limits = (container.get("resources") or {}).get("limits") or {}
        has = any(name.startswith(GPU) for name in limits)
        variant = world.environment(pod, container).get(f"{PREFIX}MODEL_CONFIG", "")
        if variant not in ("", "cpu") and not has:
            yield Fault(
                name_of(owner), f"{path}.resources.limits",
                f"has no GPU for GALATEA_SERVE_MODEL_CONFIG={variant}",
                "add the component gpu or mig",
            )  # fmt: skip
        if variant.startswith("tensorrt") and not _writes(container, ENGINES):
            yield Fault(
                name_of(owner), f"{path}.volumeMounts",
                f"has nothing to write to at {ENGINES}: every start would make the engines anew, "
                "and fail on a read-only root",
                "add the component tensorrt-warm",
            )  # fmt: skip
        strategy = (owner.get("spec") or {}).get("strategy") or {}
        surge = (strategy.get("rollingUpdate") or {}).get("maxSurge", "25%")
        if (
            has
            and owner["kind"] == "Deployment"
            and strategy.get("type", "RollingUpdate") == "RollingUpdate"
            and str(surge) not in ("0", "0%")
        ):
            yield Fault(
                name_of(owner), "spec.strategy.rollingUpdate.maxSurge",
                f"is {surge}: without a free GPU a rollout never ends",
                "set maxSurge: 0 and maxUnavailable: 1",
            )  # fmt: skip


def knobs(world: World, pod: Pod) -> Iterator[Fault]:
    """Variables of `galatea serve` are its options, and have values that it takes."""
    options = {
        PREFIX + max(option.opts, key=len).lstrip("-").replace("-", "_").upper(): option
        for option in serve.params
        if isinstance(option, click.Option) and option.expose_value
    }
    for path, container in _servers(pod):
        for name, value in world.environment(pod, container).items():
            if not name.startswith(PREFIX):
                continue
            if name not in options:
                yield Fault(
                    name_of(pod.owner), f"{path}.env",
                    f"has {name}, which galatea serve does not know",
                    f"name one of: {', '.join(sorted(options))}",
                )  # fmt: skip
                continue
            option = options[name]
            try:
                option.type.convert(value, option, None)
            except click.BadParameter as error:
                yield Fault(
                    name_of(pod.owner), f"{path}.env",
                    f"has {name}={value}, which galatea serve refuses: "
                    f"{error.message.rstrip('.')}",
                    "see: galatea serve --help",
                )  # fmt: skip


def images(_: World, pod: Pod) -> Iterator[Fault]:
    """Images are pinned."""
    named = [(path, container.get("image", "")) for path, container in pod.containers()]
    for volume in pod.volumes:
        if "image" in volume:
            path = pod.at(f"volumes[{volume['name']}]")
            named.append((path, volume["image"].get("reference", "")))
    for path, image in named:
        tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
        if "@sha256:" not in image and tag in ("", "latest"):
            yield Fault(
                name_of(pod.owner), f"{path}.image",
                f"is {image or 'missing'}: what runs would change with the registry",
                "name a release or a digest",
            )  # fmt: skip


def _servers(pod: Pod) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, container in pod.containers(initial=False):
        if container.get("name") == "triton":
            yield path, container


def _writes(container: dict[str, Any], folder: PurePosixPath) -> bool:
    return any(
        folder.is_relative_to(mount["mountPath"]) and not mount.get("readOnly")
        for mount in container.get("volumeMounts") or []
    )


def _mebi(size: Decimal) -> str:
    return f"{int(size) >> 20}Mi"


RULES = (
    references, volumes, repository, probes, resources, shared_memory, shutdown, gpus, knobs,
    images, restricted,
)  # fmt: skip
