"""Ageing of hearts in MR images: a picture and a difference of age → the heart at that age.

Architecture: a U-Net that is told the difference of age and makes a map, which is added to the
picture; the generator of a Wasserstein GAN (Campello et al. 2022, doi:10.3389/fcvm.2022.983091) in
the layout of the repository vicmancr/CardiacAging. Written from the description of the network and
from the names and shapes in its checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from galatea.card import Input, Preparation
from galatea.errors import ExportError, InvalidInput
from galatea_exporter.assembly import from_source
from galatea_exporter.checkpoint import Checkpoint, State, load_strictly
from galatea_exporter.family import Family, Options, random_weights, register
from galatea_exporter.layers.unet import Layout, UNet, with_square_kernels
from galatea_exporter.stages import Axis, StagedGenerator, TensorSpec

PREFIX = "generator."
NOMINAL = (128, 128)
SMALLEST = 4  # pixels of the smallest features; the norms need some

AGE_DELTA = Input(
    "age_delta", "FP32", "years by which the heart ages; negative makes it younger",
    default=10.0, minimum=-50.0, maximum=50.0,
)  # fmt: skip


class Ageing(nn.Module):
    """Gives the picture with its map added, and the map."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, picture: Tensor, age_delta: Tensor) -> tuple[Tensor, Tensor]:
        """picture float32 [N, C, H, W] in [0, 1], age_delta float32 [N, 1] → two like picture."""
        change = self.unet(picture, age_delta)
        return picture + change, change


@dataclass(frozen=True)
class CardiacOptions(Options):
    """Adds what the shapes leave open; a Lightning checkpoint tells it itself.

    Attributes:
        max_period: of the waves that tell the age, in years; upstream's ``embedding_max_period``.
        groups: of all norms; upstream's ``num_groups_GN``.
        size: (height, width) that a picture is resized to, upstream's ``input_shape``; empty keeps
            its own.
    """

    low: float = 0.0
    max_period: float = 100.0
    groups: int = 32
    size: tuple[int, ...] = NOMINAL


@register
class CardiacAging(Family):
    """Widths, depth and the places of attention are read from the checkpoint's names and shapes.

    Upstream stretches each picture to [0, 1] and then resizes it by a transform that averages areas
    unless told otherwise. The network takes other sizes too; attention needs memory that grows with
    the square of the number of pixels.
    """

    name = "cardiac_aging"
    title = "Ageing of hearts in MR images"
    source = "arXiv:2105.05233, doi:10.3389/fcvm.2022.983091; vicmancr/CardiacAging"
    containers = ("state_dict",)
    modules = ("pytorch_lightning.*",)  # before 1.5 it names the states of callbacks by classes
    options = CardiacOptions

    def arguments(self, checkpoint: Checkpoint) -> dict[str, Any]:
        content = checkpoint.content
        given = content.get("hyper_parameters") if isinstance(content, Mapping) else None
        if not isinstance(given, Mapping):
            return {}
        if given.get("use_tanh"):
            raise ExportError(
                f"{checkpoint.path}: trained with use_tanh, which this family does not have",
                "export a checkpoint that was trained without it",
            )
        names = {
            "max_period": "embedding_max_period", "groups": "num_groups_GN", "size": "input_shape",
        }  # fmt: skip
        return {ours: given[theirs] for ours, theirs in names.items() if theirs in given}

    def recognises(self, state: State) -> bool:
        names = ("time_embed.0.weight", "input_blocks.0.0.weight")
        linear, first = (state.get(PREFIX + name) for name in names)
        return linear is not None and first is not None and first.ndim == 4

    def build(self, state: State, options: CardiacOptions, path: Path) -> StagedGenerator:
        others = [key for key in state if key.startswith("discriminator.")]
        weights = with_square_kernels(
            {key.removeprefix(PREFIX): state[key] for key in state if key not in others}
        )
        layout = Layout.read(weights, options.groups)
        unet = UNet(layout, options.max_period)
        load_strictly(unet, weights, path, self.name)
        _check(unet, options, layout.factor)
        height, width = options.size or NOMINAL
        size = (
            Axis("height", layout.factor, SMALLEST * layout.factor, height),
            Axis("width", layout.factor, SMALLEST * layout.factor, width),
        )
        channels = options.channel_names(layout.channels)
        return from_source(
            Ageing(unet),
            source=channels,
            size=size,
            span=(0.0, 1.0),
            preparation=Preparation("minmax", options.size, resample="box"),
            channels=channels,
            pixels=options.pixels(layout.channels),
            conditions=(AGE_DELTA,),
            probes=(TensorSpec("map", "float32", (layout.channels, *size)),),
            ignored=tuple(f"{key}: not the generator" for key in others),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        widths, blocks = ((32, 64, 128, 256), 2) if published else ((32, 64), 1)
        levels = tuple((width, width == widths[-1]) for width in widths)
        state = random_weights(UNet(Layout(1, 32, levels, blocks, film=True, groups=32), 100.0))
        state["out.2.weight"] *= 0.1  # a map that leaves most of the picture inside of [0, 1]
        kernels = (".qkv.weight", ".proj_out.weight")
        return {
            PREFIX + key: tensor.squeeze(-1) if key.endswith(kernels) else tensor
            for key, tensor in state.items()
        }


def _check(unet: UNet, options: CardiacOptions, factor: int) -> None:
    """Whether the options fit the network.

    Raises:
        InvalidInput: they do not.
    """
    for norm in unet.modules():
        if isinstance(norm, nn.GroupNorm) and norm.num_groups != options.groups:
            raise InvalidInput(
                f"{options.groups} groups do not divide {norm.num_channels} channels",
                "set groups to the num_groups_GN of the training",
            )
    least = SMALLEST * factor
    if len(options.size) not in (0, 2) or any(s < least or s % factor for s in options.size):
        raise InvalidInput(
            f"size {','.join(map(str, options.size))} does not fit this network",
            f"give height,width in multiples of {factor} from {least}, or nothing",
        )
