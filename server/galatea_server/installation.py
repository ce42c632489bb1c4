"""Where the parts of the embedded Triton lie, and the backend directory made from them.

The nvidia-pytriton wheel brings NVIDIA's tritonserver with its Python backend. Triton accepts
backends that are written in Python, so a folder ``onnxruntime`` with our ``model.py`` serves the
very repository that NVIDIA's own ONNX Runtime backend serves in production.
"""

from __future__ import annotations

import ctypes.util
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


@dataclass(frozen=True)
class Installation:
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

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Environment variables for tritonserver and the stubs it starts.

        The stub takes no notice of virtual environments: the standard library is named by
        PYTHONHOME, and the packages by a variable that our backend reads.
        """
        libraries = [str(self.libraries)]
        if self.libpython is not None:
            libraries.append(str(self.libpython.parent))
        if "LD_LIBRARY_PATH" in inherited:
            libraries.append(inherited["LD_LIBRARY_PATH"])
        return {
            **inherited,
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "PYTHONHOME": sys.base_prefix,
            SITE: os.pathsep.join(map(str, self.site)),
        }


def locate() -> Installation:
    """Finds the installation of the running interpreter; nothing of it is imported.

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
    return Installation(
        triton=wheel / "tritonserver",
        libraries=wheel.parent / "nvidia_pytriton.libs",
        libpython=find_libpython(),
        site=site,
        release=version("nvidia-pytriton"),
    )


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


def backend_directory(installation: Installation, cache: Path | None = None) -> Path:
    """A folder with the backends ``python`` and ``onnxruntime`` as real files.

    Triton refuses links that lead out of the backend directory, so the parts are copied once for
    each version, into a cache.

    Args:
        cache: folder to keep it in; by default ``$XDG_CACHE_HOME/galatea``.

    Raises:
        MachineError: a part is missing, or the cache cannot be written.
    """
    python = installation.triton / "backends" / "python"
    parts = {
        "python/libtriton_python.so": python / "libtriton_python.so",
        "python/triton_python_backend_utils.py": python / "triton_python_backend_utils.py",
        "python/triton_python_backend_stub": installation.stub,
    }
    for part in parts.values():
        if not part.is_file():
            raise MachineError(
                f"{part}: is missing from nvidia-pytriton {installation.release}",
                "use Python 3.11 or 3.12, or run: galatea doctor",
            )
    model = files("galatea_server").joinpath("backends/onnxruntime/model.py").read_bytes()
    key = hashlib.sha256(model)
    for part in parts.values():
        key.update(f"{part.name} {part.stat().st_size} {installation.release}".encode())
    target = (cache or _cache()) / f"backends-{key.hexdigest()[:16]}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            for name, part in parts.items():
                (staging / name).parent.mkdir(exist_ok=True)
                shutil.copy(part, staging / name)
            (staging / "python" / "triton_python_backend_stub").chmod(0o755)
            (staging / "onnxruntime").mkdir()
            (staging / "onnxruntime" / "model.py").write_bytes(model)
            staging.chmod(0o755)
            os.rename(staging, target)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            if not target.is_dir():  # else another process was faster
                raise
    except OSError as error:
        raise MachineError(
            f"{target.parent}: the backend directory cannot be written: {error.strerror or error}",
            "set XDG_CACHE_HOME to a folder that you may write to",
        ) from error
    return target


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "galatea"
