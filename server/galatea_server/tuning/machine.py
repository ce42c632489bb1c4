"""Which variants of a release the machine at hand can run, and what it is called."""

from __future__ import annotations

from collections.abc import Sequence

from galatea.errors import InvalidInput
from galatea.load import here
from galatea.repository import Release
from galatea.tensorrt_engines import gpus_here
from galatea_server.configurations import CPU, configurations
from galatea_server.installation import NvidiaTriton, locate

__all__ = ["device", "is_on_gpu", "runnable"]

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


def is_on_gpu(variant: str) -> bool:
    """Whether a variant of a release needs a GPU."""
    return variant != CPU


def runnable(release: Release, wanted: Sequence[str]) -> list[str]:
    """The variants to try, the one to compare with first.

    A variant whose configurations are those of another one, such as ``cuda-fp16`` of a release
    without a float16 graph, is left out.

    Args:
        wanted: names; empty for all that the machine can run.

    Raises:
        InvalidInput: a wanted variant is none of the release's, or cannot run here.
        MachineError: there is no Triton on this machine.
    """
    there = sorted(release.variants(), key=lambda name: (name != CPU, name))
    for variant in wanted:
        if variant not in there:
            raise InvalidInput(
                f"{release.name} has no variant {variant!r}",
                f"it has: {', '.join(there) or 'none'}",
            )
        lack = _lack(variant)
        if lack:
            raise InvalidInput(
                f"the variant {variant!r} cannot be measured here: {lack}",
                "leave it out, or run it where there is one",
            )
    chosen = list(dict.fromkeys(wanted)) or [name for name in there if not _lack(name)]
    seen: list[dict[str, object]] = []
    different = []
    for variant in chosen:
        configs = configurations(release, variant)
        if configs not in seen:
            seen.append(configs)
            different.append(variant)
    return different


def device(variant: str) -> tuple[str, int]:
    """What a variant runs on, in words, and the number of GPUs."""
    gpus = gpus_here() if is_on_gpu(variant) else ()
    if not gpus:
        return here()[0], 0
    names = sorted({gpu.name for gpu in gpus})
    return f"{len(gpus)} × {', '.join(names)}", len(gpus)


def _lack(variant: str) -> str:
    """What this machine lacks to run a variant; nothing where it has all."""
    if not is_on_gpu(variant):
        return ""
    if not gpus_here():
        return "this machine has no GPU"
    if isinstance(locate(), NvidiaTriton):  # with an ONNX Runtime of its own, made for GPUs
        return ""
    from onnxruntime import get_available_providers

    provider = PROVIDERS.get(variant.partition("-")[0], "")
    return "" if provider in get_available_providers() else f"onnxruntime has no {provider}"
