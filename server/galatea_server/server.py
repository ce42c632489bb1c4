"""The embedded server: the real tritonserver as a child process."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from galatea.errors import DeadlineExceeded, MachineError
from galatea_server import guard
from galatea_server.installation import (
    EmbeddedTriton,
    NvidiaTriton,
    backend_directory,
    find_bash,
    locate,
)
from galatea_server.log import aborted_by_chance, explain, last_words, lost_port
from galatea_server.preflight import address, check_repository, take_ports
from galatea_server.reach import Reachable

GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
ATTEMPTS = 3  # where a start fails by chance: see _await_ready
POLL_SECONDS = 0.02
KILL_AFTER_SECONDS = 10  # after Triton should have ended by itself
SHARED_MEMORY_BYTES = 16 << 20  # what each model instance starts with; it grows when needed
PING_MILLISECONDS = 10_000  # clients may ask as often whether we live; default are five minutes
LOADING_THREADS = 8
RESTRICTED = "shared-memory,trace,logging"  # what nobody may do over the wire, when restricted


class EmbeddedServer(Reachable):
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
        restrict: refuse shared memory and changes of traces and of the log over the wire.
        verbose: log every request.
        log_format: ``default``, or ``ISO8601`` with dates.
        further: flags of tritonserver, put after ours.
        log: a file that Triton's log goes to; a temporary one by default.
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
        restrict: bool = False,
        verbose: bool = False,
        log_format: str = "default",
        further: Sequence[str] = (),
        log: BinaryIO | None = None,
    ) -> None:
        self.repository = Path(repository)
        self.host = host
        self.ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self.model_config = model_config
        self.exit_timeout = exit_timeout
        self.restrict = restrict
        self.verbose = verbose
        self.log_format = log_format
        self.further = tuple(further)
        self._wanted = dict(self.ports)
        self._given_log = log
        self._log: BinaryIO | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._regions = f"galatea-{uuid.uuid4().hex}-"
        self._spare: tempfile.TemporaryDirectory[str] | None = None

    @property
    def pid(self) -> int:
        """Process id of tritonserver."""
        return self._running().pid

    @property
    def log(self) -> str:
        """What Triton has logged since it was started."""
        assert self._log is not None, "the server was not started"
        number = self._log.fileno()
        return os.pread(number, os.fstat(number).st_size, 0).decode("utf-8", "replace")

    def start(self, timeout: float = 300.0) -> None:
        """Starts Triton and waits until every model is ready.

        Args:
            timeout: seconds to wait.

        Raises:
            MachineError: the extra ``serve`` or a library is missing, or a port is taken.
            RepositoryError: there is no such repository, it is empty, or Triton refuses a model
                in it.
            InvalidInput: no model has the configuration that `model_config` names.
            ServerError: Triton ended for another reason; its own words are told.
            DeadlineExceeded: it was not ready in time.
        """
        assert self._process is None, "the server runs already"
        check_repository(self.repository, self.model_config)
        installation = locate()
        if not find_bash():  # Triton would wait for ever for processes that cannot start
            raise MachineError(
                "Triton starts the models' processes with bash, which is not installed",
                "install bash with the system's packages",
            )
        try:
            backends = self._backends(installation)
            for attempt in range(1, ATTEMPTS + 1):
                self.host = address(self.host)
                self.ports = take_ports(self.host, self._wanted)
                self._launch(installation, backends)
                if self._await_ready(timeout, last=attempt == ATTEMPTS):
                    return
                self._end()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int | None:
        """Ends the server; requests under way may finish.

        Returns:
            Triton's exit status, or None when it was not running.
        """
        status = self._end()
        if self._spare is not None:
            self._spare.cleanup()
            self._spare = None
        return status

    def signal(self, number: int) -> None:
        """Sends a signal to tritonserver, if it still runs."""
        if self._process is not None and not self._ended.is_set():
            # Popen's own way would reap a server that has just ended, before it is cleaned up.
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

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

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server was not started"
        return self._process

    def _backends(self, installation: EmbeddedTriton | NvidiaTriton) -> Path:
        if isinstance(installation, NvidiaTriton):
            return installation.backends
        try:
            return backend_directory(installation)
        except OSError:  # a read-only home, or none
            self._spare = tempfile.TemporaryDirectory(prefix="galatea-")
        try:
            return backend_directory(installation, Path(self._spare.name))
        except OSError as error:
            raise MachineError(
                f"{error.filename}: Triton's backends cannot be put there: {error.strerror}",
                "set XDG_CACHE_HOME to a folder that you may write to and run programs from",
            ) from error

    def _launch(self, installation: EmbeddedTriton | NvidiaTriton, backends: Path) -> None:
        # A file without a name: nothing is left of it however the processes end.
        self._log = self._given_log or tempfile.TemporaryFile()  # noqa: SIM115 - closed by _end
        self._ended.clear()
        started = threading.Event()
        failure: list[OSError] = []
        # The parent-death signal is sent when the *thread* that forked ends, so the thread that
        # forks is the one that waits for the server's end.
        threading.Thread(
            target=self._own,
            args=(installation, backends, started, failure),
            name="tritonserver",
            daemon=True,
        ).start()
        started.wait()
        if failure:
            raise MachineError(
                f"{installation.binary}: cannot be run: {failure[0]}", "run: galatea doctor"
            )

    def _own(
        self,
        installation: EmbeddedTriton | NvidiaTriton,
        backends: Path,
        started: threading.Event,
        failure: list[OSError],
    ) -> None:
        python = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), self._regions]
        assert self._log is not None
        try:
            process = subprocess.Popen(
                [*python, str(installation.binary), *self._flags(backends)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=installation.environment(os.environ, backends),
                start_new_session=True,  # a terminal's Ctrl-C reaches us, and we pass it on
            )
        except OSError as error:
            failure.append(error)
            started.set()
            return
        self._process = process
        started.set()
        # Cleaned before it is reaped, while its id cannot be another's.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        guard.clean(process.pid, self._regions)
        process.wait()
        self._ended.set()

    def _end(self) -> int | None:
        status = None
        if self._process is not None:
            self.signal(signal.SIGTERM)
            if self.wait(self.exit_timeout + KILL_AFTER_SECONDS) is None:
                self.signal(signal.SIGKILL)
            status = self.wait()
            self._process = None
        if self._log is not None and self._log is not self._given_log:
            self._log.close()
        self._log = None
        return status

    def _flags(self, backends: Path) -> list[str]:
        six = ":" in self.host
        flags = {
            "model-repository": self.repository,
            "backend-directory": backends,
            "model-control-mode": "none",
            "strict-readiness": "true",
            "exit-on-error": "true",
            "exit-timeout-secs": self.exit_timeout,
            "model-load-thread-count": LOADING_THREADS,
            "http-address": f"ipv6:{self.host}" if six else self.host,
            "http-port": self.ports["http"],
            "grpc-address": f"[{self.host}]" if six else self.host,
            "grpc-port": self.ports["grpc"],
            "grpc-http2-min-recv-ping-interval-without-data": PING_MILLISECONDS,
            "metrics-address": f"ipv6:{self.host}" if six else self.host,
            "metrics-port": self.ports["metrics"],
            "log-verbose": 1 if self.verbose else 0,
            "log-format": self.log_format,
        }
        if self.model_config is not None:
            flags["model-config-name"] = self.model_config
        if not any(device.exists() for device in GPU_DEVICES):
            flags |= {"allow-gpu-metrics": "false", "pinned-memory-pool-byte-size": 0}
        if self.restrict:
            key = f"{RESTRICTED}:galatea-key={secrets.token_hex(16)}"  # which nobody is told
            flags |= {"http-restricted-api": key, "grpc-restricted-protocol": key}
        return [
            *(f"--{name}={value}" for name, value in flags.items()),
            *(f"--metrics-config={kind}_latencies=true" for kind in ("summary", "histogram")),
            f"--backend-config=python,shm-default-byte-size={SHARED_MEMORY_BYTES}",
            f"--backend-config=python,shm-region-prefix-name={self._regions}",
            "--disable-auto-complete-config",
            *self.further,
        ]

    def _await_ready(self, timeout: float, *, last: bool) -> bool:
        """False when the start has failed by chance, and this was not the last try.

        Another process may take a free port before Triton listens on it; and Triton's Python
        backend aborts once in many starts on a busy machine (triton-inference-server/server#8882).
        """
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if self._ended.wait(POLL_SECONDS):
                log = self.log
                status = self._running().returncode
                lost = lost_port(log)
                chance = (lost and self._wanted.get(lost[0]) == 0) or aborted_by_chance(log, status)
                if chance and not last:
                    return False
                raise explain(log, status, self.repository)
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"Triton was not ready within {timeout:g} s; its last words: "
                    f"{last_words(self.log)}",
                    "see its log: --log info",
                )
        return True
