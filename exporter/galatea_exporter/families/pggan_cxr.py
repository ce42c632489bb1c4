"""Progressive GAN of chest radiographs, CXR_PGGAN layout (1024 × 1024).

Architecture: Karras et al. 2017 (arXiv:1710.10196) in the layout of the repository
BradSegal/CXR_PGGAN. Written from the description of the network and from the names and shapes in
its checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log2, sqrt
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from galatea.errors import ExportError, InvalidInput
from galatea_exporter.assembly import from_latent
from galatea_exporter.checkpoint import State
from galatea_exporter.family import Family, Options, register
from galatea_exporter.layers.equalised import PixelNorm, load_equalised, size_of, unit_weights
from galatea_exporter.stages import StagedGenerator

# What the LightningModule holds beside its networks: the state of the training.
TRAINING = (
    "img_size", "scale", "alpha", "alpha_jumps", "total_iter", "current_iter", "num_images_seen",
    "iter_images_seen", "g_current_iter", "d_current_iter", "fixed_z", "epoch_counter",
    "batch_count",
)  # fmt: skip
NETWORKS = ("generator", "gen_shadow", "discriminator")

# A quarter of a grey level.
TOLERANCE = 1e-3
TOLERANCE_REASON = (
    "pixel normalisation behind each LeakyReLU divides by the norm of one pixel, and enlarges "
    "rounding where that is nearly 0"
)

FIRST = "latent_linear.0.module.weight"


class Equalised(nn.Module):
    """A layer that upstream calls ``module``, and the factor that it multiplies the output with.

    Args:
        layer: its weight and bias take up the factor.
        factor: None for that of the equalised learning rate.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, factor: float | None = None) -> None:
        super().__init__()
        self.module, self.factor = layer, factor or equalising(layer)

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = self.module(features)
        return made

    def fold(self) -> None:
        """Puts the factor into weight and bias, once."""
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.mul_(self.factor)


def equalising(layer: nn.Conv2d | nn.Linear) -> float:
    """The factor √(2 / fan-in)."""
    return sqrt(2 / layer.weight[0].numel())


def convolution(c_in: int, c_out: int, leakiness: float) -> list[nn.Module]:
    """An equalised 3 × 3 convolution, LeakyReLU, pixel normalisation.

    The normalisation cancels factors, up to its small constant, so the weights take up the nearest
    power of two, which rounds nothing.
    """
    layer = nn.Conv2d(c_in, c_out, 3, padding=1)
    factor = 2.0 ** round(log2(equalising(layer)))
    norm = PixelNorm(1e-8 * (factor / equalising(layer)) ** 2)
    return [Equalised(layer, factor), nn.LeakyReLU(leakiness), norm]


class ScaleBlock(nn.Module):
    """What follows a doubling of the size."""

    def __init__(self, c_in: int, c_out: int, leakiness: float) -> None:
        super().__init__()
        self.convolv = nn.Sequential(
            *convolution(c_in, c_out, leakiness), *convolution(c_out, c_out, leakiness)
        )

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = self.convolv(features)
        return made


def heads(depth: int, fading: float) -> tuple[int, ...]:
    """Which of the layers that make an image are in use, the last one last."""
    return (depth - 1, depth) if fading and depth else (depth,)


class Generator(nn.Module):
    """From a latent vector to an image of 4·2^k pixels, k the number of scale blocks.

    Args:
        nz: length of the latent vector.
        widths: channels at 4 × 4 pixels, then those of each scale block.
        channels: channels of the image.
        fading: weight of the previous size's image, 0 when the training is finished.
        options: see :class:`CXROptions`.
    """

    def __init__(
        self, nz: int, widths: Sequence[int], channels: int, fading: float, options: CXROptions
    ) -> None:
        super().__init__()
        slope, depth = options.leakiness, len(widths) - 1
        self.latent_linear = nn.Sequential(
            Equalised(nn.Linear(nz, 16 * widths[0])), nn.LeakyReLU(slope)
        )
        self.init_conv = nn.Sequential(*convolution(widths[0], widths[0], slope))
        self.ScaleBlocks = nn.ModuleList(ScaleBlock(*pair, slope) for pair in pairwise(widths))
        self.toRGB = nn.ModuleDict(
            {str(k): Equalised(nn.Conv2d(widths[k], channels, 1)) for k in heads(depth, fading)}
        )
        self.normalise, self.fading, self.mode = PixelNorm(), fading, options.upsampling

    def forward(self, latent: Tensor) -> Tensor:
        """latent float32 [N, nz] → image float32 [N, C, 4·2^k, 4·2^k], nominally in [0, 1]."""
        start = self.latent_linear(self.normalise(latent)).unflatten(1, (-1, 4, 4))
        features = before = self.init_conv(start)
        for block in self.ScaleBlocks:
            before = features
            features = block(interpolate(before, scale_factor=2, mode=self.mode))
        *old, last = self.toRGB.values()
        image: Tensor = last(features)
        for head in old:
            previous = interpolate(head(before), scale_factor=2, mode=self.mode)
            image = (1 - self.fading) * image + self.fading * previous
        return image


