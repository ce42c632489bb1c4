"""TensorRT engines that were added to a release, and whether this machine can run them.

An engine runs on GPUs of the compute capability that it was built on, with the TensorRT that built
it, and nowhere else.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from galatea.card import from_plain
from galatea.errors import RepositoryError
from galatea.local_variants import LocalVariant

__all__ = ["Engine", "Gpu", "engines_of", "gpus_here", "misfit", "misfits", "tensorrt_here"]

ENGINES = "engines"  # in the facts of a local variant
NVIDIA_VERSION = "TRT_VERSION"  # by which NVIDIA's images tell their TensorRT


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        compute_capability: as Triton writes it: "8.0", "9.0".
    """

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Engine:
    """What an engine was built with.

    Attributes:
        file: path below the repository.
        compute_capability: of the GPU.
        tensorrt: version that built it.
        gpu: its name.
    """

    file: str
    compute_capability: str
    tensorrt: str
    gpu: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for the facts of a local variant."""
        return asdict(self)


def engines_of(variant: LocalVariant) -> list[Engine]:
    """The engines that a local variant has.

    Raises:
        RepositoryError: its manifest does not tell what they need.
    """
    try:
        return [from_plain(Engine, facts) for facts in variant.facts.get(ENGINES, [])]
    except TypeError as error:
        raise RepositoryError(
            f"{variant.manifest}: an engine cannot be read from it ({error})",
            f"delete it, and run: galatea engine build {variant.name}",
        ) from error


@functools.cache
def gpus_here() -> tuple[Gpu, ...]:
    """The GPUs of this machine, as nvidia-smi tells them; none where there is no nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    done = subprocess.run(
        [program, "--query-gpu=name,compute_cap", "--format=csv,noheader"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        return ()
    rows = [line.rpartition(",") for line in done.stdout.splitlines() if "," in line]
    return tuple(Gpu(name.strip(), capability.strip()) for name, _, capability in rows)


def tensorrt_here() -> str | None:
    """The TensorRT of this machine: that of NVIDIA's image, else the Python package's; or None."""
    told = os.environ.get(NVIDIA_VERSION)
    if told:
        return told
    for package in ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def misfits(variant: LocalVariant, *, to_be_served: str | None) -> Iterator[str]:
    """Why this machine cannot run a variant's engines, in a sentence; nothing where it can.

    Args:
        to_be_served: the variant that shall be served here, of which one engine must fit; others
            do not matter. None: all variants matter, where the machine has a GPU at all.
    """
    engines, gpus = engines_of(variant), gpus_here()
    if not engines or to_be_served not in (None, variant.variant):
        return
    if to_be_served is None and not gpus:
        return
    reason = misfit(engines, gpus, tensorrt_here())
    if reason is not None:
        remedy = f"run: galatea engine build {variant.name}" if gpus else "serve another variant"
        yield f"{engines[0].file}: {reason}; {remedy}"


def misfit(engines: Sequence[Engine], gpus: Sequence[Gpu], tensorrt: str | None) -> str | None:
    """Why none of several engines of one stage can run; None where one can on every GPU.

    Args:
        gpus: of the machine.
        tensorrt: version there, as far as it is known.
    """
    if not gpus:
        return "an engine needs a GPU, and this machine has none"
    by_capability = {engine.compute_capability: engine for engine in engines}
    for gpu in gpus:
        engine = by_capability.get(gpu.compute_capability)
        if engine is None:
            built = ", ".join(sorted(by_capability))
            return (
                f"was built for compute capability {built}, and this machine's {gpu.name} has "
                f"{gpu.compute_capability}"
            )
        if tensorrt is not None and _release(engine.tensorrt) != _release(tensorrt):
            return f"was built by TensorRT {engine.tensorrt}, and this machine has {tensorrt}"
    return None


def _release(version: str) -> list[str]:
    """Of a version of TensorRT, what an engine depends on."""
    return version.split(".")[:3]
