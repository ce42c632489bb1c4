"""The synthesis network of StyleGAN2 (Karras et al. 2019, arXiv:1912.04958).

Three architectures of its section 4.1: "skip" adds up an image from every resolution and is the one
that is published; "resnet" adds a shortcut past the convolutions of each resolution; "orig" has
neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from galatea_exporter.layers.stylegan import GAINS, Activation, ModulatedConv, activate, clamped

NoiseMode = Literal["const", "none", "random"]
Architecture = Literal["orig", "skip", "resnet"]
FIRST = 4  # pixels, the side of the learned constant


@dataclass(frozen=True)
class Shared:
    """What all layers of a synthesis network have in common.

    Attributes:
        w_dim: length of an intermediate latent.
        channels: of the image.
        taps: length of the resampling filter, an even number.
        noise: "absent" where the checkpoint has no noise.
    """

    w_dim: int
    channels: int
    taps: int
    noise: NoiseMode | Literal["absent"]
    activation: Activation
    conv_clamp: float | None


class Filter(nn.Module):
    """Base of what has a ``resample_filter``, a low-pass of [T, T] taps with the sum 1."""

    resample_filter: Tensor

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self.register_buffer("resample_filter", torch.zeros(shared.taps, shared.taps))


def doubled(features: Tensor, kernel: Tensor, groups: int = 1) -> Tensor:
    """[N, C, H, W] → [N, C', 2H, 2W] by a transposed convolution with [C, C' / groups, T, T]."""
    padding = kernel.shape[-1] // 2 - 1
    return conv_transpose2d(features, kernel, stride=2, padding=padding, groups=groups)


class SynthesisLayer(ModulatedConv):
    """[N, c_in, H, W] and w → [N, c_out, resolution, resolution]: convolution, noise, activation.

    Args:
        doubling: the convolution is a transposed one of stride 2, and the filter follows. Folded
            into one kernel they would need four times the multiplications.
        gain: of the output, besides that of the activation.
    """

    resample_filter: Tensor
    smoothing: Tensor
    noise_const: Tensor

    def __init__(
        self,
        shared: Shared,
        c_in: int,
        c_out: int,
        resolution: int,
        *,
        doubling: bool = False,
        gain: float = 1.0,
    ) -> None:
        gain_of_all = gain * GAINS[shared.activation]
        super().__init__(shared.w_dim, c_in, c_out, 3, padding=1, gain=gain_of_all)
        self.resolution, self.doubling = resolution, doubling
        self.activation, self.noise = shared.activation, shared.noise
        self.bound = None if shared.conv_clamp is None else shared.conv_clamp * gain
        self.register_buffer("resample_filter", torch.zeros(shared.taps, shared.taps))
        self.register_buffer("smoothing", torch.zeros(0), persistent=False)
        if self.noise != "absent":
            self.register_buffer("noise_const", torch.zeros(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))

    def fold(self) -> None:
        """Puts strength and gain into the noise, and the filter into a depthwise kernel."""
        super().fold()
        with torch.no_grad():
            if self.noise != "absent":
                self.noise_strength.mul_(self.gain)
                self.noise_const = self.noise_const * self.noise_strength
            if self.doubling:
                self.weight = nn.Parameter(self.weight.transpose(0, 1).contiguous())
                kernel = 4 * self.resample_filter.flip(0, 1)
                self.smoothing = kernel.repeat(len(self.bias), 1, 1, 1)

    def convolve(self, features: Tensor) -> Tensor:
        if not self.doubling:
            return super().convolve(features)
        wide = conv_transpose2d(features, self.weight, stride=2)
        padding = len(self.resample_filter) // 2 - 1
        return conv2d(wide, self.smoothing, padding=padding, groups=len(self.bias))

    def forward(self, features: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """`noise` [N, 1, resolution, resolution] is there in the mode random."""
        made = super().forward(features, w)
        if noise is not None:
            made = made + noise * self.noise_strength
        elif self.noise == "const":
            made = made + self.noise_const
        return clamped(activate(made, self.activation), self.bound)


class ToImage(ModulatedConv):
    """[N, c_in, H, W] and w → [N, channels, H, W]."""

    def __init__(self, shared: Shared, c_in: int) -> None:
        super().__init__(shared.w_dim, c_in, shared.channels, 1, demodulate=False)
        self.bound = shared.conv_clamp

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        return clamped(super().forward(features, w), self.bound)


class Shortcut(Filter):
    """[N, c_in, H, W] → [N, c_out, 2H, 2W]: a 1 × 1 convolution and the filter, as one kernel."""

    def __init__(self, shared: Shared, c_in: int, c_out: int) -> None:
        super().__init__(shared)
        self.weight = nn.Parameter(torch.zeros(c_out, c_in, 1, 1))

    def fold(self) -> None:
        """Makes the kernel, with the gain √½ of a branch."""
        with torch.no_grad():
            weight = self.weight.transpose(0, 1) * sqrt(0.5 / self.weight.shape[1])
            self.weight = nn.Parameter(weight * 4 * self.resample_filter)

    def forward(self, features: Tensor) -> Tensor:
        return doubled(features, self.weight)


class Block(Filter):
    """The layers of one resolution; the first block begins with a constant in place of features.

    Args:
        last: shows an image; in the architecture skip every block does, and images add up.
    """

    widening: Tensor

    def __init__(
        self,
        shared: Shared,
        architecture: Architecture,
        resolution: int,
        c_in: int,
        c_out: int,
        *,
        last: bool,
    ) -> None:
        super().__init__(shared)
        self.register_buffer("widening", torch.zeros(0), persistent=False)
        self.skip: Shortcut | None = None
        gain = 1.0
        if resolution == FIRST:
            self.const = nn.Parameter(torch.zeros(c_out, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(shared, c_in, c_out, resolution, doubling=True)
            if architecture == "resnet":
                self.skip, gain = Shortcut(shared, c_in, c_out), sqrt(0.5)
        self.conv1 = SynthesisLayer(shared, c_out, c_out, resolution, gain=gain)
        self.layers = [self.conv1] if resolution == FIRST else [self.conv0, self.conv1]
        shows = last or architecture == "skip"
        self.torgb = ToImage(shared, c_out) if shows else None
        self.channels = shared.channels

    def fold(self) -> None:
        """The filter as a kernel that doubles the image."""
        self.widening = (4 * self.resample_filter).repeat(self.channels, 1, 1, 1)


class Synthesis(nn.Module):
    """ws → image, through features of 4 × 4, 8 × 8, … pixels.

    Args:
        widths: channels of the features of each resolution.

    Attributes:
        num_ws: layers that take a w.
        noise: values of noise that are drawn for each sample.
    """

    def __init__(self, shared: Shared, architecture: Architecture, widths: list[int]) -> None:
        super().__init__()
        self.blocks: list[Block] = []
        for k, (c_in, c_out) in enumerate(zip([0, *widths], widths, strict=False)):
            last = k == len(widths) - 1
            self.blocks.append(Block(shared, architecture, FIRST << k, c_in, c_out, last=last))
            self.add_module(f"b{FIRST << k}", self.blocks[-1])
        layers = [layer for block in self.blocks for layer in block.layers]
        self.num_ws = len(layers) + 1
        self.channels, self.resolution = shared.channels, layers[-1].resolution
        self.noises = [layer.resolution**2 for layer in layers]
        self.noise = sum(self.noises) if shared.noise == "random" else 0

    def forward(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """ws [N, num_ws, w_dim], (noise [N, self.noise]) → image [N, channels, H, W]."""
        drawn = torch.split(noise, self.noises, dim=1) if noise is not None else ()
        x: Tensor = self.blocks[0].const[None]
        image: Tensor | None = None
        at = 0
        for block in self.blocks:
            shortcut = block.skip(x) if block.skip is not None else None
            for layer in block.layers:
                grid = (-1, 1, layer.resolution, layer.resolution)
                x = layer(x, ws[:, at], drawn[at].reshape(grid) if drawn else None)
                at += 1
            if shortcut is not None:
                x = x + shortcut
            if image is not None:
                image = doubled(image, block.widening, block.channels)
            if block.torgb is not None:  # it shares its w with the layer that comes next
                shown = block.torgb(x, ws[:, at])
                image = shown if image is None else image + shown
        assert image is not None
        return image
