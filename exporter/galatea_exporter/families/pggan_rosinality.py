"""Progressive GAN of rosinality's progressive-gan-pytorch layout.

Architecture: Karras et al. 2017 (arXiv:1710.10196), with a label beside the latent vector where
the checkpoint has one. Written from the paper and from the names and shapes of the layout; no
published checkpoint was at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from galatea.card import Input
from galatea.errors import InvalidInput
from galatea_exporter.assembly import from_latent
from galatea_exporter.checkpoint import Checkpoint, State
from galatea_exporter.family import Family, register
from galatea_exporter.layers.equalised import (
    EqualisedConv2d,
    PixelNorm,
    activated,
    load_equalised,
    size_of,
    unit_weights,
)
from galatea_exporter.layers.growth import GrowthOptions
from galatea_exporter.pickles import PickledModule
from galatea_exporter.stages import StagedGenerator

FIRST = "progression.0.conv.0.conv.weight_orig"
EMBEDDING = "label_embed.weight"


class Block(nn.Module):
    """Two convolutions, each with pixel normalisation, where there is, and LeakyReLU behind it.

    Args:
        c_in, c_out: channels before and behind it.
        leakiness: negative slope of the LeakyReLUs.
        pixel_norm: whether there is pixel normalisation.
        start: the first kernel is 4 × 4 and turns 1 × 1 into 4 × 4 pixels.
    """

    def __init__(
        self, c_in: int, c_out: int, leakiness: float, *, pixel_norm: bool, start: bool
    ) -> None:
        super().__init__()
        kernel, padding = (4, 3) if start else (3, 1)
        self.conv = activated(
            EqualisedConv2d(c_in, c_out, kernel, padding),
            EqualisedConv2d(c_out, c_out, 3, padding=1),
            leakiness=leakiness,
            pixel_norm=pixel_norm,
        )

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = self.conv(features)
        return made


class Generator(nn.Module):
    """From a latent vector, and a label, to an image of 4·2^step pixels.

    Args:
        widths: inputs of the first block, then the channels of each block.
        channels: channels of the image.
        classes: how many the label has, and its embedding's width; (0, 0) without a label.
        pixel_norm: pixel normalisation in the blocks, beside that of the latent.
        equalised_heads: whether the layers that make images are equalised too.
        options: see :class:`RosinalityOptions`; the step is that of the last block.
    """

    def __init__(
        self,
        widths: Sequence[int],
        channels: int,
        classes: tuple[int, int],
        options: RosinalityOptions,
        *,
        pixel_norm: bool = True,
        equalised_heads: bool = False,
    ) -> None:
        super().__init__()
        self.code_norm, self.mode, self.alpha = PixelNorm(), options.upsampling, options.alpha
        self.label_embed = nn.Embedding(*classes) if classes[0] else None
        self.progression = nn.ModuleList(
            Block(*pair, options.leakiness, pixel_norm=pixel_norm, start=k == 0)
            for k, pair in enumerate(pairwise(widths))
        )
        last = len(self.progression) - 1
        head = EqualisedConv2d if equalised_heads else nn.Conv2d
        self.to_rgb = nn.ModuleDict(
            {
                str(k): head(widths[k + 1], channels, 1)
                for k in range(max(0, last - options.fading), last + 1)
            }
        )

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """latent float32 [N, nz], label int64 [N, 1] → image float32 [N, C, H, H] in [-1, 1]."""
        start = self.code_norm(latent)
        if self.label_embed is not None:
            assert label is not None
            start = torch.cat([start, self.label_embed(label[:, 0])], dim=1)
        before = start[:, :, None, None]
        features = self.progression[0](before)
        for block in list(self.progression)[1:]:
            before = features
            features = block(self._doubled(before))
        *old, last = self.to_rgb.values()
        image: Tensor = last(features)
        for head in old:
            image = self.alpha * image + (1 - self.alpha) * self._doubled(head(before))
        return image

    def _doubled(self, features: Tensor) -> Tensor:
        return interpolate(features, scale_factor=2, mode=self.mode)


@dataclass(frozen=True)
class RosinalityOptions(GrowthOptions):
    """Adds what the checkpoint leaves open; upstream rounds to the nearest level.

    Attributes:
        upsampling: how the size is doubled.
        leakiness: negative slope of the LeakyReLUs; a module that was pickled whole tells it.
    """

    rounding: Literal["truncate", "nearest"] = "nearest"
    upsampling: Literal["nearest", "bilinear"] = "nearest"
    leakiness: float = 0.2


@register
class PGGANRosinality(Family):
    """State dicts, and whole modules, which are read as data.

    Sizes, label and pixel normalisation are read from the checkpoint's names and shapes.
    """

    name = "pggan_rosinality"
    title = "Progressive GAN, rosinality layout"
    source = "arXiv:1710.10196; rosinality/progressive-gan-pytorch"
    containers = ("g_running", "generator")
    modules = ("progan_modules.*", "model.*")
    options = RosinalityOptions

    def recognises(self, state: State) -> bool:
        return FIRST in state and any(key.startswith("to_rgb.") for key in state)

    def arguments(self, checkpoint: Checkpoint) -> dict[str, Any]:
        content = checkpoint.content
        block = _child(content, "module") or content
        for name in ("progression", "0", "conv"):
            block = _child(block, name)
        layers = (_child(block, str(k)) for k in range(6))
        slopes = [x.stored.get("negative_slope") for x in layers if isinstance(x, PickledModule)]
        return next(({"leakiness": slope} for slope in slopes if isinstance(slope, float)), {})

    def build(self, state: State, options: RosinalityOptions, path: Path) -> StagedGenerator:
        steps = range(len({key.split(".")[1] for key in state if key.startswith("progression.")}))
        step = options.grown(steps, path)
        blocks = [f"progression.{k}.conv.0.conv.weight_orig" for k in range(step + 1)]
        equalised = f"to_rgb.{step}.conv.bias" in state
        channels = size_of(state, f"to_rgb.{step}.{'conv.' * equalised}bias", 0)
        width = size_of(state, EMBEDDING, 1) if EMBEDDING in state else 0
        classes = size_of(state, EMBEDDING, 0) if EMBEDDING in state else 0
        room = size_of(state, FIRST, 1)
        generator = Generator(
            [room, *(size_of(state, key, 0) for key in blocks)],
            channels, (classes, width), options,
            pixel_norm="progression.0.conv.3.conv.weight_orig" in state,
            equalised_heads=equalised,
        )  # fmt: skip
        layers = {f"{kind}.{k}" for kind in ("progression", "to_rgb") for k in steps}
        used = {name for name, _ in generator.named_modules()}
        unused = [key for key in state if ".".join(key.split(".")[:2]) in layers - used]
        load_equalised(
            generator, {k: v for k, v in state.items() if k not in unused}, path, self.name
        )
        size = 4 * 2**step
        return from_latent(
            generator,
            latent=room - width,
            image=(channels, size, size),
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
            conditions=(_label(classes, options.labels),) if classes else (),
            ignored=tuple(f"{key}: makes other sizes" for key in unused),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        widths = (512,) * 5 + (256, 128) if published else (16, 8, 8, 4)
        options = RosinalityOptions(alpha=0.5)  # so that there is a layer for a smaller image, too
        state = unit_weights(Generator(widths, 3, (0, 0), options))
        return {k: v * 0.2 if k.startswith("to_rgb.") else v for k, v in state.items()}


def _label(classes: int, names: tuple[str, ...]) -> Input:
    labels = names or tuple(f"class {k}" for k in range(classes))
    if len(labels) != classes:
        raise InvalidInput(
            f"{len(labels)} labels for {classes} classes",
            f"give {classes} names, separated by commas",
        )
    return Input("label", "INT64", "class of the image", labels)


def _child(module: Any, name: str) -> Any:
    modules = module.stored.get("_modules") if isinstance(module, PickledModule) else None
    return modules.get(name) if isinstance(modules, dict) else None
