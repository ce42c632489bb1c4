"""SinGAN: a pyramid of generators trained on one picture (polyps of the colon with their masks).

Architecture: Shaham et al. 2019 (arXiv:1905.01164), as SinGAN-Seg by Thambawita et al. 2022
(doi:10.1371/journal.pone.0267976; vlbthambawita/singan-seg-polyp) with the segmentation mask as a
fourth channel. Written from the description of the network and from the names and shapes in its
checkpoints.

A checkpoint is a folder for one training picture: ``Gs.pth`` holds the generators, the coarsest
first, ``NoiseAmp.pth`` the strength of each one's noise, and ``reals.pth`` the picture at each
scale, of which only the sizes count. ``Zs.pth`` serves reconstruction and is not read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from galatea.errors import ExportError, InvalidInput
from galatea_exporter.assembly import from_latent
from galatea_exporter.checkpoint import State, load_strictly
from galatea_exporter.family import Family, Options, random_weights, register
from galatea_exporter.stages import Anchor, StagedGenerator, TensorSpec

MIN_SIZE = 25  # published: the shorter side of the coarsest scale
MAX_BATCH = 4  # a sample of 250 × 250 pixels takes 0.2 GB and a second on one core

Size = tuple[int, int]


class ConvBlock(nn.Sequential):
    """Convolution, BatchNorm, LeakyReLU."""

    def __init__(self, c_in: int, c_out: int, kernel: int, padding: int = 0) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(c_in, c_out, kernel, padding=padding))
        self.add_module("norm", nn.BatchNorm2d(c_out))
        self.add_module("activation", nn.LeakyReLU(0.2))


class ScaleGenerator(nn.Module):
    """What one scale adds to the picture of the scale before.

    The zeros that all its convolutions consume lie around the input at once.

    Args:
        channels: of the picture.
        widths: channels behind the head and behind each block of the body.
        kernel: side of the convolutions.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], kernel: int) -> None:
        super().__init__()
        border = (kernel - 1) * (len(widths) + 1) // 2
        self.head = ConvBlock(channels, widths[0], kernel, border)
        self.body = nn.Sequential()
        for n, (c_in, c_out) in enumerate(pairwise(widths), 1):
            self.body.add_module(f"block{n}", ConvBlock(c_in, c_out, kernel))
        self.tail = nn.Sequential(nn.Conv2d(widths[-1], channels, kernel), nn.Tanh())

    def forward(self, noisy: Tensor) -> Tensor:
        """float32 [N, C, H, W] → float32 [N, C, H, W] in [-1, 1]."""
        added: Tensor = self.tail(self.body(self.head(noisy)))
        return added


