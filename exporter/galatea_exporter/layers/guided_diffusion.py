"""The UNet of guided-diffusion: a noisy image and its timestep → a prediction of the noise.

Dhariwal & Nichol 2021 (arXiv:2105.05233), in the layout of the repository openai/guided-diffusion,
whose predecessor improved-diffusion (arXiv:2102.09672) and many medical models share it. Written
from the description of the network and from the names and shapes in checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from math import log
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from galatea.errors import ExportError
from galatea_exporter.checkpoint import State, load_strictly
from galatea_exporter.layers.guided_layout import GROUPS, GuidedOptions, Layout
from galatea_exporter.stages import Stage, TensorSpec

MAX_PERIOD = 10_000.0  # of the slowest wave that tells the timestep, in steps


def load_unet(state: State, options: GuidedOptions, path: Path, family: str) -> UNet:
    """The UNet of a bare state dict, float32, in eval mode.

    Args:
        path, family: name the checkpoint in errors.

    Raises:
        ExportError: a tensor is missing, left over or of the wrong shape.
        InvalidInput: an option does not fit the checkpoint.
    """
    kernel = state.get("input_blocks.0.0.weight")
    if kernel is not None and kernel.ndim != 4:
        raise ExportError(
            f"{path}: a network for data with {kernel.ndim - 2} axes; {family} makes images",
            "name the right family: galatea families",
        )
    layout = Layout.read(state, path)
    layout.check(options, path)
    unet = UNet(layout, options)
    load_strictly(unet, state, path, family)
    return unet


def unet_stage(unet: UNet, size: int, steps: int = 1000) -> Stage:
    """The stage that a sampler calls once a step.

    Inputs are ``x`` float32 [N, C, size, size], ``t`` float32 [N, 1], each row its own timestep,
    and, where the network knows classes, ``label`` int64 [N, 1]; the output is ``prediction``
    float32 [N, C or 2C, size, size].

    Args:
        size: height and width in pixels.
        steps: of the training's schedule; exports and comparisons try timesteps below it.
    """
    layout = unet.layout
    inputs = [
        TensorSpec("x", "float32", (layout.channels_in, size, size)),
        TensorSpec("t", "float32", (1,), example=(0, steps - 1)),
    ]
    if layout.classes:
        inputs.append(TensorSpec("label", "int64", (1,), example=(0, layout.classes - 1)))
    prediction = TensorSpec("prediction", "float32", (layout.channels_out, size, size))
    return Stage("unet", unet, tuple(inputs), (prediction,))


class UNet(nn.Module):
    """A noisy image, its timestep and, for some, its label → a prediction of the image's size.

    Args:
        layout: sizes.
        options: heads and their order.
    """

    def __init__(self, layout: Layout, options: GuidedOptions) -> None:
        super().__init__()
        self.layout = layout
        width, half = layout.width, layout.width // 2
        # No buffer: in a network of float16 timesteps and their waves stay float32.
        self.waves = torch.exp(-log(MAX_PERIOD) * torch.arange(half) / half)
        self.time_embed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )
        if layout.classes:
            self.label_emb = nn.Embedding(layout.classes, 4 * width)
        c = layout.levels[0].width
        first = nn.Conv2d(layout.channels_in, c, 3, padding=1)
        self.input_blocks = nn.ModuleList([Block(first)])
        skips = [c]
        for depth, level in enumerate(layout.levels):
            if depth:
                self.input_blocks.append(Block(_halving(c, layout)))
                skips.append(c)
            for _ in range(layout.blocks):
                attention = [Attention(level.width, options)] if level.attention else []
                self.input_blocks.append(Block(Residual(c, level.width, layout), *attention))
                c = level.width
                skips.append(c)
        self.middle_block = Block(
            Residual(c, c, layout), Attention(c, options), Residual(c, c, layout)
        )
        self.output_blocks = nn.ModuleList()
        for depth, level in reversed(list(enumerate(layout.levels))):
            for k in range(layout.blocks + 1):
                block = Block(Residual(c + skips.pop(), level.width, layout))
                c = level.width
                if level.attention:
                    block.append(Attention(c, options, up=True))
                if depth and k == layout.blocks:
                    block.append(_doubling(c, layout))
                self.output_blocks.append(block)
        last = nn.Conv2d(c, layout.channels_out, 3, padding=1)
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, c), nn.SiLU(), last)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """One prediction for each row.

        Args:
            x: float32 [N, C, H, W].
            t: timesteps of the training's schedule, float or int, [N] or [N, 1]; fractions are
                fine.
            label: int64 [N] or [N, 1]; required by a network with classes.

        Returns:
            float32 [N, channels_out, H, W].
        """
        angles = t.float().reshape(-1, 1) * self.waves
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype)
        # An odd width leaves one place without a wave.
        told = self.time_embed(nn.functional.pad(waves, (0, self.layout.width % 2)))
        if self.layout.classes:
            assert label is not None
            told = told + self.label_emb(label.reshape(-1))
        features, skips = x, []
        for block in self.input_blocks:
            features = block(features, told)
            skips.append(features)
        features = self.middle_block(features, told)
        for block in self.output_blocks:
            features = block(torch.cat([features, skips.pop()], dim=1), told)
        return cast(Tensor, self.out(features))


class Block(nn.ModuleList):
    """Modules one after the other, of which the residual ones are told the timestep."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(modules)

    def forward(self, features: Tensor, told: Tensor) -> Tensor:
        for module in self:
            further = (told,) if isinstance(module, Residual) else ()
            features = module(features, *further)
        return features


