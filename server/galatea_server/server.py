"""The embedded server: the real tritonserver as a child process."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

from galatea.errors import (
    DeadlineExceeded,
    GalateaError,
    MachineError,
    RepositoryError,
    ServerError,
)
from galatea_server import guard
from galatea_server.installation import backend_directory, locate

POLL_SECONDS = 0.02
KILL_AFTER_SECONDS = 10  # after Triton should have ended by itself
SHARED_MEMORY_BYTES = 16 << 20  # what each model instance starts with; it grows when needed
LOADING_THREADS = 8


class EmbeddedServer:
    """A Triton server on this machine, without Docker or a GPU.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. It ends when the process
    that started it ends, however that happens.

    Args:
        repository: a Triton model repository.
        host: address to listen on.
        http_port, grpc_port, metrics_port: 0 takes a free one.
        model_config: named variant of the models' configurations, e.g. "cuda"; None takes
            ``config.pbtxt``.
        exit_timeout: seconds that requests under way get to finish when the server stops.
        verbose: log every request.
    """

    def __init__(
        self,
        repository: str | Path,
        *,
        host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        model_config: str | None = None,
        exit_timeout: int = 30,
        verbose: bool = False,
    ) -> None:
        self.repository = Path(repository)
        self.host = host
        self.ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self.model_config = model_config
        self.exit_timeout = exit_timeout
        self.verbose = verbose
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._folder: Path | None = None

    @property
    def grpc_url(self) -> str:
        """host:port for the client."""
        return self._url("grpc")

    @property
    def http_url(self) -> str:
        """host:port of the KServe v2 HTTP API."""
        return self._url("http")

    @property
    def metrics_url(self) -> str:
        """host:port of the Prometheus metrics, under ``/metrics``."""
        return self._url("metrics")

    @property
    def pid(self) -> int:
        """Process id of tritonserver."""
        return self._running().pid

    @property
    def log_file(self) -> Path:
        """tritonserver's log; it goes when the server is stopped."""
        assert self._folder is not None, "the server was not started"
        return self._folder / "triton.log"

    def start(self, timeout: float = 300.0) -> None:
        """Starts Triton and waits until every model is ready.

        Args:
            timeout: seconds to wait.

        Raises:
            MachineError: the extra ``serve`` or a library is missing, or a port is taken.
            RepositoryError: there is no such repository, or Triton refuses a model in it.
            ServerError: Triton ended for another reason; its own words are told.
            DeadlineExceeded: it was not ready in time.
        """
        if not self.repository.is_dir():
            raise RepositoryError(
                f"{self.repository}: no such folder",
                "name the model repository with --repository, or export a model into it",
            )
        installation = locate()
        backends = backend_directory(installation)
        self._take_ports()
        self._folder = Path(tempfile.mkdtemp(prefix="galatea-serve-"))
        command = [str(installation.binary), *self._flags(backends)]
        self._ended.clear()
        started = threading.Event()
        failure: list[OSError] = []
        # The parent-death signal is sent when the *thread* that forked ends, so the thread that
        # forks is the one that waits for the server's end.
        threading.Thread(
            target=self._own,
            args=(command, installation.environment(os.environ), started, failure),
            name="tritonserver",
            daemon=True,
        ).start()
        started.wait()
        try:
            if failure:
                raise MachineError(
                    f"{installation.binary}: cannot be run: {failure[0]}", "run: galatea doctor"
                )
            self._await_ready(timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int | None:
        """Ends the server; requests under way may finish.

        Returns:
            Triton's exit status, or None when it was not running.
        """
        status = None
        if self._process is not None:
            self.signal(signal.SIGTERM)
            if self.wait(self.exit_timeout + KILL_AFTER_SECONDS) is None:
                self.signal(signal.SIGKILL)
            status = self.wait()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        return status

    def signal(self, number: int) -> None:
        """Sends a signal to tritonserver, if it still runs."""
        if self._process is not None and not self._ended.is_set():
            self._process.send_signal(number)

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits for Triton to end; its exit status, or None when `timeout` seconds passed."""
        process = self._running()
        return process.returncode if self._ended.wait(timeout) else None

    def __enter__(self) -> EmbeddedServer:
        if self._process is None:
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _url(self, protocol: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.ports[protocol]}"

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server was not started"
        return self._process

    def _own(
        self,
        command: list[str],
        environment: dict[str, str],
        started: threading.Event,
        failure: list[OSError],
    ) -> None:
        guarded = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), *command]
        try:
            with self.log_file.open("ab") as log:
                self._process = subprocess.Popen(
                    guarded,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # a terminal's Ctrl-C reaches us, and we pass it on
                )
        except OSError as error:
            failure.append(error)
            started.set()
            return
        started.set()
        self._process.wait()
        self._ended.set()

    def _flags(self, backends: Path) -> list[str]:
        flags = {
            "model-repository": self.repository,
            "backend-directory": backends,
            "model-control-mode": "none",
            "strict-readiness": "true",
            "exit-on-error": "true",
            "exit-timeout-secs": self.exit_timeout,
            "model-load-thread-count": LOADING_THREADS,
            "http-address": self.host,
            "http-port": self.ports["http"],
            "grpc-address": self.host,
            "grpc-port": self.ports["grpc"],
            "metrics-address": self.host,
            "metrics-port": self.ports["metrics"],
            "backend-config": f"python,shm-default-byte-size={SHARED_MEMORY_BYTES}",
            "log-verbose": 1 if self.verbose else 0,
        }
        if self.model_config is not None:
            flags["model-config-name"] = self.model_config
        named = [f"--{name}={value}" for name, value in flags.items()]
        return [*named, "--disable-auto-complete-config"]

    def _take_ports(self) -> None:
        held = []
        try:
            for protocol, port in self.ports.items():
                family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
                sock = socket.socket(family)
                held.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind((self.host, port))
                except OSError as error:
                    raise MachineError(
                        f"the {protocol} port {port} on {self.host} cannot be used: "
                        f"{error.strerror or error}",
                        f"stop what listens there, or choose another --{protocol}-port",
                    ) from error
                self.ports[protocol] = sock.getsockname()[1]
        finally:
            for sock in held:
                sock.close()

    def _await_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if self._ended.wait(POLL_SECONDS):
                log = self.log_file.read_text("utf-8", "replace")
                raise explain(log, self._running().returncode, self.repository)
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"Triton was not ready within {timeout:g} s", "see its log: --log info"
                )

    def _is_ready(self) -> bool:
        reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - asked, not bound
        connection = http.client.HTTPConnection(reach, self.ports["http"], timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


# What Triton says of a model that it refuses: the model and the reason.
REFUSALS = (
    r"failed to load '([^']+)' version \d+: (.+)",
    r"Poll failed for model directory '([^']+)': (.+)",
    r"ensemble '?([\w.-]+)'? (contains .+)",
    r"failed to load model '([^']+)': (.+)",
)


def explain(log: str, status: int, repository: Path) -> GalateaError:
    """Why Triton ended, from its log: the model and the reason where it refused one."""
    for pattern in REFUSALS:
        if refused := re.search(pattern, log):
            return RepositoryError(
                f"Triton refuses the model {refused[1]!r}: {_clean(refused[2])}",
                f"check the repository: galatea repo verify --repository {repository}",
            )
    if missing := re.search(r"error while loading shared libraries: (\S+):", log):
        return MachineError(f"tritonserver needs {missing[1]}", "run: galatea doctor")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"E\d|error", line)]
    words = _clean((errors or lines or ["it left no word"])[-1])
    return ServerError(f"Triton ended with status {status}: {words}", "run: galatea doctor")


def _clean(text: str) -> str:
    """The reason without Python's traceback and Triton's names of its own errors."""
    reason = text.partition("\\n\\nAt:")[0].strip().strip('"').rstrip(".")
    return reason.removeprefix("Internal: ").removeprefix("TritonModelException: ")
