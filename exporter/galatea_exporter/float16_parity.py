"""Parity of float16: PyTorch's float32 against the graphs in float16, on a batch of seeds.

What a GPU will compute is rehearsed on the CPU, see :func:`galatea_exporter.float16.rehearsal`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from galatea.card import ValueRange
from galatea.errors import ExportError
from galatea_exporter.graph import example_inputs
from galatea_exporter.parity import Difference, anchored, difference
from galatea_exporter.stages import Stage, StagedGenerator, TensorSpec

SEEDS = 4  # images that are compared
MAX_LEVELS = 8  # uint8 levels, and as much of an image's range in floats
MIN_PSNR = 50.0  # dB
# Of a prediction of unit variance. Float16 has 11 bits; the networks measured were 1e-3 off.
TOLERANCE = 2e-2

Array = NDArray[Any]


@dataclass(frozen=True)
class HalfDifference:
    """How far float16 is from float32.

    Attributes:
        values: in floats, as far as they lie within the image's range, and in uint8 levels.
        noise: sum of the squared errors of the images, in units of their range.
        pixels: values of the images.
    """

    values: Difference = field(default_factory=Difference)
    noise: float = 0.0
    pixels: int = 0

    def __add__(self, other: HalfDifference) -> HalfDifference:
        """Both together."""
        return HalfDifference(
            self.values + other.values, self.noise + other.noise, self.pixels + other.pixels
        )

    @property
    def psnr(self) -> float | None:
        """Peak signal-to-noise ratio of the images in dB; None where nothing differs."""
        return -10 * math.log10(self.noise / self.pixels) if self.noise > 0 else None


def tolerance_of(stage: Stage, rule: ValueRange) -> float:
    """The most that a stage's floats may differ by, in units of the network's output."""
    makes_images = any(spec.name == "image" for spec in stage.outputs)
    return MAX_LEVELS / 255 * (rule.high - rule.low) if makes_images else TOLERANCE


def compare_half(
    generator: StagedGenerator, sessions: Mapping[str, Any], batch: int
) -> HalfDifference:
    """Runs a chain of stages from seeds or pictures to images; of diffusion, each stage alone.

    Args:
        sessions: onnxruntime.InferenceSession of graphs with their probes, by stage; the other
            stages run in PyTorch.
        batch: how many images.

    Raises:
        ExportError: a figure is beyond its bound; it is named.
    """
    given: dict[str, Tensor] = {}
    total = HalfDifference()
    for stage in generator.stages:
        examples = zip(stage.inputs, example_inputs(stage, batch), strict=True)
        inputs = {spec.name: given.setdefault(spec.name, tensor) for spec, tensor in examples}
        names = [spec.name for spec in (*stage.outputs, *stage.probes)]
        actual: dict[str, Array] = {}
        if stage.name in sessions:
            feed = {name: tensor.numpy() for name, tensor in inputs.items()}
            actual = dict(zip(names, sessions[stage.name].run(names, feed), strict=True))
        with torch.no_grad(), anchored(stage.module, actual) if actual else nullcontext():
            result = stage.module(*inputs.values())
        results = result if isinstance(result, tuple) else (result,)
        expected = dict(zip(names, results, strict=True))
        given |= {spec.name: expected[spec.name] for spec in stage.outputs}
        if actual:
            apart = _apart(stage, expected, actual, generator.value_range)
            tolerance = tolerance_of(stage, generator.value_range)
            _judge(apart, tolerance, f"stage {stage.name!r} in float16")
            total += apart
    return total


def _apart(
    stage: Stage, expected: Mapping[str, Tensor], actual: Mapping[str, Array], rule: ValueRange
) -> HalfDifference:
    """The outputs of a stage, and the floats of its image."""
    total = HalfDifference()
    for spec in (*stage.outputs, *(probe for probe in stage.probes if probe.name == "floats")):
        want, got = expected[spec.name].numpy(), actual[spec.name]
        if spec.name == "floats":  # what lies beyond is clamped
            want, got = (np.clip(array, rule.low, rule.high) for array in (want, got))
        total += HalfDifference(difference(spec.name, want, got), *_noise(spec, want, got))
    return total


def _noise(spec: TensorSpec, want: Array, got: Array) -> tuple[float, int]:
    if spec.name != "image":
        return 0.0, 0
    errors = (want.astype(np.float64) - got) / (255 if want.dtype == np.uint8 else 1)
    return float(np.square(errors).sum()), errors.size


def _judge(apart: HalfDifference, tolerance: float, where: str) -> None:
    """Whether it is within its bounds.

    Raises:
        ExportError: it is not; `where`, figure and bound are named.
    """
    values, problem = apart.values, ""
    if not values.max_abs <= tolerance:
        problem = f"max abs difference is {values.max_abs:.3g}, allowed is {tolerance:.3g}"
    elif values.max_levels > MAX_LEVELS:
        problem = f"{values.max_levels} uint8 levels differ, allowed are {MAX_LEVELS}"
    elif apart.psnr is not None and apart.psnr < MIN_PSNR:
        problem = f"PSNR is {apart.psnr:.1f} dB, asked are {MIN_PSNR:g}"
    if problem:
        raise ExportError(
            f"{where}: {problem}", "nothing was written; export it without float16 (--fp16)"
        )