class Residual(nn.Module):
    """Two convolutions with the embedded timestep [N, 4 · width] between them.

    Args:
        resampling: halves or doubles the features, between the first norm and its convolution, and
            beside them; it has no weights.
    """

    def __init__(
        self, c_in: int, c_out: int, layout: Layout, resampling: nn.Module | None = None
    ) -> None:
        super().__init__()
        first = nn.Conv2d(c_in, c_out, 3, padding=1)
        second = nn.Conv2d(c_out, c_out, 3, padding=1)
        told = nn.Linear(4 * layout.width, 2 * c_out if layout.film else c_out)
        self.in_layers = nn.Sequential(nn.GroupNorm(GROUPS, c_in), nn.SiLU(), first)
        self.emb_layers = nn.Sequential(nn.SiLU(), told)
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, c_out), nn.SiLU(), nn.Dropout(0), second
        )
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        self.resampling = resampling or nn.Identity()
        self.film = layout.film

    def forward(self, features: Tensor, told: Tensor) -> Tensor:
        norm, silu, convolution = self.in_layers
        made = convolution(self.resampling(silu(norm(features))))
        told = self.emb_layers(told)[:, :, None, None]
        norm, *further = self.out_layers
        if self.film:
            scale, shift = told.chunk(2, dim=1)
            made = norm(made) * (1 + scale) + shift
        else:
            made = norm(made + told)
        for layer in further:
            made = layer(made)
        return cast(Tensor, self.skip_connection(self.resampling(features)) + made)


class Attention(nn.Module):
    """Self-attention over all pixels, added to what it got.

    Args:
        up: whether it is on the way up, where the number of heads may differ.
    """

    def __init__(self, width: int, options: GuidedOptions, up: bool = False) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        # Upstream lays all pixels in a row; kernels of one pixel are [out, in, 1] there.
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)
        self.heads = options.num_heads
        if options.num_head_channels != -1:
            self.heads = width // options.num_head_channels
        elif up and options.num_heads_upsample != -1:
            self.heads = options.num_heads_upsample
        self.new_order = options.use_new_attention_order
        self.scale = (width // self.heads) ** -0.25

    def forward(self, features: Tensor) -> Tensor:
        row = features.flatten(2)
        joined = self.qkv(self.norm(row))  # [N, 3 · width, pixels]
        if self.new_order:
            joined = joined.unflatten(1, (3, self.heads, -1))
        else:
            joined = joined.unflatten(1, (self.heads, 3, -1)).transpose(1, 2)
        query, key, value = joined.unbind(1)  # [N, heads, width / heads, pixels]
        # Both are scaled before they meet: their product may exceed what float16 holds.
        shares = ((query * self.scale).transpose(2, 3) @ (key * self.scale)).softmax(dim=3)
        mixed = (value @ shares.transpose(2, 3)).flatten(1, 2)
        return cast(Tensor, (row + self.proj_out(mixed)).reshape(features.shape))


def _halving(width: int, layout: Layout) -> nn.Module:
    if layout.resampling == "conv":
        convolution = nn.Conv2d(width, width, 3, stride=2, padding=1)
        return nn.Sequential(OrderedDict(op=convolution))
    mean = nn.AvgPool2d(2)
    return mean if layout.resampling == "pool" else Residual(width, width, layout, mean)


def _doubling(width: int, layout: Layout) -> nn.Module:
    double = nn.Upsample(scale_factor=2, mode="nearest")
    if layout.resampling == "conv":
        return nn.Sequential(OrderedDict(up=double, conv=nn.Conv2d(width, width, 3, padding=1)))
    return double if layout.resampling == "pool" else Residual(width, width, layout, double)
