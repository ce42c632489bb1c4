"""What a machine needs to serve, checked one by one; each finding says how to mend it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from galatea.errors import MachineError
from galatea_server.installation import (
    QUIET,
    EmbeddedTriton,
    NvidiaTriton,
    find_bash,
    find_libpython,
    locate,
)

SHARED_MEMORY_WANTED = 256 << 20  # bytes; a container's default of 64 MB fails at larger batches
SHARED_MEMORY_NEEDED = 64 << 20  # with less, not even a demo's models are loaded
PIP_SERVE = "run: pip install 'galatea[serve]'"

# What the backend does first, in a process of its own: a broken library may end it.
IMPORT_ONNXRUNTIME = (
    "import onnxruntime as o; print(o.__version__ + ':', *o.get_available_providers())"
)


@dataclass(frozen=True)
class Finding:
    """One check: ``fail`` stops the server from working, ``warn`` only limits what can be done."""

    check: str
    state: Literal["ok", "warn", "fail"]
    fact: str
    remedy: str = ""


def examine(ports: Mapping[str, int]) -> list[Finding]:
    """All checks for this machine; `ports` are those that the server would take."""
    return [
        *_examine_triton(),
        check_bash(find_bash()),
        check_tritonclient(_version("tritonclient")),
        *(check_port(protocol, port) for protocol, port in ports.items()),
        check_shared_memory(Path("/dev/shm")),  # noqa: S108 - the kernel's, not a temporary file
        check_exporter(importlib.util.find_spec),
        check_gpu(shutil.which("nvidia-smi")),
    ]


def _examine_triton() -> list[Finding]:
    """Triton, and what ours needs beside it; NVIDIA's images bring that themselves."""
    try:
        installation = locate()
    except MachineError as error:
        found = [Finding("nvidia-pytriton", "fail", error.problem, error.remedy)]
    else:
        found = [check_triton(installation)]
        if isinstance(installation, NvidiaTriton):
            return found
        found.append(check_stub(installation))
        programs = [installation.binary, *installation.python_parts.values()]
        found.append(check_libraries(programs, installation.environment(os.environ)))
    return [
        *found,
        check_libpython(find_libpython()),
        check_numpy(_version("numpy")),
        check_onnxruntime(sys.executable),
    ]


def check_triton(installation: EmbeddedTriton | NvidiaTriton) -> Finding:
    """The server starts far enough to print its options."""
    name = "tritonserver"
    try:
        done = subprocess.run(
            [installation.binary, "--help"],
            env=installation.environment(os.environ),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, "fail", f"cannot be run: {error}", PIP_SERVE)
    if "--model-repository" not in done.stdout + done.stderr:
        reason = (done.stderr or done.stdout).strip().splitlines()[:1]
        return Finding(
            name, "fail", f"does not start: {' '.join(reason)}",
            "the wheel needs x86-64 Linux with glibc 2.35 or newer (Debian 12, Ubuntu 22.04)",
        )  # fmt: skip
    source = "NVIDIA's image" if isinstance(installation, NvidiaTriton) else "nvidia-pytriton"
    return Finding(name, "ok", f"from {source} {installation.release}")


def check_stub(installation: EmbeddedTriton) -> Finding:
    """The wheel has a Python backend process for this version of Python."""
    if installation.stub.is_file():
        return Finding("Python backend", "ok", f"for Python {sys.version_info.major}."
                       f"{sys.version_info.minor}")  # fmt: skip
    there = sorted(path.name for path in installation.stub.parents[1].glob("3.*"))
    return Finding(
        "Python backend", "fail", f"none for Python {sys.version_info.major}."
        f"{sys.version_info.minor}", f"use Python {', '.join(there)}",
    )  # fmt: skip


def check_libraries(programs: Iterable[Path], environment: Mapping[str, str]) -> Finding:
    """Every shared library that the programs are linked with is found."""
    name = "libraries"
    ldd = shutil.which("ldd")
    if ldd is None:
        return Finding(name, "warn", "not checked: there is no ldd", "")
    missing = set()
    for program in programs:
        if program.is_file() and program.suffix != ".py":
            done = subprocess.run(
                [ldd, program], env=environment, capture_output=True, text=True, check=False
            )
            for line in (done.stdout + done.stderr).splitlines():
                if "not found" in line:  # a library, or a version of a symbol in one
                    missing.add(line.split("=>")[0].strip())
    if missing:
        return Finding(
            name, "fail", f"not found: {', '.join(sorted(missing))}",
            "install them with the system's packages, or add their folder to LD_LIBRARY_PATH",
        )  # fmt: skip
    return Finding(name, "ok", "all found")


