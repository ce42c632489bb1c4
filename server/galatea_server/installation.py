"""Where Triton's parts lie, and the backend directory made from them where there is none.

NVIDIA's images have a whole Triton in ``/opt/tritonserver``. Elsewhere the nvidia-pytriton wheel
brings tritonserver with its Python backend. Triton accepts backends that are written in Python, so
a folder ``onnxruntime`` with our ``model.py`` serves the very repository that NVIDIA's own ONNX
Runtime backend serves in production.
"""

from __future__ import annotations

import ctypes.util
import errno
import hashlib
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from galatea.errors import MachineError

SITE = "GALATEA_SERVER_SITE"  # tells the backend where the server's Python packages are
PACKAGES = ("numpy", "onnxruntime")  # what the backend imports
STUB = "python/triton_python_backend_stub"
MODEL = "onnxruntime/model.py"
# From 1.29 on, ONNX Runtime reports names and digests of models to its makers, unless told not to.
QUIET = {"ORT_DISABLE_TELEMETRY": "1"}
NVIDIA = Path("/opt/tritonserver")  # where NVIDIA's images have Triton


@dataclass(frozen=True)
class NvidiaTriton:
    """Triton as NVIDIA's images bring it: with all its backends, and an environment that fits.

    Attributes:
        triton: folder with ``bin/tritonserver`` and ``backends``.
    """

    triton: Path

    @property
    def binary(self) -> Path:
        """The tritonserver executable."""
        return self.triton / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """The folder with the backends."""
        return self.triton / "backends"

    @property
    def release(self) -> str:
        """Version of Triton, as the image tells it."""
        return os.environ.get("TRITON_SERVER_VERSION", "unknown")

    def environment(
        self, inherited: Mapping[str, str], backends: Path | None = None
    ) -> dict[str, str]:
        """Environment variables for tritonserver: those of the image."""
        return {**QUIET, **inherited}


@dataclass(frozen=True)
class EmbeddedTriton:
    """The parts of one Python environment that make an embedded Triton.

    Attributes:
        triton: folder ``pytriton/tritonserver`` of the wheel.
        libraries: folder with the shared libraries of the wheel.
        libpython: the interpreter's shared library, which Triton's stub is linked with; None where
            it cannot be found.
        site: folders from which the backend imports its packages.
        release: version of the wheel.
    """

    triton: Path
    libraries: Path
    libpython: Path | None
    site: tuple[Path, ...]
    release: str

    @property
    def binary(self) -> Path:
        """The tritonserver executable."""
        return self.triton / "bin" / "tritonserver"

    @property
    def stub(self) -> Path:
        """The process that runs Python models, for this version of Python."""
        tag = f"{sys.version_info.major}.{sys.version_info.minor}"
        return self.triton / "python_backend_stubs" / tag / "triton_python_backend_stub"

    @property
    def python_parts(self) -> dict[str, Path]:
        """Path in a backend directory → file of the wheel that belongs there."""
        backend = self.triton / "backends" / "python"
        return {
            "python/libtriton_python.so": backend / "libtriton_python.so",
            "python/triton_python_backend_utils.py": backend / "triton_python_backend_utils.py",
            STUB: self.stub,
        }

    def environment(
        self, inherited: Mapping[str, str], backends: Path | None = None
    ) -> dict[str, str]:
        """Environment variables for tritonserver and the stubs it starts.

        The stub embeds an isolated Python: it ignores PYTHONHOME and PYTHONPATH, and takes the
        standard library of the first ``python3`` on PATH, whichever that is. So the backend
        directory has one that leads to this interpreter, and our backend reads from a variable
        where its packages are.

        Args:
            inherited: the variables to add to.
            backends: what :func:`backend_directory` made.
        """
        libraries = [str(self.libraries)]
        if self.libpython is not None:
            libraries.append(str(self.libpython.parent))
        if "LD_LIBRARY_PATH" in inherited:
            libraries.append(inherited["LD_LIBRARY_PATH"])
        environment = {
            **QUIET,
            **inherited,
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            SITE: os.pathsep.join(map(str, self.site)),
        }
        if backends is not None:
            path = [str(backends / "bin"), inherited.get("PATH", ""), os.defpath]
            environment["PATH"] = os.pathsep.join(path)
        return environment


def locate() -> EmbeddedTriton | NvidiaTriton:
    """Finds the Triton of the running interpreter, else that of NVIDIA's image.

    Raises:
        MachineError: there is neither.
    """
    whole = NvidiaTriton(NVIDIA)
    if find_spec("pytriton") is None and whole.binary.is_file():
        return whole
    return locate_embedded()


