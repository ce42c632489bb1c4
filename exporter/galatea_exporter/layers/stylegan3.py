"""The synthesis network of StyleGAN3 (Karras et al. 2021, arXiv:2106.12423).

It has no noise: Fourier features of a plane, which can be moved and turned, go through modulated
convolutions with filtered activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, pi, sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from galatea_exporter.layers.filtered import FilteredActivation
from galatea_exporter.layers.stylegan import Dense, ModulatedConv, clamped

# Hidden features get channels of zeros up to a multiple of this. ONNX Runtime's blocked kernels
# need it (a depthwise convolution of 181 channels is 5 times slower than one of 192), and tensor
# cores like it.
CHANNEL_BLOCK = 16


class SynthesisInput(nn.Module):
    """w and a transformation → Fourier features of a plane, [N, channels, size, size].

    Args:
        size: side in samples, with a margin around the image.
        sampling_rate: samples to the image's side.
        bandwidth: from here to half the sampling rate, frequencies fade.
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor
    grid: Tensor

    def __init__(
        self, w_dim: int, channels: int, size: int, sampling_rate: int, bandwidth: float
    ) -> None:
        super().__init__()
        self.size, self.bandwidth, self.fading = size, bandwidth, sampling_rate / 2 - bandwidth
        self.weight = nn.Parameter(torch.zeros(channels, channels))
        self.affine = Dense(w_dim, 4)
        self.register_buffer("transform", torch.zeros(3, 3))
        self.register_buffer("freqs", torch.zeros(channels, 2))
        self.register_buffer("phases", torch.zeros(channels))
        axis = (torch.arange(size) + 0.5 - size / 2) / sampling_rate
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("grid", torch.stack([x, y]).flatten(1), persistent=False)

    def fold(self) -> None:
        """Scales the weight and adds the channels of zeros."""
        with torch.no_grad():
            weight = _grown(self.weight, _blocked(len(self.freqs))) / sqrt(len(self.freqs))
            self.weight = nn.Parameter(weight[:, :, None, None])

    def forward(self, w: Tensor, x: Tensor, y: Tensor, degrees: Tensor) -> Tensor:
        """w [N, w_dim]; translation and rotation, [N, 1] each."""
        told = self.affine(w)  # cosine and sine of a rotation, and a translation, to a scale
        told = told * torch.rsqrt((told[:, :2] * told[:, :2]).sum(dim=1, keepdim=True))
        turned = self.freqs @ _rotation(told[:, :1], told[:, 1:2])
        # Where a sample lies: the inverse of what the caller asks for, then the stored transform,
        # then what w says.
        angle = degrees * (pi / 180)
        back = _rotation(angle.cos(), angle.sin())
        stored, offset = self.transform[:2, :2], self.transform[:2, 2:]
        moved = offset - told[:, 2:, None] - stored @ (back @ torch.stack([x, y], dim=1))
        phases = self.phases[:, None] + turned @ moved
        freqs = turned @ (stored @ back)
        speed = (freqs * freqs).sum(dim=2, keepdim=True).sqrt()
        amplitudes = (1 - (speed - self.bandwidth) / self.fading).clamp(0, 1)
        waves = torch.sin((freqs @ self.grid + phases) * (2 * pi)) * amplitudes
        return conv2d(waves.reshape(-1, len(self.freqs), self.size, self.size), self.weight)


@dataclass(frozen=True)
class LayerShape:
    """Sizes of a layer, as its name and its tensors tell.

    Attributes:
        name: ``L<index>_<out>_<c_out>``.
        size, out: sides of what comes in and goes out.
        up, down: factors of the sampling rate before and after the activation.
        up_taps, down_taps: shapes of the filters; () where there is none.
        last: makes the image.
    """

    name: str
    c_in: int
    c_out: int
    kernel: int
    size: int
    out: int
    up: int
    down: int
    up_taps: tuple[int, ...]
    down_taps: tuple[int, ...]
    last: bool


