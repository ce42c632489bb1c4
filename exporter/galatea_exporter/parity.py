"""Parity: PyTorch against ONNX Runtime, before anything is released."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from galatea.errors import ExportError
from galatea_exporter.graph import example_inputs
from galatea_exporter.noise_graph import Noise
from galatea_exporter.sampler.noise import noise_v1
from galatea_exporter.stages import Anchor, Stage

MAX_LEVELS = 1  # uint8 levels
MAX_SHARE = 1e-3  # of uint8 values that may differ,
USUAL_TOLERANCE = 1e-4  # where floats may be so far apart; with a larger tolerance more fall over


@dataclass(frozen=True)
class Difference:
    """How far two runs of a stage are apart, over all batches and outputs.

    Attributes:
        max_abs: the most in the floats (probes, or outputs that are floats).
        max_levels: the most in the uint8 image; a mask flips by 255 at its threshold and is left
            out.
        differing, values: how many uint8 values (image and mask) differ, and of how many.
    """

    max_abs: float = 0.0
    max_levels: int = 0
    differing: int = 0
    values: int = 0

    @property
    def share_differing(self) -> float:
        """The share of uint8 values that differ."""
        return self.differing / max(1, self.values)

    def __add__(self, other: Difference) -> Difference:
        """Both together."""
        return Difference(
            max(self.max_abs, other.max_abs),
            max(self.max_levels, other.max_levels),
            self.differing + other.differing,
            self.values + other.values,
        )


def compare(stage: Stage, session: Any, batches: Sequence[int], tolerance: float) -> Difference:
    """Runs a stage in PyTorch and its graph in ONNX Runtime on the CPU.

    Args:
        session: onnxruntime.InferenceSession of the graph with its probes.
        batches: batch sizes to try.
        tolerance: allowed max abs difference of the floats.

    Raises:
        ExportError: a figure is beyond its bound; stage, batch, figure and bound are named.
    """
    specs = (*stage.outputs, *stage.probes)
    total = Difference()
    for batch in batches:
        inputs = example_inputs(stage, batch, seed=batch)
        feed = {spec.name: t.numpy() for spec, t in zip(stage.inputs, inputs, strict=True)}
        names = [spec.name for spec in specs]
        actual = session.run(names, feed)
        with torch.no_grad(), anchored(stage.module, dict(zip(names, actual, strict=True))):
            result = stage.module(*inputs)
        expected = [t.numpy() for t in (result if isinstance(result, tuple) else (result,))]
        for spec, want, got in zip(specs, expected, actual, strict=True):
            apart = difference(spec.name, want, got)
            total += apart
            judge(apart, tolerance, f"stage {stage.name!r}, {spec.name}, batch {batch}")
        if isinstance(stage.module, Noise):
            _judge_noise(stage.module, feed["seed"], actual)
    _judge_share(total, tolerance, f"stage {stage.name!r}")
    return total


@contextmanager
def anchored(module: nn.Module, probes: Mapping[str, NDArray[np.float32]]) -> Iterator[None]:
    """Lets a module go on from these floats at its anchors, see :class:`Anchor`."""
    handles = [
        anchor.register_forward_hook(lambda *_, given=probes[anchor.probe]: torch.tensor(given))
        for anchor in module.modules()
        if isinstance(anchor, Anchor)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def difference(name: str, want: NDArray[np.generic], got: NDArray[np.generic]) -> Difference:
    """How far an output or a probe is from what it should be.

    Raises:
        ExportError: it has another shape or dtype.
    """
    if want.shape != got.shape or want.dtype != got.dtype:
        raise ExportError(
            f"{name} is {got.dtype}{list(got.shape)} in ONNX Runtime, "
            f"{want.dtype}{list(want.shape)} in PyTorch",
            "this is a fault of the family's network; please report it",
        )
    apart = np.abs(want.astype(np.float64) - got.astype(np.float64))
    if not np.isfinite(apart).all():
        return Difference(max_abs=float("inf"))
    if want.dtype == np.uint8:
        levels = 0 if name == "mask" else int(apart.max(initial=0))
        return Difference(0.0, levels, int((apart > 0).sum()), apart.size)
    return Difference(max_abs=float(apart.max(initial=0)))


def judge(difference: Difference, tolerance: float, where: str) -> None:
    """Whether a difference is within its bounds.

    Raises:
        ExportError: it is not; `where`, figure and bound are named.
    """
    _bound(where, "max abs difference", difference.max_abs, tolerance)
    _bound(where, "uint8 levels", difference.max_levels, MAX_LEVELS)


def _judge_share(total: Difference, tolerance: float, where: str) -> None:
    # Of all batches together: whether a float near a level falls to this or that side of it is
    # chance, and a single small image has too few of them. PyTorch itself does not always give the
    # same bits: they depend on where its tensors happen to lie in memory.
    _bound(where, "share of differing uint8 values", total.share_differing, most_share(tolerance))


def most_share(tolerance: float) -> float:
    """The share of uint8 values that may differ where floats may be so far apart."""
    return MAX_SHARE * max(1.0, tolerance / USUAL_TOLERANCE)


def _bound(where: str, what: str, figure: float, bound: float) -> None:
    if not figure <= bound:
        raise ExportError(
            f"{where}: {what} between PyTorch and ONNX Runtime is {figure:.3g}, "
            f"allowed is {bound:.3g}",
            "nothing was written; check the checkpoint for NaNs and the value range",
        )


def _judge_noise(
    noise: Noise, seeds: NDArray[np.int64], outputs: Sequence[NDArray[np.float32]]
) -> None:
    for (stream, size), got in zip(noise.sizes.items(), outputs, strict=True):
        if noise_v1(seeds[:, 0], size, stream).tobytes() != got.tobytes():
            raise ExportError(
                "the noise stage does not give the bits of noise v1",
                "install the versions of torch, onnxscript and onnxruntime that galatea[export] "
                "names",
            )
