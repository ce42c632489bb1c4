"""StyleGAN, the first one, in PyTorch: the layout of rosinality's style-based-gan-pytorch.

Architecture: Karras et al. 2018 (arXiv:1812.04948). Written from the paper and from the names and
shapes of the layout; no published checkpoint was at hand. NVIDIA's own snapshots of this generator
are TensorFlow graphs and must be converted to this layout first.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from galatea.card import Input
from galatea_exporter.assembly import control, from_latent
from galatea_exporter.checkpoint import State
from galatea_exporter.family import Family, register
from galatea_exporter.layers.adain import LEAKINESS, Blur, Synthesis
from galatea_exporter.layers.equalised import (
    EqualisedLinear,
    PixelNorm,
    load_equalised,
    size_of,
    unit_weights,
)
from galatea_exporter.layers.growth import GrowthOptions
from galatea_exporter.sampler.noise import noise_v1
from galatea_exporter.stages import Stage, StagedGenerator, TensorSpec

MEAN_SEEDS = 10_000  # upstream averages as many styles, of latents that it does not keep

NOISE = (".noise1.weight_orig", ".noise2.weight_orig")
FIRST = "generator.progression.0.conv1.input"
TRUNCATION = Input(
    "truncation", "FP32",
    "distance from the mean image: 1 is the generator's own, less is more typical and less varied",
    default=1.0, minimum=0.0, maximum=2.0,
)  # fmt: skip


class Mapping(nn.Module):
    """From a latent to the styles of all layers, drawn towards their mean.

    Args:
        style: latent float32 [N, nz] → style [N, w_dim].
        mean: the mean style, [w_dim].
        layers: how many layers take a style.
    """

    mean: Tensor
    ones: Tensor

    def __init__(self, style: nn.Module, mean: Tensor, layers: int) -> None:
        super().__init__()
        self.style = style
        self.register_buffer("mean", mean)
        self.register_buffer("ones", torch.ones(1, layers, 1))

    def forward(self, latent: Tensor, truncation: Tensor) -> Tensor:
        """latent float32 [N, nz], truncation float32 [N, 1] → float32 [N, layers, w_dim]."""
        w: Tensor = self.style(latent)
        # mean + ψ·(w − mean), written so that ψ = 1 gives w to the bit.
        w = w + (truncation - 1) * (w - self.mean)
        return w[:, None] * self.ones


class Networks(nn.Module):
    """The names in a checkpoint: ``generator.*`` is the synthesis, ``style.*`` the mapping."""

    def __init__(self, generator: Synthesis, nz: int, w_dim: int, layers: int) -> None:
        super().__init__()
        self.generator = generator
        widths = [nz, *[w_dim] * layers]
        dense = [
            module
            for pair in pairwise(widths)
            for module in (EqualisedLinear(*pair), nn.LeakyReLU(LEAKINESS))
        ]
        self.style = nn.Sequential(PixelNorm(), *dense)


@dataclass(frozen=True)
class StyleGAN1Options(GrowthOptions):
    """Adds the noise; upstream rounds to the nearest level.

    Attributes:
        noise_mode: random noise, another for each seed, or none.
    """

    rounding: Literal["truncate", "nearest"] = "nearest"
    noise_mode: Literal["random", "none"] = "random"


@register
class StyleGAN1(Family):
    """Sizes are read from the checkpoint's shapes, the kind of upsampling from its layers' names.

    The mean style is not in the file: it is that of the seeds 0 … 9999.
    """

    name = "stylegan1"
    title = "StyleGAN, the first one, rosinality layout"
    source = "arXiv:1812.04948; rosinality/style-based-gan-pytorch"
    aliases = ("stylegan",)
    containers = ("g_running", "generator")
    options = StyleGAN1Options

    def recognises(self, state: State) -> bool:
        return FIRST in state and "style.1.linear.weight_orig" in state

    def build(self, state: State, options: StyleGAN1Options, path: Path) -> StagedGenerator:
        steps = range(
            len({key.split(".")[2] for key in state if key.startswith("generator.progression.")})
        )
        step = options.grown(steps, path)
        sizes = [f"generator.progression.{k}" for k in range(step + 1)]
        dense = [key for key in state if key.startswith("style.") and key.endswith(".weight_orig")]
        nz, w_dim = (size_of(state, "style.1.linear.weight_orig", axis) for axis in (1, 0))
        channels = size_of(state, f"generator.to_rgb.{step}.conv.bias", 0)
        synthesis = Synthesis(
            [size_of(state, f"{size}.conv2.conv.weight_orig", 0) for size in sizes],
            [f"{size}.conv1.0.weight" in state for size in sizes],
            w_dim,
            channels,
            options,
            noise=options.noise_mode == "random",
        )
        networks = Networks(synthesis, nz, w_dim, len(dense))
        ignored = dict(_unused(state, networks, steps))
        used = {key: value for key, value in state.items() if key not in ignored}
        load_equalised(networks, used, path, self.name)
        mapping = Mapping(networks.style, _mean_style(networks.style, nz), 2 * len(sizes))
        size = 4 * 2**step
        return from_latent(
            synthesis,
            latent=nz,
            noise=synthesis.noise,
            image=(channels, size, size),
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
            conditions=(TRUNCATION,),
            mapping=Stage(
                "mapping",
                mapping.eval(),
                (TensorSpec("latent", "float32", (nz,)), control(TRUNCATION)),
                (TensorSpec("ws", "float32", (2 * len(sizes), w_dim)),),
            ),
            ignored=tuple(f"{key}: {reason}" for key, reason in ignored.items()),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        widths = (512,) * 4 + (256, 128, 64) if published else (8, 8, 4)
        fused = [4 * 2**k >= (128 if published else 16) for k in range(len(widths))]
        w_dim, channels, layers = (512, 5, 8) if published else (16, 3, 2)
        options = StyleGAN1Options(alpha=0.5)  # so that there is a layer for a smaller image, too
        synthesis = Synthesis(widths, fused, w_dim, channels, options, noise=True)
        state = unit_weights(Networks(synthesis, w_dim, w_dim, layers))
        for key in list(state):
            if "to_rgb" in key:
                state[key] = state[key] * 0.2
            if key.endswith("conv1.1.weight") or key.endswith("conv1.2.weight"):
                state[key] = state[key + "_flip"] = Blur(len(state[key])).weight
        return state


def _mean_style(style: nn.Module, nz: int) -> Tensor:
    """float32 [w_dim], the mean over many latents; in double precision it rounds alike anywhere."""
    latents = torch.from_numpy(noise_v1(np.arange(MEAN_SEEDS), nz)).double()
    with torch.no_grad():
        styles: Tensor = deepcopy(style).double()(latents)
    return styles.mean(dim=0).float()


def _unused(state: State, networks: Networks, steps: range) -> Iterator[tuple[str, str]]:
    """(name, reason) of what images of the size and noise in use do not need."""
    used = {name for name, _ in networks.named_modules()}
    layers = {f"generator.{kind}.{k}" for kind in ("progression", "to_rgb") for k in steps}
    for key in state:
        if ".".join(key.split(".")[:3]) in layers - used:
            yield key, "makes other sizes"
        elif key.endswith(".weight_flip"):
            yield key, "for training alone"
        elif key.endswith(NOISE) and not networks.generator.noise:
            yield key, "noise_mode is none"