class Enlarge(nn.Module):
    """Upstream's way to the next scale: 8-bit levels, then MATLAB's bicubic interpolation.

    Args:
        small, large: (height, width) of both pictures.
        factor: of the enlargement; the large picture is cropped at the bottom and on the right.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, small: Size, large: Size, factor: float) -> None:
        super().__init__()
        rows, columns = (bicubic(*sizes, factor) for sizes in zip(small, large, strict=True))
        # Levels become [0, 2] on the way.
        self.register_buffer("rows", torch.tensor(rows * 2 / 255).float(), persistent=False)
        self.register_buffer("columns", torch.tensor(columns.T).float(), persistent=False)

    def forward(self, floats: Tensor) -> Tensor:
        """float32 [N, C, h, w] → float32 [N, C, H, W] in [-1, 1]."""
        levels = (((floats + 1) / 2).clamp(0, 1) * 255).floor()
        return (self.rows @ levels @ self.columns - 1).clamp(-1, 1)


class Pyramid(nn.Module):
    """All scales, the coarsest first.

    Args:
        channels: of the picture.
        generators: one for each scale.
        sizes: (height, width) of each scale.
        factor: of the enlargement from one scale to the next.
    """

    def __init__(
        self, channels: int, generators: list[ScaleGenerator], sizes: list[Size], factor: float
    ) -> None:
        super().__init__()
        self.Gs = nn.ModuleList(generators)
        self.NoiseAmp = nn.ParameterList(torch.zeros(()) for _ in generators)
        self.sizes = sizes
        self.channels = channels
        self.enlarge = nn.ModuleList(Enlarge(*pair, factor) for pair in pairwise(sizes))
        self.anchors = nn.ModuleList(Anchor(f"scale{n}_out") for n in range(len(sizes) - 1))
        # The coarsest scale has one noise for all channels.
        self.noises = [(self.channels if n else 1, *size) for n, size in enumerate(sizes)]
        self.latent = sum(math.prod(shape) for shape in self.noises)

    def forward(self, latent: Tensor) -> tuple[Tensor, ...]:
        """latent float32 [N, `latent`] → picture [N, C, H, W], and those of all smaller scales."""
        lengths = [math.prod(shape) for shape in self.noises]
        made: list[Tensor] = []
        for n, values in enumerate(torch.split(latent, lengths, dim=1)):
            noise = torch.unflatten(values, 1, self.noises[n]) * self.NoiseAmp[n]
            if not n:
                made.append(self.Gs[0](noise.expand(-1, self.channels, -1, -1)))
            else:
                before = self.enlarge[n - 1](self.anchors[n - 1](made[-1]))
                made.append(self.Gs[n](noise + before) + before)
        return made[-1], *made[:-1]


def bicubic(small: int, large: int, factor: float) -> NDArray[np.float64]:
    """MATLAB's ``imresize`` of one axis as a matrix [large, small], with upstream's borders.

    Beyond the left border the weights are 0 and the others stand in for them; beyond the right one
    the picture is mirrored.
    """
    at = np.arange(1, large + 1) / factor + 0.5 * (1 - 1 / factor) - 1
    taps = np.floor(at - 1)[:, None] + np.arange(-1, 5)
    x = np.abs(at[:, None] - taps)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x <= 1, near, np.where(x <= 2, far, 0)) * (taps >= 0)
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.r_[:small, small - 1 : -1 : -1][taps.astype(int) % (2 * small)]
    matrix = np.zeros((large, small))
    np.add.at(matrix, (np.arange(large)[:, None], mirrored), weights)
    return matrix


@dataclass(frozen=True)
class SinGANOptions(Options):
    """Adds what the checkpoint's shapes leave open.

    Attributes:
        min_size: shorter side of the coarsest scale as it was set for training, from which the
            factor between scales follows; by default the one that gives the sizes in reals.pth.
    """

    min_size: int | None = None


@register
class SinGAN(Family):
    """Scales, sizes, widths and kernel are read from the checkpoint."""

    name = "singan"
    title = "SinGAN, a pyramid trained on one picture"
    source = "arXiv:1905.01164, doi:10.1371/journal.pone.0267976; vlbthambawita/singan-seg-polyp"
    aliases = ("singan_seg",)
    files = ("Gs.pth", "NoiseAmp.pth", "reals.pth")
    modules = ("SinGAN.models.*",)
    options = SinGANOptions

    def recognises(self, state: State) -> bool:
        first = state.get("Gs.0.head.conv.weight")
        return first is not None and first.ndim == 4

    def build(self, state: State, options: SinGANOptions, path: Path) -> StagedGenerator:
        scales = _count(state, "Gs.")
        sizes = _sizes(state, scales, path)
        min_size = _min_size(sizes, path) if options.min_size is None else options.min_size
        factor = 1 / _factor(sizes[-1], scales, max(1, min_size))
        sides = [side for pair in pairwise(sizes) for side in zip(*pair, strict=True)]
        if min_size < 1 or any(math.ceil(small * factor) < large for small, large in sides):
            raise InvalidInput(
                f"{path}: min_size {min_size} makes scales smaller than those in reals.pth",
                "leave it out, or set it to the one of the training",
            )
        channels = state["Gs.0.head.conv.weight"].shape[1]
        pyramid = Pyramid(channels, [_generator(state, n) for n in range(scales)], sizes, factor)
        weights = {key: value for key, value in state.items() if key not in _reals(scales)}
        load_strictly(pyramid, weights, path, self.name)
        made = from_latent(
            pyramid,
            latent=pyramid.latent,
            image=(channels, *sizes[-1]),
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
            probes=tuple(
                TensorSpec(f"scale{n}_out", "float32", (channels, *size))
                for n, size in enumerate(sizes[:-1])
            ),
        )
        return replace(made, max_batch=MAX_BATCH, tolerance_reason=Anchor.REASON)

    def example(self, published: bool = False) -> dict[str, Tensor]:
        channels, width, size, scales, min_size = (
            (4, 32, (250, 250), 10, MIN_SIZE) if published else (3, 4, (20, 24), 3, 12)
        )
        sizes = _pyramid(size, scales, min_size)
        widths = [min(width * 2 ** (n // 4), 128) for n in range(scales)]
        generators = [ScaleGenerator(channels, (w,) * 4, 3) for w in widths]
        reals = {f"reals.{n}": torch.zeros(1, channels, *side) for n, side in enumerate(sizes)}
        weights = random_weights(Pyramid(channels, generators, sizes, 1.0))
        for n in range(scales):
            weights[f"NoiseAmp.{n}"] = torch.tensor(0.5**n)
            weights[f"Gs.{n}.tail.0.weight"] *= 0.05  # or the sum of all scales is black and white
        return {**weights, **reals}


def _reals(scales: int) -> list[str]:
    return [f"reals.{n}" for n in range(scales)]


def _count(state: State, prefix: str) -> int:
    """Entries of a list whose names begin with `prefix` and a number."""
    behind = (key.removeprefix(prefix) for key in state if key.startswith(prefix))
    return len({number for key in behind if (number := key.partition(".")[0]).isdecimal()})


def _generator(state: State, n: int) -> ScaleGenerator:
    """One scale's generator; sizes of missing tensors don't matter, for they are missing."""

    def shape(name: str) -> tuple[int, ...]:
        tensor = state.get(f"Gs.{n}.{name}.conv.weight")
        return tuple(tensor.shape) if tensor is not None and tensor.ndim == 4 else (1, 1, 1, 1)

    blocks = range(1, 1 + _count(state, f"Gs.{n}.body.block"))
    head = shape("head")
    widths = (head[0], *(shape(f"body.block{k}")[0] for k in blocks))
    return ScaleGenerator(head[1], widths, head[2])


def _sizes(state: State, scales: int, path: Path) -> list[Size]:
    pictures = [state.get(key) for key in _reals(scales)]
    sizes = [(p.shape[2], p.shape[3]) for p in pictures if p is not None and p.ndim == 4]
    if len(sizes) < scales or min(min(size) for size in sizes) < 1:
        raise ExportError(
            f"{path}: reals.pth has no {scales} pictures for the {scales} generators of Gs.pth",
            "use the files of one and the same training",
        )
    return sizes


def _pyramid(size: Size, scales: int, min_size: int) -> list[Size]:
    """Upstream's sizes of all scales of a picture; rounding of the powers counts."""
    factor = _factor(size, scales, min_size)
    powers = [math.pow(factor, scales - 1 - n) for n in range(scales)]
    return [(math.ceil(size[0] * power), math.ceil(size[1] * power)) for power in powers]


def _factor(size: Size, scales: int, min_size: int) -> float:
    """Of the reduction from one scale to the next smaller one."""
    return math.pow(min_size / min(size), 1 / max(1, scales - 1))


def _min_size(sizes: list[Size], path: Path) -> int:
    """The shorter side that training was told, which rounding may have made one pixel longer."""
    coarsest = min(sizes[0])
    fitting = {
        side
        for side in (MIN_SIZE, coarsest, coarsest - 1)
        if side > 0 and _pyramid(sizes[-1], len(sizes), side) == sizes
    }
    if MIN_SIZE in fitting:
        return MIN_SIZE
    if len(fitting) != 1:
        what = "leave open" if fitting else "do not tell"
        raise InvalidInput(
            f"{path}: the sizes in reals.pth {what} the factor between the scales",
            "set min_size to the one of the training",
        )
    return fitting.pop()
