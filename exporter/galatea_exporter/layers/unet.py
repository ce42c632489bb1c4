"""The U-Net of Dhariwal & Nichol 2021 (arXiv:2105.05233), told one number about each picture.

Written from the description of the network and from the names and shapes in checkpoints: residual
blocks and attention at each size of the features, halved on the way down and doubled on the way up.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import gcd, log

import torch
from torch import Tensor, nn

from galatea_exporter.checkpoint import State
from galatea_exporter.layers.equalised import size_of


@dataclass(frozen=True)
class Layout:
    """The sizes of a U-Net.

    Attributes:
        channels: of the picture, and of what is made of it.
        width: channels of the first convolution.
        levels: channels at each size of the features, and whether there is attention.
        blocks: residual blocks on the way down at each size; one more on the way up.
        film: the number scales and shifts the features; otherwise it only shifts them.
        groups: of all norms.
    """

    channels: int
    width: int
    levels: tuple[tuple[int, bool], ...]
    blocks: int
    film: bool
    groups: int

    @classmethod
    def read(cls, state: State, groups: int) -> Layout:
        """What names and shapes tell; where a tensor is missing, strict loading names it."""
        levels: list[list[tuple[int, bool]]] = [[]]
        count = len({key.split(".")[1] for key in state if key.startswith("input_blocks.")})
        for name in (f"input_blocks.{k}" for k in range(1, count)):
            if f"{name}.0.op.weight" in state:
                levels.append([])
            else:
                width = size_of(state, f"{name}.0.in_layers.2.weight", 0)
                levels[-1].append((width, f"{name}.1.qkv.weight" in state))
        told = size_of(state, "input_blocks.1.0.emb_layers.1.weight", 0)
        return cls(
            channels=size_of(state, "input_blocks.0.0.weight", 1),
            width=size_of(state, "input_blocks.0.0.weight", 0),
            levels=tuple(level[0] if level else (1, False) for level in levels),
            blocks=max(len(level) for level in levels),
            film=told == 2 * size_of(state, "input_blocks.1.0.in_layers.2.weight", 0),
            groups=groups,
        )

    @property
    def factor(self) -> int:
        """Height and width are multiples of this."""
        return 1 << (len(self.levels) - 1)

    def norm(self, width: int) -> nn.GroupNorm:
        """A norm; a number of groups that does not fit is replaced by one that does."""
        return nn.GroupNorm(gcd(self.groups, width), width)

    def block(self, c_in: int, level: int) -> Block:
        """A residual block, with attention where the level has it."""
        width, attentive = self.levels[level]
        attention = [Attention(width, self)] if attentive else []
        return Block(Residual(c_in, width, self), *attention)


class UNet(nn.Module):
    """A picture and a number → floats of the picture's size.

    Args:
        layout: sizes.
        max_period: of the slowest wave that tells the number, in its unit.
    """

    waves: Tensor

    def __init__(self, layout: Layout, max_period: float) -> None:
        super().__init__()
        width, half = layout.width, layout.width // 2
        waves = torch.exp(-log(max_period) * torch.arange(half) / half)
        self.register_buffer("waves", waves, persistent=False)
        self.time_embed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )
        self.input_blocks = nn.ModuleList([Block(nn.Conv2d(layout.channels, width, 3, padding=1))])
        skips = [width]
        for level, (c, _) in enumerate(layout.levels):
            if level:
                half_size = nn.Conv2d(skips[-1], skips[-1], 3, stride=2, padding=1)
                self.input_blocks.append(Block(nn.Sequential(OrderedDict(op=half_size))))
                skips.append(skips[-1])
            for _ in range(layout.blocks):
                self.input_blocks.append(layout.block(skips[-1], level))
                skips.append(c)
        self.middle_block = Block(
            Residual(c, c, layout), Attention(c, layout), Residual(c, c, layout)
        )
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(layout.levels))):
            for k in range(layout.blocks + 1):
                block = layout.block(c + skips.pop(), level)
                c = layout.levels[level][0]
                if level and k == layout.blocks:
                    double = nn.Upsample(scale_factor=2, mode="nearest")
                    conv = nn.Conv2d(c, c, 3, padding=1)
                    block.append(nn.Sequential(OrderedDict(up=double, conv=conv)))
                self.output_blocks.append(block)
        last = nn.Conv2d(c, layout.channels, 3, padding=1)
        self.out = nn.Sequential(layout.norm(c), nn.SiLU(), last)

    def forward(self, picture: Tensor, number: Tensor) -> Tensor:
        """picture float32 [N, C, H, W], number float32 [N, 1] → float32 [N, C, H, W]."""
        angles = number * self.waves
        told = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))
        features, skips = picture, []
        for block in self.input_blocks:
            features = block(features, told)
            skips.append(features)
        features = self.middle_block(features, told)
        for block in self.output_blocks:
            features = block(torch.cat([features, skips.pop()], dim=1), told)
        made: Tensor = self.out(features)
        return made


class Block(nn.ModuleList):
    """Modules one after the other, of which the residual ones are told the number."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(modules)

    def forward(self, features: Tensor, told: Tensor) -> Tensor:
        for module in self:
            further = (told,) if isinstance(module, Residual) else ()
            features = module(features, *further)
        return features


class Residual(nn.Module):
    """Two convolutions, with the embedded number [N, 4 · width] between them."""

    def __init__(self, c_in: int, c_out: int, layout: Layout) -> None:
        super().__init__()
        first = nn.Conv2d(c_in, c_out, 3, padding=1)
        second = nn.Conv2d(c_out, c_out, 3, padding=1)
        linear = nn.Linear(4 * layout.width, 2 * c_out if layout.film else c_out)
        self.in_layers = nn.Sequential(layout.norm(c_in), nn.SiLU(), first)
        self.emb_layers = nn.Sequential(nn.SiLU(), linear)
        self.out_layers = nn.Sequential(layout.norm(c_out), nn.SiLU(), nn.Dropout(0), second)
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        self.film = layout.film

    def forward(self, features: Tensor, told: Tensor) -> Tensor:
        norm, *further = self.out_layers
        made, told = self.in_layers(features), self.emb_layers(told)[:, :, None, None]
        if self.film:
            scale, shift = told.chunk(2, dim=1)
            made = norm(made) * (1 + scale) + shift
        else:
            made = norm(made + told)
        for layer in further:
            made = layer(made)
        result: Tensor = self.skip_connection(features) + made
        return result


class Attention(nn.Module):
    """Self-attention with one head over all pixels, added to what it got."""

    def __init__(self, width: int, layout: Layout) -> None:
        super().__init__()
        self.norm = layout.norm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)
        self.scale = width**-0.5

    def forward(self, features: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(features)).flatten(2).chunk(3, dim=1)
        shares = (query.transpose(1, 2) @ key * self.scale).softmax(dim=2)
        mixed = (value @ shares.transpose(1, 2)).reshape(features.shape)
        result: Tensor = features + self.proj_out(mixed)
        return result


def with_square_kernels(state: State) -> dict[str, Tensor]:
    """Attention's kernels [out, in, 1] as [out, in, 1, 1]; upstream lays all pixels in a row."""
    return {key: value[..., None] if value.ndim == 3 else value for key, value in state.items()}
