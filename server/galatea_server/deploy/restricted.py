"""The Pod Security Standard ``restricted``, and a root file system that cannot be written."""

from __future__ import annotations

from collections.abc import Iterator

from galatea_server.deploy.manifests import Fault, Pod, World, name_of

__all__ = ["restricted"]

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
PROFILES = ("RuntimeDefault", "Localhost")
CAPABILITIES = {"NET_BIND_SERVICE"}


def restricted(_: World, pod: Pod) -> Iterator[Fault]:
    """What the API server refuses in a namespace that enforces ``restricted``."""
    owner = name_of(pod.owner)
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(key):
            yield Fault(owner, pod.at(key), "is refused by Pod Security", "leave it out")
    for volume in pod.volumes:
        if not VOLUMES & volume.keys():
            yield Fault(
                owner, pod.at(f"volumes[{volume['name']}]"),
                "is of a kind that Pod Security refuses", "use a claim or an emptyDir",
            )  # fmt: skip
    general = pod.spec.get("securityContext") or {}
    for path, container in pod.containers():
        own = container.get("securityContext") or {}
        both = {**general, **own}
        where = owner, f"{path}.securityContext"
        if own.get("allowPrivilegeEscalation") is not False:
            yield Fault(*where, "allows more privileges", "set allowPrivilegeEscalation: false")
        if own.get("privileged"):
            yield Fault(*where, "is privileged", "leave privileged out")
        if not both.get("runAsNonRoot") or both.get("runAsUser") == 0:
            yield Fault(*where, "may run as root", "set runAsNonRoot: true and runAsUser: 1000")
        if (both.get("seccompProfile") or {}).get("type") not in PROFILES:
            yield Fault(*where, "has no seccomp profile", "set seccompProfile.type: RuntimeDefault")
        capabilities = own.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or []):
            yield Fault(*where, "keeps capabilities", "set capabilities.drop: [ALL]")
        if not set(capabilities.get("add") or []) <= CAPABILITIES:
            yield Fault(*where, "adds capabilities", "leave capabilities.add out")
        if not own.get("readOnlyRootFilesystem"):
            yield Fault(*where, "can change its image's files", "set readOnlyRootFilesystem: true")
        for port in container.get("ports") or []:
            if port.get("hostPort"):
                yield Fault(
                    owner, f"{path}.ports", "takes a port of the node", "leave hostPort out"
                )
