"""Progressive GAN of polyps with their masks, singan-seg-polyp layout (256 × 256).

Architecture: Karras et al. 2017 (arXiv:1710.10196) in the layout of odegeasslbc's
Progressive-GAN-pytorch, which vlbthambawita/singan-seg-polyp (ProGAN-4ch) widens to four channels.
Written from the description of the network and from the names and shapes in its checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, interpolate

from galatea_exporter.assembly import from_latent
from galatea_exporter.checkpoint import State
from galatea_exporter.family import Family, register
from galatea_exporter.layers.equalised import (
    EqualisedConv2d,
    PixelNorm,
    Weights,
    activated,
    load_equalised,
    size_of,
    unit_weights,
)
from galatea_exporter.layers.growth import GrowthOptions
from galatea_exporter.stages import StagedGenerator

LEAKINESS = 0.1
FIRST = "input_layer.0.conv.weight_orig"


class Start(nn.Module):
    """A transposed convolution from a latent vector to 4 × 4 pixels."""

    def __init__(self, nz: int, width: int) -> None:
        super().__init__()
        self.conv = Weights(nz, width, 4, 4, bias=width)

    def forward(self, latent: Tensor) -> Tensor:
        return conv_transpose2d(latent[:, :, None, None], self.conv.weight_orig, self.conv.bias)


class Block(nn.Module):
    """Two convolutions, each with LeakyReLU and, in some checkpoints, pixel norm before it."""

    def __init__(self, c_in: int, c_out: int, *, pixel_norm: bool) -> None:
        super().__init__()
        self.conv = activated(
            *[EqualisedConv2d(width, c_out, 3, padding=1) for width in (c_in, c_out)],
            leakiness=LEAKINESS,
            pixel_norm=pixel_norm,
        )

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = self.conv(features)
        return made


class Generator(nn.Module):
    """From a latent vector to an image of 4·2^k pixels.

    Args:
        nz: length of the latent vector.
        widths: channels behind the first layer, then those of the blocks at 4, 8, … pixels.
        channels: channels of the image.
        options: see :class:`PolypOptions`; the step is that of the last block.
        pixel_norm: pixel normalisation in all blocks, not behind the first layer alone.
    """

    def __init__(
        self,
        nz: int,
        widths: Sequence[int],
        channels: int,
        options: PolypOptions,
        *,
        pixel_norm: bool = False,
    ) -> None:
        super().__init__()
        self.alpha, self.tanh = options.alpha, options.tanh
        self.input_layer = nn.Sequential(Start(nz, widths[0]), PixelNorm(), nn.LeakyReLU(LEAKINESS))
        self.sizes = [4 * 2**k for k in range(len(widths) - 1)]
        for size, (c_in, c_out) in zip(self.sizes, pairwise(widths), strict=True):
            self.add_module(f"progression_{size}", Block(c_in, c_out, pixel_norm=pixel_norm))
        self.heads = self.sizes[1:][-1 - options.fading :]
        for size in self.heads:
            width = widths[1 + self.sizes.index(size)]
            self.add_module(f"to_rgb_{size}", EqualisedConv2d(width, channels, 1))

    def forward(self, latent: Tensor) -> Tensor:
        """latent float32 [N, nz] → image float32 [N, C, 4·2^k, 4·2^k], nominally in [-1, 1]."""
        features = before = self.get_submodule("progression_4")(self.input_layer(latent))
        for size in self.sizes[1:]:
            before = features
            features = self.get_submodule(f"progression_{size}")(doubled(before))
        *old, last = [self.get_submodule(f"to_rgb_{size}") for size in self.heads]
        image: Tensor = last(features)
        for head in old:
            image = self.alpha * image + (1 - self.alpha) * doubled(head(before))
        return torch.tanh(image) if self.tanh else image


def doubled(features: Tensor) -> Tensor:
    """float32 [N, C, H, W] → [N, C, 2H, 2W], bilinear."""
    return interpolate(features, scale_factor=2, mode="bilinear")


@dataclass(frozen=True)
class PolypOptions(GrowthOptions):
    """Adds what the checkpoint leaves open.

    Attributes:
        tanh: a tanh at the end.
    """

    tanh: bool = False


@register
class PGGANPolyp(Family):
    """Sizes are read from the checkpoint's shapes, pixel normalisation from its layers' numbers."""

    name = "pggan_polyp"
    title = "Progressive GAN of polyps with masks, singan-seg-polyp layout"
    source = "arXiv:1710.10196; vlbthambawita/singan-seg-polyp ProGAN-4ch"
    modules = ("progan_modules*",)
    options = PolypOptions

    def recognises(self, state: State) -> bool:
        return FIRST in state and any(key.startswith("progression_4.") for key in state)

    def build(self, state: State, options: PolypOptions, path: Path) -> StagedGenerator:
        sizes = [4 * 2**k for k in range(len(_names(state, "progression_")))]
        step = options.grown(range(1, max(2, len(sizes))), path)
        blocks = [f"progression_{size}.conv.0.conv.weight_orig" for size in sizes[: step + 1]]
        channels = size_of(state, f"to_rgb_{4 * 2**step}.conv.bias", 0)
        nz = size_of(state, FIRST, 0)
        generator = Generator(
            nz,
            [size_of(state, FIRST, 1), *(size_of(state, key, 0) for key in blocks)],
            channels,
            options,
            pixel_norm="progression_4.conv.3.conv.weight_orig" in state,
        )
        used = {name for name, _ in generator.named_children()}
        layers = {f"{kind}_{size}" for kind in ("progression", "to_rgb") for size in sizes}
        unused = [key for key in state if key.partition(".")[0] in layers - used]
        load_equalised(
            generator, {k: v for k, v in state.items() if k not in unused}, path, self.name
        )
        return from_latent(
            generator,
            latent=nz,
            image=(channels, 4 * 2**step, 4 * 2**step),
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
            ignored=tuple(f"{key}: makes other sizes" for key in unused),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        options = PolypOptions(alpha=0.5)  # so that there is a layer for a smaller image, too
        widths = (128,) * 5 + (64, 32, 32) if published else (8, 8, 8, 4)
        state = unit_weights(Generator(128 if published else 16, widths, 4, options))
        return {k: v * 0.3 if k.startswith("to_rgb_") else v for k, v in state.items()}


def _names(state: State, prefix: str) -> set[str]:
    return {key.partition(".")[0] for key in state if key.startswith(prefix)}