def locate_embedded() -> EmbeddedTriton:
    """Finds the Triton of the running interpreter; nothing of it is imported.

    Raises:
        MachineError: the extra ``serve`` is not installed.
    """
    specs = {name: find_spec(name) for name in ("pytriton", *PACKAGES)}
    missing = [name for name, spec in specs.items() if spec is None or spec.origin is None]
    if missing:
        raise MachineError(
            f"the embedded server needs {', '.join(missing)}, which is not installed",
            "run: pip install 'galatea[serve]'",
        )
    folders = {
        name: Path(spec.origin).parent for name, spec in specs.items() if spec and spec.origin
    }
    site = tuple(dict.fromkeys(folders[name].parent for name in PACKAGES))
    wheel = folders["pytriton"]
    return EmbeddedTriton(
        triton=wheel / "tritonserver",
        libraries=wheel.parent / "nvidia_pytriton.libs",
        libpython=find_libpython(),
        site=site,
        release=version("nvidia-pytriton"),
    )


def find_bash() -> str | None:
    """The shell that Triton's Python backend starts its processes with."""
    return shutil.which("bash", path=os.pathsep.join((os.environ.get("PATH", ""), os.defpath)))


def find_libpython() -> Path | None:
    """The shared library of the running interpreter's version."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    folders = [sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib"]
    for folder in folders:
        if folder and (Path(folder) / name).is_file():
            return Path(folder) / name
    multiarch = sysconfig.get_config_var("MULTIARCH")
    for root in ("/usr/lib", "/lib", "/usr/local/lib"):
        for folder in (Path(root) / str(multiarch), Path(root)):
            if (folder / name).is_file():
                return folder / name
    found = ctypes.util.find_library(name.removeprefix("lib").partition(".so")[0])
    return Path(found) if found and os.path.isabs(found) else None


def backend_directory(installation: EmbeddedTriton, cache: Path | None = None) -> Path:
    """A folder with the backends ``python`` and ``onnxruntime`` as real files.

    Triton refuses links that lead out of the backend directory, so the parts are copied once for
    each version, into a cache. Beside them ``bin/python3`` leads to the running interpreter.

    Args:
        cache: folder to keep it in; by default ``$XDG_CACHE_HOME/galatea``.

    Raises:
        MachineError: a part is missing from the wheel.
        OSError: the cache cannot be written, or no program may be run from there.
    """
    parts = installation.python_parts
    for part in parts.values():
        if not part.is_file():
            raise MachineError(
                f"{part}: is missing from nvidia-pytriton {installation.release}",
                "use Python 3.11 or 3.12, or run: galatea doctor",
            )
    contents = {name: part.read_bytes() for name, part in parts.items()}
    contents[MODEL] = files("galatea_server").joinpath("backends", MODEL).read_bytes()
    # Of a virtual environment, this is the interpreter that it was made from.
    interpreter = str(getattr(sys, "_base_executable", sys.executable))
    key = hashlib.sha256(interpreter.encode())
    for name, content in sorted(contents.items()):
        key.update(f"{name} {len(content)} ".encode() + content)
    target = (cache or cache_folder()) / f"backends-{key.hexdigest()[:16]}"
    if not _is_complete(target, contents):
        _assemble(target, contents, interpreter)
    if not os.access(target / STUB, os.X_OK):
        raise PermissionError(errno.EACCES, "no program may be run from there", str(target))
    return target


def _is_complete(target: Path, contents: Mapping[str, bytes]) -> bool:
    return all((target / name).is_file() for name in contents)


def _assemble(target: Path, contents: Mapping[str, bytes], interpreter: str) -> None:
    """Makes the folder beside its place and moves it in."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    aside = staging.with_name(f"{staging.name}-old")
    try:
        for name, content in contents.items():
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).write_bytes(content)
        (staging / STUB).chmod(0o755)
        (staging / "bin").mkdir()
        (staging / "bin" / "python3").symlink_to(interpreter)
        staging.chmod(0o755)
        try:
            os.rename(staging, target)
        except OSError:
            # It is there already: made by a faster process, or thinned by a cleaner of old files.
            if not _is_complete(target, contents):
                os.rename(target, aside)
                os.rename(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def cache_folder() -> Path:
    """Where galatea keeps what it can make again.

    Raises:
        FileNotFoundError: this user has no home folder.
    """
    chosen = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(chosen):  # a user without a home folder
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), chosen)
    return Path(chosen) / "galatea"
