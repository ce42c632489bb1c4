"""The Jobs that make a data set on a cluster: workers, and one that joins their parts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["DataSet", "Destination", "Workers", "jobs"]

LONGEST = 30  # letters of the model in a Job's name, which with an index may have 63
DATA, LABELS = "/data", "/etc/galatea"  # where a claim and the labels are mounted
KEPT = 7 * 24 * 3600  # seconds that Jobs which have ended can be looked at
MERGE_RETRIES = 3
# Exit codes that every worker would end with, however often: wrong usage, and an order that the
# model does not allow or a place that holds another data set. 4, no such model or version, is none
# of them: what is served can change again.
HOPELESS = (2, 5)


@dataclass(frozen=True)
class Destination:
    """Where a data set goes.

    Attributes:
        output: as the workers name it, a URL or a folder.
        claim: that is mounted for it; "" where it is a URL.
    """

    output: str
    claim: str = ""


@dataclass(frozen=True)
class DataSet:
    """What is made; see ``galatea generate``.

    Attributes:
        model: name of the generator.
        n: number of images.
        seed: of the first one.
        plan: further arguments of ``galatea generate``.
        labels: a class for each image; empty where `plan` says it.
        destination: where it goes.
    """

    model: str
    n: int
    seed: int
    plan: Sequence[str]
    labels: Sequence[str]
    destination: Destination

    @property
    def name(self) -> str:
        """Name of the Job: one for each order, which is so never carried out twice at once.

        How many workers there are plays no part in it.
        """
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        model = re.sub("[^a-z0-9]+", "-", self.model.lower())[:LONGEST].strip("-")
        return "-".join(filter(None, ("galatea-generate", model, digest[:8])))


@dataclass(frozen=True)
class Workers:
    """How it is made.

    Attributes:
        shards: parts of the data set, each made by one worker.
        parallelism: workers at a time.
        image: of galatea's client.
        urls: of the servers.
        patience: seconds that a worker waits for servers that are gone.
        memory: of a worker.
        retries: of each part.
        failed: parts that may fail before all workers are stopped; None lets the others go on.
        deadline: seconds for all of it; None for no limit.
        secrets: whose keys become variables of the workers.
        endpoint: of the object store; "" for that of its provider.
        service_account: "" for the namespace's default.
        priority_class: "" for the cluster's default.
        namespace: "" for that of kubectl.
    """

    shards: int
    parallelism: int
    image: str
    urls: Sequence[str]
    patience: float
    memory: str
    retries: int
    failed: int | None
    deadline: int | None
    secrets: Sequence[str]
    endpoint: str
    service_account: str
    priority_class: str
    namespace: str


def jobs(data: DataSet, workers: Workers) -> list[dict[str, Any]]:
    """The manifests.

    The workers' Job has the data set's name. Where there are several, a Job ``…-merge`` is rendered
    suspended beside it: Kubernetes does not start one Job after another.
    """
    made = [_job(data, workers, data.name, _generate(data, workers), _indexed(workers))]
    if data.labels:
        content = {"labels.txt": "\n".join(data.labels) + "\n"}
        metadata = _metadata(data, workers, data.name)
        made.append(
            {
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
                "immutable": True, "data": content,
            }
        )  # fmt: skip
    if workers.shards > 1:
        container = {
            "name": "merge",
            "args": ["dataset", "merge", _literal(data.destination.output)],
        }
        spec = {
            "suspend": True,
            "backoffLimit": MERGE_RETRIES,
            "podFailurePolicy": _policy("merge"),
        }
        made.append(_job(data, workers, f"{data.name}-merge", container, spec))
    return made


def _policy(container: str) -> dict[str, Any]:
    """What a container's failures mean."""
    told = {"containerName": container, "operator": "In", "values": list(HOPELESS)}
    # Drained nodes and preemptions are no failures of the worker, and do not count.
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    return {
        "rules": [
            {"action": "FailJob", "onExitCodes": told},
            {"action": "Ignore", "onPodConditions": disrupted},
        ]
    }


