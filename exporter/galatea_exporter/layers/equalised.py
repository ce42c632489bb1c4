"""Layers with an equalised learning rate, and pixel normalisation (Karras et al. 2017).

Such a layer is trained with weights of unit variance that are multiplied by √(2 / fan-in) at every
call (arXiv:1710.10196, section 4.1). Here the factor goes into the weights once, after loading, so
that graphs hold plain convolutions.
"""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn.functional import conv2d, linear

from galatea_exporter.checkpoint import State, load_strictly


class PixelNorm(nn.Module):
    """Scales each pixel's channels to a mean square of 1; float32 [N, C, …] → the same."""

    eps: Tensor

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        # One axis, because the ONNX exporter takes a scalar of 1e-8 for 0 and drops the addition.
        self.register_buffer("eps", torch.full((1,), eps), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        norm = vector_norm(features, dim=1, keepdim=True)
        return features / torch.sqrt(norm.square() * (1 / features.shape[1]) + self.eps)


class Weights(nn.Module):
    """Tensors of an equalised layer as rosinality's code names them; fan-in is that of axis 1.

    Args:
        shape: of ``weight_orig``.
        bias: length of ``bias``, 0 for none.
    """

    def __init__(self, *shape: int, bias: int = 0) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.zeros(shape))
        if bias:
            self.bias = nn.Parameter(torch.zeros(bias))

    def fold(self) -> None:
        """Puts the factor into the weights, once."""
        with torch.no_grad():
            self.weight_orig.mul_(sqrt(2 / self.weight_orig[0].numel()))


class EqualisedConv2d(nn.Module):
    """A convolution of stride 1 whose tensors are ``conv.weight_orig`` and ``conv.bias``."""

    def __init__(self, c_in: int, c_out: int, kernel: int, padding: int = 0) -> None:
        super().__init__()
        self.conv = Weights(c_out, c_in, kernel, kernel, bias=c_out)
        self.padding = padding

    def forward(self, features: Tensor) -> Tensor:
        return conv2d(features, self.conv.weight_orig, self.conv.bias, padding=self.padding)


class EqualisedLinear(nn.Module):
    """A linear layer whose tensors are ``linear.weight_orig`` and ``linear.bias``."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.linear = Weights(c_out, c_in, bias=c_out)

    def forward(self, features: Tensor) -> Tensor:
        return linear(features, self.linear.weight_orig, self.linear.bias)


def activated(*convolutions: EqualisedConv2d, leakiness: float, pixel_norm: bool) -> nn.Sequential:
    """Convolutions, each with pixel normalisation, where it is wanted, and LeakyReLU behind it."""
    layers: list[nn.Module] = []
    for convolution in convolutions:
        layers += [convolution, *[PixelNorm()] * pixel_norm, nn.LeakyReLU(leakiness)]
    return nn.Sequential(*layers)


def load_equalised(network: nn.Module, state: State, path: Path, family: str) -> None:
    """Loads strictly, then folds the factors of all layers that have a ``fold``.

    Raises:
        ExportError: names what is missing, left over, or of another shape.
    """
    load_strictly(network, state, path, family)
    for module in network.modules():
        fold = getattr(module, "fold", None)
        if fold is not None:
            fold()


def unit_weights(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A random state dict as such a network is initialised: normal weights of unit variance."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(tensor.shape, generator=generator) * (1.0 if tensor.ndim > 1 else 0.1)
        for key, tensor in network.state_dict().items()
    }


def size_of(state: State, key: str, axis: int) -> int:
    """A size that a tensor's shape tells; 1 if it is not there, and strict loading names it."""
    shape = state[key].shape if key in state else ()
    return shape[axis] if -len(shape) <= axis < len(shape) else 1
