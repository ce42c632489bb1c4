"""Pickled modules read as data: their tensors and constructor arguments, none of their code.

Some projects publish whole modules: pickles that name classes and, in NVlabs' snapshots, even carry
source text that an ordinary unpickling would execute. Here every class is an inert stand-in that
keeps what was stored, and of functions only those that make tensors and numbers are known.
"""

from __future__ import annotations

import collections
import io
import pickle
import tarfile
import types
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# NVlabs' torch_utils.persistence: a dict with the class's source, its name and the object's state.
PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")

ZIP, LEGACY = b"PK\x03\x04", pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # torch's formats


class PickledModule:
    """What was stored of an ``nn.Module``; it computes nothing."""

    dump_patches = False  # torch asks this of classes whose source a file before 1.6 carries

    def __init__(self) -> None:
        self.stored: dict[str, Any] = {}

    def __new__(cls) -> PickledModule:
        made = super().__new__(cls)
        made.stored = {}
        return made

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a module's state is no dict")
        self.stored = state

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments that NVlabs' persistent objects were made with."""
        given = self.stored.get("_init_kwargs", {})
        return dict(given) if isinstance(given, dict) else {}

    def state_dict(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of parameters and persistent buffers, named as in a state dict."""
        skipped = self._entries("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            for name, tensor in self._entries(kind).items():
                if isinstance(tensor, Tensor) and name not in skipped:
                    yield f"{prefix}{name}", tensor.detach()
        for name, module in self._entries("_modules").items():
            if isinstance(module, PickledModule):
                yield from module.state_dict(f"{prefix}{name}.")

    def _entries(self, kind: str) -> dict[str, Any]:
        entries = self.stored.get(kind, {})
        return dict.fromkeys(entries) if isinstance(entries, set) else dict(entries or {})


def read_pickled(path: Path, modules: tuple[str, ...]) -> Any:
    """Reads a file with pickled modules: PyTorch's zip or pre-1.6 format, or a plain pickle.

    Args:
        modules: patterns of the classes that are read as :class:`PickledModule`, beside torch's own
            layers.

    Raises:
        pickle.UnpicklingError: something else was asked for (it is named), or the file is damaged.
        Exception: others that unpickling a damaged file brings.
    """

    class Reader(_Reader):
        known = (*modules, "torch.nn.modules.*", "torch.nn.*")

    with path.open("rb") as file:
        start = file.read(len(LEGACY))
    if not start.startswith(ZIP) and start != LEGACY:
        if tarfile.is_tarfile(path):
            raise pickle.UnpicklingError("a tar archive of PyTorch before 0.1.2")
        with path.open("rb") as file:
            return Reader(file).load()
    if start.startswith(ZIP):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise pickle.UnpicklingError("Unsupported class TorchScript")
    safe: Any = types.SimpleNamespace(
        Unpickler=Reader,
        load=lambda file, **options: Reader(file, **options).load(),
        __name__="restricted",
    )
    return torch.load(path, map_location="cpu", pickle_module=safe, weights_only=False)


class _Reader(pickle.Unpickler):
    """An unpickler that knows tensors, numbers, containers and stand-ins for modules."""

    known: tuple[str, ...] = ()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in SAFE:
            return SAFE[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if any(fnmatchcase(f"{module}.{name}", pattern) for pattern in self.known):
            return PickledModule
        raise pickle.UnpicklingError(f"Unsupported class {module}.{name}")


def _tensor_from_bytes(data: bytes) -> Any:
    """A storage inside a plain pickle, which is a small checkpoint file of its own."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _persistent(meta: Any) -> PickledModule:
    made = PickledModule()
    made.__setstate__(meta.get("state", {}) if isinstance(meta, dict) else None)
    return made


def _empty_array(kind: Any, shape: Any, dtype: Any) -> Any:
    """numpy's arrays begin empty and get their content with their state."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("an array with a size before its content")
    return np.empty(0, dtype=np.dtype(dtype))


SAFE: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("dnnlib.util", "EasyDict"): dict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch.storage", "_load_from_bytes"): _tensor_from_bytes,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    PERSISTENT: _persistent,
}
for _package in ("numpy.core.multiarray", "numpy._core.multiarray"):
    SAFE[_package, "_reconstruct"] = _empty_array
    SAFE[_package, "scalar"] = np.float64(0).__reduce__()[0]
