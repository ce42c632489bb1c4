"""Resizing inside the graph, by the two rules that published distances were computed with.

Both are two matrix products with weights that follow from the size of the picture. The operator
Resize of ONNX has neither rule on every runtime: antialiasing was wrong on CUDA until 2025 and
TensorRT refuses it.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

Rule = Literal["tf1", "clean"]
RULES: tuple[str, ...] = get_args(Rule)

A = -0.5  # Pillow's bicubic kernel; PyTorch's has -0.75


class Resize(nn.Module):
    """uint8 [N, H, W, 3] → float32 [N, 3, size, size] of levels 0 … 255, not rounded.

    Args:
        size: height and width of the result.
        rule: "tf1" is TensorFlow 1's bilinear interpolation, whose pixels have no centres, as in
            the original FID and in torch-fidelity; "clean" is Pillow's bicubic filter, which
            averages where it shrinks, clipped, as in clean-fid (arXiv:2104.11222).
    """

    def __init__(self, size: int, rule: Rule) -> None:
        super().__init__()
        self.size, self.rule = size, rule

    def forward(self, image: Tensor) -> Tensor:
        floats = image.permute(0, 3, 1, 2).float()
        rows, columns = self._weights(floats.shape[2]), self._weights(floats.shape[3])
        resized = rows @ floats @ columns.T
        return resized.clamp(0, 255) if self.rule == "clean" else resized

    def _weights(self, length: int) -> Tensor:
        """How much of each of `length` pixels is in each pixel of the result, [size, length]."""
        taps = torch.arange(length, dtype=torch.float32)
        step = (taps[-1] + 1) / self.size
        places = torch.arange(self.size, dtype=torch.float32)[:, None]
        if self.rule == "tf1":
            weights = (1 - (taps - places * step).abs()).clamp(min=0)
        else:
            distance = taps + 0.5 - (places + 0.5) * step
            weights = cubic(distance.abs() / step.clamp(min=1))
        return weights / weights.sum(1, keepdim=True)


def cubic(x: Tensor) -> Tensor:
    """The kernel of Keys 1981 at distances `x` of at least 0."""
    near = ((A + 2) * x - (A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * A
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
