"""The synthesis network of the first StyleGAN (Karras et al. 2018, arXiv:1812.04948).

Adaptive instance normalisation gives each layer its style, and noise its detail. Written from the
paper and from the names and shapes of rosinality's style-based-gan-pytorch layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, interpolate, leaky_relu, pad

from galatea_exporter.layers.equalised import EqualisedConv2d, EqualisedLinear, Weights
from galatea_exporter.layers.growth import GrowthOptions
from galatea_exporter.layers.instance_norm import InstanceNorm

LEAKINESS = 0.2


class Constant(nn.Module):
    """The learned 4 × 4 features that every image starts from."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.zeros(1, width, 4, 4))

    def forward(self, features: Tensor) -> Tensor:
        return self.input


class FusedUpsample(nn.Module):
    """Doubles the size with a transposed convolution whose 3 × 3 kernel is smeared to 4 × 4."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(c_in, c_out, 3, 3))
        self.bias = nn.Parameter(torch.zeros(c_out))

    def fold(self) -> None:
        """Smears the kernel and puts the factor of the equalised learning rate into it, once."""
        c_in, _, height, width = self.weight.shape
        wide = pad(self.weight.detach() * sqrt(2 / (c_in * height * width)), [1, 1, 1, 1])
        corners = (wide[:, :, y:, x:][:, :, :4, :4] for y in (0, 1) for x in (0, 1))
        self.weight = nn.Parameter(sum(corners, torch.zeros(())) / 4)

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = conv_transpose2d(features, self.weight, self.bias, stride=2, padding=1)
        return made


class Blur(nn.Module):
    """A [1 2 1] filter in both directions, the same on each channel."""

    weight: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("weight", (row[:, None] * row).repeat(width, 1, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        return conv2d(features, self.weight, padding=1, groups=len(self.weight))


class AdaIN(nn.Module):
    """Normalises each channel of each image, and gives it the scale and offset of a style."""

    def __init__(self, width: int, w_dim: int) -> None:
        super().__init__()
        self.norm = InstanceNorm()
        self.style = EqualisedLinear(w_dim, 2 * width)

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        scale, offset = self.style(w)[:, :, None, None].chunk(2, dim=1)
        made: Tensor = scale * self.norm(features) + offset
        return made


class Block(nn.Module):
    """What makes one size from the one before: two layers, each with noise and a style.

    Args:
        c_in, c_out: channels before and behind it.
        w_dim: length of a style.
        start: the first layer is the learned constant.
        fused: the first layer is a :class:`FusedUpsample`.
        noise: whether there is noise.
    """

    def __init__(
        self, c_in: int, c_out: int, w_dim: int, *, start: bool, fused: bool, noise: bool
    ) -> None:
        super().__init__()
        upsampling = (
            [FusedUpsample(c_in, c_out)]
            if fused
            else [nn.Upsample(scale_factor=2), EqualisedConv2d(c_in, c_out, 3, padding=1)]
        )
        self.conv1 = Constant(c_out) if start else nn.Sequential(*upsampling, Blur(c_out))
        self.noise1 = Weights(1, c_out, 1, 1) if noise else None
        self.adain1 = AdaIN(c_out, w_dim)
        self.conv2 = EqualisedConv2d(c_out, c_out, 3, padding=1)
        self.noise2 = Weights(1, c_out, 1, 1) if noise else None
        self.adain2 = AdaIN(c_out, w_dim)

    def forward(self, features: Tensor, w1: Tensor, w2: Tensor, noise: Tensor | None) -> Tensor:
        """features, two styles [N, w_dim], noise [N, 1, H, H] of both layers → [N, c_out, H, H]."""
        features = self._layer(self.conv1(features), self.noise1, noise)
        features = self.adain1(features, w1)
        features = self._layer(self.conv2(features), self.noise2, noise)
        made: Tensor = self.adain2(features, w2)
        return made

    @staticmethod
    def _layer(features: Tensor, weights: Weights | None, noise: Tensor | None) -> Tensor:
        if weights is not None and noise is not None:
            features = features + weights.weight_orig * noise
        return leaky_relu(features, LEAKINESS)


class Synthesis(nn.Module):
    """From the styles of all layers to an image of 4·2^k pixels.

    Args:
        widths: channels of each size, from 4 × 4 pixels on.
        fused: for each size, whether it is upsampled by a transposed convolution.
        w_dim: length of a style.
        channels: channels of the image.
        growth: fading; the step is that of the last size.
        noise: whether there is noise.
    """

    def __init__(
        self,
        widths: Sequence[int],
        fused: Sequence[bool],
        w_dim: int,
        channels: int,
        growth: GrowthOptions,
        *,
        noise: bool,
    ) -> None:
        super().__init__()
        last = len(widths) - 1
        self.progression = nn.ModuleList(
            Block(*pair, w_dim, start=k == 0, fused=fused[k], noise=noise)
            for k, pair in enumerate(pairwise([widths[0], *widths]))
        )
        self.to_rgb = nn.ModuleDict(
            {
                str(k): EqualisedConv2d(widths[k], channels, 1)
                for k in range(max(0, last - growth.fading), last + 1)
            }
        )
        self.alpha = growth.alpha
        self.pixels = [(4 * 2**k) ** 2 for k in range(last + 1)]
        self.noise = sum(self.pixels) if noise else 0

    def forward(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """ws float32 [N, layers, w_dim], noise [N, K] → image float32 [N, C, H, H] in [-1, 1]."""
        features = before = ws
        for k, (block, drawn) in enumerate(zip(self.progression, self._maps(noise), strict=True)):
            before = features
            features = block(before, ws[:, 2 * k], ws[:, 2 * k + 1], drawn)
        *old, last = self.to_rgb.values()
        image: Tensor = last(features)
        for head in old:
            previous = interpolate(head(before), scale_factor=2)
            image = self.alpha * image + (1 - self.alpha) * previous
        return image

    def _maps(self, noise: Tensor | None) -> Iterator[Tensor | None]:
        """One map for each size, which both of its layers share."""
        if noise is None:
            yield from [None] * len(self.pixels)
        else:
            for k, flat in enumerate(torch.split(noise, self.pixels, dim=1)):
                yield flat.reshape(-1, 1, 4 * 2**k, 4 * 2**k)
