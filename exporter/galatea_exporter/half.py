"""Stages in float16, for GPUs: the same inputs and outputs, half the weights."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from galatea_exporter.stages import Stage, TensorSpec

# Of a prediction of unit variance. Float16 has 11 bits; the networks measured were 1e-3 off.
TOLERANCE = 2e-2
WHOLE = ("t",)  # inputs that stay float32: float16 does not tell one late timestep from the next


def in_half(stage: Stage) -> Stage:
    """The stage with its weights and sums in float16, inputs and outputs as they were."""
    return replace(stage, module=Half(stage.module, stage.inputs).eval())


class Half(nn.Module):
    """A copy of a module in float16 between float32 inputs and outputs."""

    def __init__(self, module: nn.Module, inputs: tuple[TensorSpec, ...]) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).half()
        self._cast = [spec.dtype == "float32" and spec.name not in WHOLE for spec in inputs]

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        given = [
            tensor.to(torch.float16) if cast else tensor
            for tensor, cast in zip(inputs, self._cast, strict=True)
        ]
        made = self.module(*given)
        return tuple(one.float() for one in made) if isinstance(made, tuple) else made.float()