class SynthesisLayer(ModulatedConv):
    """[N, c_in, size, size] and w → [N, c_out, out, out].

    Args:
        gain: of the image.
    """

    magnitude_ema: Tensor
    up_filter: Tensor
    down_filter: Tensor

    def __init__(self, w_dim: int, shape: LayerShape, bound: float | None, gain: float) -> None:
        super().__init__(
            w_dim, shape.c_in, shape.c_out, shape.kernel,
            padding=shape.kernel - 1,
            demodulate=not shape.last,
            gain=gain if shape.last else 1.0,
        )  # fmt: skip
        self.shape = shape
        self.bound = bound if bound is None or not shape.last else bound * gain
        self.register_buffer("magnitude_ema", torch.zeros([]))
        for name, taps in (("up_filter", shape.up_taps), ("down_filter", shape.down_taps)):
            self.register_buffer(name, torch.ones(taps or 1), persistent=bool(taps))
        self.activation: FilteredActivation | None = None

    def fold(self) -> None:
        """Puts the input's magnitude into the weight, and adds the channels of zeros."""
        shape = self.shape
        c_in, c_out = _blocked(shape.c_in), shape.c_out if shape.last else _blocked(shape.c_out)
        with torch.no_grad():
            if self.demodulate:
                self.weight.mul_(self.weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt())
            super().fold()
            weight = self.weight * self.magnitude_ema.rsqrt()
            self.weight = nn.Parameter(_grown(weight, c_out, c_in))
            self.bias = nn.Parameter(_grown(self.bias, c_out))
            # Not 0: half precision has no epsilon that would save a division by it.
            self.energy = _grown(self.energy, c_out, c_in, value=1.0)
            self.epsilon = _grown(self.epsilon, c_out)
            self.affine.weight = nn.Parameter(_grown(self.affine.weight, c_in))
            self.affine.bias = nn.Parameter(_grown(self.affine.bias, c_in))
        if not shape.last:
            self.activation = FilteredActivation(
                self.up_filter, self.down_filter,
                up=shape.up, down=shape.down,
                size=shape.size + shape.kernel - 1, out=shape.out,
                channels=c_out, bound=self.bound,
            )  # fmt: skip

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        made = super().forward(features, w)
        if self.activation is None:
            return clamped(made, self.bound)
        activated: Tensor = self.activation(made)
        return activated


class Synthesis(nn.Module):
    """ws and a transformation → image."""

    def __init__(self, first: SynthesisInput, layers: list[SynthesisLayer]) -> None:
        super().__init__()
        self.input = first
        self.layers = layers
        for layer in layers:
            self.add_module(layer.shape.name, layer)
        self.num_ws = len(layers) + 1

    def forward(self, ws: Tensor, x: Tensor, y: Tensor, degrees: Tensor) -> Tensor:
        """ws [N, num_ws, w_dim], the others [N, 1] → image [N, channels, H, W]."""
        features: Tensor = self.input(ws[:, 0], x, y, degrees)
        for k, layer in enumerate(self.layers):
            features = layer(features, ws[:, k + 1])
        return features


def _blocked(channels: int) -> int:
    return CHANNEL_BLOCK * ceil(channels / CHANNEL_BLOCK)


def _grown(tensor: Tensor, *sizes: int, value: float = 0.0) -> Tensor:
    """Grown to these sizes at the end of its first axes."""
    missing = [size - have for size, have in zip(sizes, tensor.shape, strict=False)]
    ends = [*[0] * (tensor.ndim - len(sizes)), *reversed(missing)]
    return pad(tensor, [side for end in ends for side in (0, end)], value=value)


def _rotation(cosine: Tensor, sine: Tensor) -> Tensor:
    """[N, 1] each → matrices [N, 2, 2]."""
    rows = torch.cat([cosine, -sine], dim=1), torch.cat([sine, cosine], dim=1)
    return torch.stack(rows, dim=1)
