"""pix2pix with the U-Net generator of the junyanz layout.

Architecture: Isola et al. 2017 (arXiv:1611.07004) in the layout of the repository
junyanz/pytorch-CycleGAN-and-pix2pix (``unet_128``, ``unet_256``). Written from the description of
the network and from the names and shapes in its checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from galatea_exporter.checkpoint import State, load_strictly
from galatea_exporter.family import Family, random_weights, register
from galatea_exporter.layers.translation import (
    Norm,
    TranslatorOptions,
    translator,
    without_statistics,
)
from galatea_exporter.stages import StagedGenerator


def down(inputs: int, width: int, bias: bool) -> nn.Conv2d:
    """[N, inputs, H, W] → [N, width, H/2, W/2]."""
    return nn.Conv2d(inputs, width, 4, 2, 1, bias=bias)


def up(width: int, outputs: int, bias: bool) -> nn.ConvTranspose2d:
    """[N, width, H, W] → [N, outputs, 2·H, 2·W]."""
    return nn.ConvTranspose2d(width, outputs, 4, 2, 1, bias=bias)


class Level(nn.Module):
    """One step down and up again, around the levels below; it hands on what came in beside that.

    The lowest level has no norm on its way down. Training has dropout behind some norms, in the
    last place, where it moves no name.

    Args:
        inputs: channels that come in; as many more go out.
        widths: channels of this step and of those below it.
        norm: of the convolutions.
    """

    def __init__(self, inputs: int, widths: list[int], norm: Norm) -> None:
        super().__init__()
        width, *below = widths
        descent = down(inputs, width, norm.bias)
        inner = [*norm.after(descent), Level(width, below, norm)] if below else [descent]
        ascent = up(width * (2 if below else 1), inputs, norm.bias)
        self.model = nn.Sequential(nn.LeakyReLU(0.2), *inner, nn.ReLU(), *norm.after(ascent))

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, inputs, H, W] → float32 [N, 2·inputs, H, W]."""
        # The ReLU that follows makes no difference between x and its leaky activation, and so a
        # runtime can join the latter to the convolution that made x.
        activated = self.model[0](x)
        return torch.cat([activated, self.model[1:](activated)], dim=1)


class UNet(nn.Module):
    """Height and width are multiples of 2 to the number of widths.

    Args:
        inputs, outputs: channels of the pictures.
        widths: channels of the steps down, the outermost first.
        norm: of all convolutions but the outermost and the lowest on its way down.
    """

    def __init__(self, inputs: int, outputs: int, widths: list[int], norm: Norm) -> None:
        super().__init__()
        steps = nn.Sequential(
            down(inputs, widths[0], norm.bias),
            Level(widths[0], widths[1:], norm),
            nn.ReLU(),
            up(2 * widths[0], outputs, bias=True),
            nn.Tanh(),
        )
        self.model = nn.Sequential(OrderedDict(model=steps))

    def forward(self, source: Tensor) -> Tensor:
        """float32 [N, C, H, W] → float32 [N, C', H, W] in [-1, 1]."""
        picture: Tensor = self.model(source)
        return picture


@register
class Pix2PixUNet(Family):
    """Depth, widths and norm are read from the checkpoint.

    Without the option `size`, a picture is resized to the size at which the lowest level is one
    pixel, for which upstream names its networks: 256 × 256 for ``unet_256``. Upstream's script
    leaves batch norms and dropout in training mode unless told ``--eval``; this is eval mode.
    """

    name = "pix2pix_unet"
    title = "pix2pix, U-Net generator"
    source = "arXiv:1611.07004; junyanz/pytorch-CycleGAN-and-pix2pix"
    aliases = ("pix2pix",)
    options = TranslatorOptions

    def recognises(self, state: State) -> bool:
        last = state.get("model.model.3.weight")
        return last is not None and last.ndim == 4 and len(read_widths(state)) > 2

    def build(self, state: State, options: TranslatorOptions, path: Path) -> StagedGenerator:
        weights, ignored = without_statistics(state)
        widths = read_widths(weights)
        inputs = weights["model.model.0.weight"].shape[1]
        outputs = weights["model.model.3.weight"].shape[1]
        norm = Norm.read(weights, "model.model.0", "model.model.1.model.2")
        network = UNet(inputs, outputs, widths, norm)
        load_strictly(network, weights, path, self.name)
        multiple = 2 ** len(widths)
        return translator(
            network,
            replace(options, size=options.size or (multiple, multiple)),
            inputs=inputs,
            outputs=outputs,
            multiple=multiple,
            minimum=multiple,
            nominal=(multiple, multiple),
            ignored=ignored,
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        ngf, downs, channels = (64, 8, 3) if published else (4, 5, 1)
        widths = [ngf * min(2**k, 8) for k in range(downs)]
        state = random_weights(UNet(channels, channels, widths, Norm("batch", bias=False)))
        state["model.model.3.weight"] /= 8  # nearly all pixels would be black or white
        return state


def read_widths(state: State) -> list[int]:
    """Channels of the steps down, the outermost first; empty for another layout."""
    widths: list[int] = []
    name = "model.model.0.weight"
    while name in state and state[name].ndim == 4:
        widths.append(state[name].shape[0])
        name = "model.model.1." + "model.3." * (len(widths) - 1) + "model.1.weight"
    return widths