def check_libpython(library: Path | None) -> Finding:
    """The interpreter's shared library, which Triton's Python backend is linked with."""
    if library is not None:
        return Finding("libpython", "ok", str(library))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Finding(
        "libpython", "fail", f"no shared library of Python {python}",
        f"install libpython{python} (Debian, Ubuntu), or a Python built with --enable-shared",
    )  # fmt: skip


def check_bash(bash: str | None) -> Finding:
    """Triton's Python backend starts its processes with it, and waits for ever where it cannot."""
    if bash is None:
        return Finding("bash", "fail", "not installed", "install it with the system's packages")
    return Finding("bash", "ok", bash)


def check_numpy(installed: str | None) -> Finding:
    """With numpy 2, Triton's Python backend answers with empty tensors, without an error."""
    if installed is None:
        return Finding("numpy", "fail", "not installed", PIP_SERVE)
    if int(installed.partition(".")[0]) >= 2:
        return Finding(
            "numpy", "fail", f"{installed}: Triton 2.51 would answer with empty images",
            "run: pip install 'numpy<2'",
        )  # fmt: skip
    return Finding("numpy", "ok", installed)


def check_onnxruntime(python: str) -> Finding:
    """The runtime behind the embedded backend can be imported; and what it computes with."""
    name = "onnxruntime"
    done = subprocess.run(
        [python, "-c", IMPORT_ONNXRUNTIME],
        env={**QUIET, **os.environ}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return Finding(name, "fail", f"cannot be imported: {words}", PIP_SERVE)
    return Finding(name, "ok", done.stdout.strip())


def check_tritonclient(installed: str | None) -> Finding:
    """What the client of galatea speaks to Triton with."""
    if installed is None:
        return Finding("tritonclient", "fail", "not installed", "run: pip install galatea")
    return Finding("tritonclient", "ok", installed)


def check_port(protocol: str, port: int) -> Finding:
    """A port that the server would take is free on the loopback."""
    name = f"port {port} ({protocol})"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            return Finding(
                name, "fail", str(error.strerror or error),
                f"stop what listens there, or choose another --{protocol}-port",
            )  # fmt: skip
    return Finding(name, "ok", "free")


def check_shared_memory(folder: Path) -> Finding:
    """Room for what Triton and its Python processes hand to each other."""
    name = str(folder)
    try:
        room = os.statvfs(folder)
    except OSError as error:
        return Finding(name, "fail", str(error.strerror), f"mount a tmpfs on {folder}")
    free, size = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    fact = f"{free / 2**20:.0f} MiB free of {size / 2**20:.0f} MiB"
    if free < SHARED_MEMORY_WANTED:
        return Finding(
            name, "fail" if free < SHARED_MEMORY_NEEDED else "warn",
            f"{fact}: requests fail when it is full",
            f"give it {SHARED_MEMORY_WANTED >> 20} MiB or more (docker run --shm-size=256m)",
        )  # fmt: skip
    return Finding(name, "ok", fact)


def check_exporter(find_spec: Callable[[str], object | None]) -> Finding:
    """Whether checkpoints can be exported here; serving does not need it."""
    missing = [name for name in ("torch", "onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        return Finding(
            "exporter", "warn", f"without {', '.join(missing)}",
            "to export here, run: pip install 'galatea[export]'",
        )  # fmt: skip
    return Finding("exporter", "ok", f"torch {_version('torch')}")


def check_gpu(nvidia_smi: str | None) -> Finding:
    """Whether a GPU is there; the CPU serves as well."""
    if nvidia_smi is None:
        return Finding("GPU", "warn", "none found", "the variants cuda and tensorrt need one")
    done = subprocess.run(
        [nvidia_smi, "--query-gpu=name", "--format=csv,noheader"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        return Finding("GPU", "warn", "the driver does not answer", "run: nvidia-smi")
    return Finding("GPU", "ok", ", ".join(done.stdout.split("\n")).strip(", "))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
