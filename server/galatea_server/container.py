"""The server in a container, through the Docker Engine's API.

The image's entry point is ``galatea serve``, so what it says is ours: one line of JSON once it is
ready, one when it refuses, and Triton's log.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest

from galatea import errors
from galatea.errors import DeadlineExceeded, GalateaError, MachineError, ServerError
from galatea_server.reach import Reachable

__all__ = ["ContainerServer"]

PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}  # in the container
MODELS = "/models"
ENGINES = "/var/cache/galatea"  # where TensorRT's engines are kept
TEMPORARY = {"/tmp": "rw,nosuid,nodev,noexec"}  # noqa: S108 - of the container
POLL_SECONDS = 0.1
KILL_AFTER_SECONDS = 20  # after Triton should have ended by itself
UNPRIVILEGED = 1000  # the user of our images


class ContainerServer(Reachable):
    """A Triton server in a container that can do nothing but serve.

    Root's file system is read-only, the repository too, all capabilities are dropped, and processes
    are not root's. Use it as :class:`galatea_server.server.EmbeddedServer`.

    Args:
        repository: a Triton model repository on the engine's machine.
        image: with ``galatea serve`` as its entry point; pulled where it is not there.
        host: address of this machine at which the ports are published.
        http_port, grpc_port, metrics_port: 0 takes a free one.
        options: of ``galatea serve`` in the container, by their names; None leaves one out.
        shm_bytes: size of the container's /dev/shm.
        gpus: "all", a number, or devices as "0,2"; None for none.
        engines: a folder of this machine that TensorRT's engines are kept in.
        exit_timeout: seconds that requests under way get to finish when the server stops.
    """

    def __init__(
        self,
        repository: str | Path,
        image: str,
        *,
        host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        options: Mapping[str, str | int | bool | Sequence[str] | None] | None = None,
        shm_bytes: int,
        gpus: str | None = None,
        engines: Path | None = None,
        exit_timeout: int = 30,
    ) -> None:
        self.repository = Path(repository).absolute()
        self.image = image
        self.host = host
        self.ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self.options = dict(options or {})
        self.shm_bytes = shm_bytes
        self.gpus = gpus
        self.engines = engines
        self.exit_timeout = exit_timeout
        self.name = f"galatea-{uuid.uuid4().hex[:8]}"
        self._engine: Any = None
        self._container: Container | None = None
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._refusal: dict[str, Any] = {}
        self._last_words = ""

    @property
    def pid(self) -> int:
        """Process id of the container's first process on the engine's machine."""
        container = self._running()
        container.reload()
        return int(container.attrs["State"]["Pid"])

    def start(self, timeout: float = 900.0) -> None:
        """Starts the container and waits until every model is ready; its log goes to stderr.

        Args:
            timeout: seconds to wait, pulling the image not counted.

        Raises:
            MachineError: no engine answers, there is no such image, or a port is taken.
            DeadlineExceeded: it was not ready in time.
            GalateaError: what ``galatea serve`` said in the container.
        """
        try:
            self._engine = docker.from_env()
            self._engine.ping()
        except DockerException as error:
            raise MachineError(
                f"no Docker Engine answers: {_reason(error)}",
                "start it (dockerd), set DOCKER_HOST, or serve without: --engine embedded",
            ) from error
        self._fetch_image()
        try:
            self._container = self._create()
            self._container.start()
            self._follow()
            self._await_ready(timeout)
        except APIError as error:
            self.stop()
            raise MachineError(
                f"the container of {self.image} cannot be started: {_reason(error)}",
                "choose other ports, or see: docker info",
            ) from error
        except BaseException:
            self.stop()
            raise

    def signal(self, number: int) -> None:
        """Sends a signal to the server, if it still runs."""
        if self._container is not None and not self._ended.is_set():
            try:
                self._container.kill(signal.Signals(number).name)
            except APIError:  # it ended just now
                return

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits for the container to end; its exit status, or None when `timeout` has passed."""
        container = self._running()
        if not self._ended.wait(timeout):
            return None
        return int(container.wait()["StatusCode"])

    def stop(self) -> int | None:
        """Ends the server and removes the container; requests under way may finish.

        Returns:
            The exit status, or None when it was not running.
        """
        if self._container is None:
            return None
        container, status = self._container, None
        try:
            if container.status != "created":
                container.stop(timeout=self.exit_timeout + KILL_AFTER_SECONDS)
                status = int(container.wait()["StatusCode"])
            container.remove(force=True)
        except NotFound:  # somebody else removed it
            pass
        finally:
            self._container = None
            self._engine.close()
        return status

    def __enter__(self) -> ContainerServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _running(self) -> Container:
        assert self._container is not None, "the server was not started"
        return self._container

    def _fetch_image(self) -> None:
        try:
            self._engine.images.get(self.image)
        except ImageNotFound:
            print(f"{self.image}: not on this machine, pulling it", file=sys.stderr)
            try:
                self._engine.images.pull(self.image)
            except DockerException as error:
                raise MachineError(
                    f"the image {self.image} is not on this machine and cannot be pulled: "
                    f"{_reason(error)}",
                    "build it (make images), or name another: --image",
                ) from error

    def _create(self) -> Container:
        command = ["--json", f"--exit-timeout={self.exit_timeout}"]
        for name, value in self.options.items():
            if isinstance(value, bool):
                command.append(f"--{name}" if value else f"--no-{name}")
            elif value is not None:
                values = [value] if isinstance(value, str | int) else value
                command += [f"--{name}={one}" for one in values]
        devices = [] if self.gpus is None else [_devices(self.gpus)]
        # Files of a user are read as that user; nothing is ever done as root.
        user, group = (os.getuid(), os.getgid()) if os.getuid() else (UNPRIVILEGED, UNPRIVILEGED)
        mounts = {str(self.repository): {"bind": MODELS, "mode": "ro"}}
        if self.engines is not None:
            self.engines.mkdir(parents=True, exist_ok=True)
            if os.getuid() == 0:
                os.chown(self.engines, user, group)
            mounts[str(self.engines)] = {"bind": ENGINES, "mode": "rw"}
        created: Container = self._engine.containers.create(
            self.image,
            command,
            name=self.name,
            labels={"galatea": "server"},
            user=f"{user}:{group}",
            read_only=True,
            tmpfs=TEMPORARY,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            shm_size=self.shm_bytes,
            device_requests=devices,
            volumes=mounts,
            ports={
                f"{inside}/tcp": (self.host, self.ports[protocol] or None)
                for protocol, inside in PORTS.items()
            },
        )
        return created

    def _follow(self) -> None:
        """Reads what the container says, each stream in a thread."""
        listeners = [
            threading.Thread(target=self._listen, args=(stream,), name=stream, daemon=True)
            for stream in ("stdout", "stderr")
        ]
        for listener in listeners:
            listener.start()

        def end() -> None:
            for listener in listeners:
                listener.join()
            self._ended.set()

        threading.Thread(target=end, name="container", daemon=True).start()

    def _listen(self, stream: str) -> None:
        chosen = {name: name == stream for name in ("stdout", "stderr")}
        said = self._running().logs(stream=True, follow=True, **chosen)
        rest = b""
        for piece in said:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._heard(line.decode("utf-8", "replace"), on_stdout=stream == "stdout")

    def _heard(self, line: str, *, on_stdout: bool) -> None:
        if on_stdout:
            self._ready.set()  # its one line there says that it serves
        elif line.startswith('{"error":'):
            self._refusal = json.loads(line)
        else:
            self._last_words = line
            print(line, file=sys.stderr, flush=True)

    def _await_ready(self, timeout: float) -> None:
        for _ in range(int(timeout / POLL_SECONDS)):
            if self._ready.wait(POLL_SECONDS):
                self._learn_ports()
                return
            if self._ended.is_set():
                raise self._why_it_ended()
        raise DeadlineExceeded(
            f"the container {self.name} was not ready within {timeout:g} s",
            "see its log: --log info",
        )

    def _learn_ports(self) -> None:
        container = self._running()
        container.reload()
        published = container.attrs["NetworkSettings"]["Ports"]
        for protocol, inside in PORTS.items():
            self.ports[protocol] = int(published[f"{inside}/tcp"][0]["HostPort"])

    def _why_it_ended(self) -> GalateaError:
        status = self._running().wait()["StatusCode"]
        if not self._refusal:
            return ServerError(
                f"the container of {self.image} ended with status {status}: "
                f"{self._last_words or 'it left no word'}",
                "is its entry point galatea serve? see: galatea serve --help",
            )
        kind = getattr(errors, self._refusal["error"], ServerError)
        # Its folder is the container's; a person knows the one that was mounted.
        problem = self._refusal["problem"].replace(MODELS, str(self.repository), 1)
        remedy = self._refusal["remedy"].replace(f" {MODELS}", f" {self.repository}")
        refusal: GalateaError = kind(problem, remedy)
        return refusal


def _devices(gpus: str) -> DeviceRequest:
    """GPUs as ``docker run --gpus`` takes them."""
    if gpus == "all":
        return DeviceRequest(count=-1, capabilities=[["gpu"]])
    if gpus.isdecimal():
        return DeviceRequest(count=int(gpus), capabilities=[["gpu"]])
    named = gpus.removeprefix("device=").split(",")
    return DeviceRequest(device_ids=named, capabilities=[["gpu"]])


def _reason(error: Exception) -> str:
    explained = getattr(error, "explanation", None) or error
    return " ".join(str(explained).split()).rstrip(".")