@dataclass(frozen=True)
class CXROptions(Options):
    """Adds what the checkpoint leaves open; the training images lay in [0, 1].

    Attributes:
        weights: the generator, or its moving average, where the file has both. Which of them the
            published medigan model uses is not known.
        upsampling: how the size is doubled.
        leakiness: negative slope of the LeakyReLUs.
    """

    low: float = 0.0
    weights: Literal["generator", "gen_shadow"] = "generator"
    upsampling: Literal["nearest", "bilinear"] = "nearest"
    leakiness: float = 0.2


@register
class PGGANCXR(Family):
    """Sizes are read from the checkpoint's shapes, and so is an unfinished fade-in."""

    name = "pggan_cxr"
    title = "Progressive GAN of chest radiographs, CXR_PGGAN layout"
    source = "arXiv:1710.10196; BradSegal/CXR_PGGAN"
    containers = ("state_dict",)
    options = CXROptions

    def recognises(self, state: State) -> bool:
        return any(prefix + FIRST in state for prefix in ("", "generator.", "gen_shadow."))

    def build(self, state: State, options: CXROptions, path: Path) -> StagedGenerator:
        prefix, weights, beside = _network(state, options.weights, path)
        depth = len({key.split(".")[1] for key in weights if key.startswith("ScaleBlocks.")})
        fading, weights = _counters(weights, depth, path)
        used = heads(depth, fading)
        others = {f"toRGB.{k}" for k in range(depth) if k not in used}
        unused = [key for key in weights if key.rpartition(".module.")[0] in others]
        blocks = [f"ScaleBlocks.{k}.convolv.0.module.weight" for k in range(depth)]
        widths = [size_of(weights, key, 0) for key in ("init_conv.0.module.weight", *blocks)]
        channels = size_of(weights, f"toRGB.{depth}.module.weight", 0)
        nz = size_of(weights, FIRST, 1)
        generator = Generator(nz, widths, channels, fading, options)
        load_equalised(
            generator, {k: v for k, v in weights.items() if k not in unused}, path, self.name
        )
        made = from_latent(
            generator,
            latent=nz,
            image=(channels, 4 * 2**depth, 4 * 2**depth),
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
            ignored=(
                *(f"{key}: not the generator" for key in beside),
                *(f"{prefix}{key}: makes smaller images" for key in unused),
            ),
        )
        return replace(made, tolerance=TOLERANCE, tolerance_reason=TOLERANCE_REASON)

    def example(self, published: bool = False) -> dict[str, Tensor]:
        widths = (512,) * 4 + (256, 128, 64, 32, 16) if published else (8, 8, 4)
        depth = len(widths) - 1
        state = unit_weights(Generator(widths[0], widths, 3, 0.5, CXROptions()))
        state[f"toRGB.{depth}.module.weight"] *= 0.1
        state[f"toRGB.{depth}.module.bias"] += 0.5 * sqrt(widths[-1] / 2)  # mid grey
        state |= {"alpha": torch.tensor(0.0), "current_depth": torch.tensor(depth)}
        state["current_size"] = torch.tensor(4 * 2**depth)
        networks = {f"{name}.{key}": state[key] for name in NETWORKS[:2] for key in state}
        return {**networks, "alpha": state["alpha"], "img_size": state["current_size"]}


def _network(state: State, name: str, path: Path) -> tuple[str, dict[str, Tensor], tuple[str, ...]]:
    """The prefix of a network's tensors, its tensors without it, and what lies beside them.

    Raises:
        InvalidInput: the file holds only the other of generator and gen_shadow.
    """
    prefix = "" if FIRST in state else f"{name}."
    if not any(key.startswith(prefix) for key in state):
        raise InvalidInput(
            f"{path} holds no {name}", "set weights to the other of generator and gen_shadow"
        )
    others = tuple(
        key
        for key in state
        if prefix
        and not key.startswith(prefix)
        and (key in TRAINING or key.partition(".")[0] in NETWORKS)
    )
    kept = {key.removeprefix(prefix): state[key] for key in state if key not in others}
    return prefix, kept, others


def _counters(state: State, depth: int, path: Path) -> tuple[float, dict[str, Tensor]]:
    """Weight of the previous size's image, and the state without the counters of its growth.

    Raises:
        ExportError: the counters are missing, or do not fit the layers.
    """
    counters = {
        key: state[key] for key in ("alpha", "current_size", "current_depth") if key in state
    }
    try:
        alpha, size, blocks = (float(value) for value in counters.values())
    except (ValueError, RuntimeError) as error:
        raise ExportError(
            f"{path}: the generator's alpha, current_size or current_depth is missing or no number",
            "save the whole state dict of the generator, buffers included",
        ) from error
    if not 0 <= alpha <= 1 or (size, blocks) != (4 * 2**depth, depth):
        raise ExportError(
            f"{path}: alpha {alpha:g}, current_size {size:g} and current_depth {blocks:g} do not "
            f"fit {depth} scale blocks, which make {4 * 2**depth} pixels",
            "the file is damaged, or was saved while a scale was added",
        )
    return alpha, {key: value for key, value in state.items() if key not in counters}