def _indexed(workers: Workers) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": workers.shards,
        "parallelism": workers.parallelism,
        "backoffLimitPerIndex": workers.retries,
        "podFailurePolicy": _policy("generate"),
    }
    if workers.failed is not None:
        spec["maxFailedIndexes"] = workers.failed
    if workers.deadline is not None:
        spec["activeDeadlineSeconds"] = workers.deadline
    return spec


def _generate(data: DataSet, workers: Workers) -> dict[str, Any]:
    labels = ["--labels", f"@{LABELS}/labels.txt"] if data.labels else []
    return {
        "name": "generate",
        "args": [
            "generate", *map(_literal, [data.model, "-n", str(data.n), "--seed", str(data.seed)]),
            *map(_literal, [*data.plan, *labels]),
            "--shard", f"$(JOB_COMPLETION_INDEX)/{workers.shards}",
            "-o", _literal(data.destination.output),
        ],
        "env": [
            {"name": "GALATEA_URL", "value": _literal(",".join(workers.urls))},
            {"name": "GALATEA_PATIENCE", "value": f"{workers.patience:g}"},
        ],
    }  # fmt: skip


def _job(
    data: DataSet, workers: Workers, name: str, container: dict[str, Any], spec: dict[str, Any]
) -> dict[str, Any]:
    claim = data.destination.claim
    expected = [f"Secret/{secret}" for secret in workers.secrets]
    expected += [f"PersistentVolumeClaim/{claim}"] if claim else []
    expected += [f"ServiceAccount/{workers.service_account}"] if workers.service_account else []
    metadata = _metadata(data, workers, name)
    labels = metadata["labels"]
    if expected:
        metadata["annotations"] = {"galatea/expects": ", ".join(expected)}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        # No worker talks to Kubernetes.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(data, workers, container)],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
    }  # fmt: skip
    if claim:
        pod["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": claim}})
    elif container["name"] == "generate" and workers.parallelism > 1:
        # A claim may bind its pods to one node; where there is none they are better spread.
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": labels},
            }
        ]  # fmt: skip
    if any(mount["name"] == "labels" for mount in pod["containers"][0]["volumeMounts"]):
        pod["volumes"].append({"name": "labels", "configMap": {"name": data.name}})
    if workers.service_account:
        pod["serviceAccountName"] = workers.service_account
    if workers.priority_class:
        pod["priorityClassName"] = workers.priority_class
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
        "spec": {**spec, "ttlSecondsAfterFinished": KEPT, "template": template},
    }  # fmt: skip


def _container(data: DataSet, workers: Workers, container: dict[str, Any]) -> dict[str, Any]:
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a volume of the pod's own
    variables = list(container.get("env", []))
    if data.destination.claim:
        mounts.append({"name": "data", "mountPath": DATA})
    if workers.endpoint:
        variables.append({"name": "AWS_ENDPOINT_URL", "value": _literal(workers.endpoint)})
    if data.labels and container["name"] == "generate":
        mounts.append({"name": "labels", "mountPath": LABELS})
    made = {
        **container,
        "image": workers.image,
        # No CPU limit: what others leave over is used.
        "resources": {
            "requests": {"cpu": "500m", "memory": workers.memory},
            "limits": {"memory": workers.memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # `kubectl describe pod` tells what was wrong.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }  # fmt: skip
    if variables:
        made["env"] = variables
    if workers.secrets:
        made["envFrom"] = [{"secretRef": {"name": secret}} for secret in workers.secrets]
    return made


def _metadata(data: DataSet, workers: Workers, name: str) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/name": "galatea",
        "app.kubernetes.io/component": "generate",
        "app.kubernetes.io/instance": data.name,
    }
    metadata: dict[str, Any] = {"name": name, "labels": labels}
    if workers.namespace:
        metadata["namespace"] = workers.namespace
    return metadata


def _literal(word: str) -> str:
    """A word in which Kubernetes finds no variable to replace."""
    return word.replace("$", "$$")
