"""StyleGAN3, the alias-free generator, in its configurations T and R.

Architecture: Karras et al. 2021 (arXiv:2106.12423), in the layout of ``networks_stylegan3`` in
NVlabs/stylegan3. Written from the paper and from the names and shapes in its checkpoints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galatea.card import Input
from galatea.errors import ExportError, InvalidInput
from galatea_exporter.assembly import from_latent
from galatea_exporter.checkpoint import Checkpoint, State
from galatea_exporter.family import Family, Options, register
from galatea_exporter.layers.equalised import load_equalised, size_of
from galatea_exporter.layers.stylegan import (
    HIGH,
    LOW,
    Generator,
    MappingNetwork,
    mapping_network,
    random_state,
    snapshot_arguments,
)
from galatea_exporter.layers.stylegan3 import (
    LayerShape,
    Synthesis,
    SynthesisInput,
    SynthesisLayer,
)
from galatea_exporter.stages import StagedGenerator

CONTROLS = (
    Input(
        "translate_x", "FP32", "moves the content to the right, in widths of the image",
        default=0.0, minimum=-1.0, maximum=1.0,
    ),
    Input(
        "translate_y", "FP32", "moves the content down, in heights of the image",
        default=0.0, minimum=-1.0, maximum=1.0,
    ),
    Input(
        "rotate", "FP32", "turns the content counter-clockwise, in degrees",
        default=0.0, minimum=-360.0, maximum=360.0,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class StyleGAN3Options(Options):
    """Adds what a state dict does not tell; a snapshot tells it all.

    Attributes:
        conv_clamp: bound of every layer's output, or none.
        lr_multiplier: factor of the mapping's weights.
        margin_size: samples around the image.
        lrelu_upsampling: factor of the sampling rate for the activation.
        first_cutoff: highest frequency of the input, in cycles to the image's side.
        output_scale: factor of the image.
    """

    low: float = LOW
    high: float = HIGH
    conv_clamp: float | None = 256.0
    lr_multiplier: float = 0.01
    margin_size: int = 10
    lrelu_upsampling: int = 2
    first_cutoff: float = 2.0
    output_scale: float = 0.25


@register
class StyleGAN3(Family):
    """Sizes are read from the names of the layers and the shapes of the tensors."""

    name = "stylegan3"
    title = "StyleGAN3"
    source = "arXiv:2106.12423; NVlabs/stylegan3"
    containers = ("G_ema", "G")
    modules = ("training.networks*",)
    options = StyleGAN3Options

    def recognises(self, state: State) -> bool:
        return "synthesis.input.freqs" in state and "mapping.w_avg" in state

    def arguments(self, checkpoint: Checkpoint) -> dict[str, Any]:
        synthesis, mapping = snapshot_arguments(checkpoint, self.containers)
        names = ("conv_clamp", "margin_size", "lrelu_upsampling", "first_cutoff", "output_scale")
        told = {key: synthesis[key] for key in names if key in synthesis}
        return told | {key: mapping[key] for key in ("lr_multiplier",) if key in mapping}

    def build(self, state: State, options: StyleGAN3Options, path: Path) -> StagedGenerator:
        shapes = layer_shapes(state, options, path)
        synthesis = _synthesis(size_of(state, "mapping.w_avg", 0), shapes, options)
        mapping = mapping_network(state, synthesis.num_ws, options.lr_multiplier)
        load_equalised(Generator(mapping, synthesis), state, path, self.name)
        last, controls = shapes[-1], mapping.controls(options.labels)
        made = from_latent(
            synthesis,
            latent=mapping.z_dim,
            image=(last.c_out, last.out, last.out),
            channels=options.channel_names(last.c_out),
            pixels=options.pixels(last.c_out),
            conditions=(*controls, *CONTROLS),
            mapping=mapping.stage(controls),
        )
        # Activations are computed at twice the sampling rate, so features take four times as much.
        return replace(made, max_batch=max(1, made.max_batch // 4))

    def example(self, published: bool = False) -> dict[str, Tensor]:
        width, classes, sides, widths = 16, 2, [28, 28, 16, 16], [16, 12, 8, 3]
        if published:
            width, classes, widths = 512, 0, [*[512] * 9, 362, 256, 181, 128, 128, 5]
            sides = [*[36] * 3, *[52] * 2, *[84] * 2, *[148] * 3, *[276] * 3, *[256] * 2]
        kernels = [*[3] * (len(sides) - 1), 1]
        names = {
            f"synthesis.L{k}_{side}_{channels}.weight": torch.empty(1, 1, kernel, kernel)
            for k, (side, channels, kernel) in enumerate(zip(sides, widths, kernels, strict=True))
        }
        options = StyleGAN3Options()
        synthesis = _synthesis(width, layer_shapes(names, options, Path()), options)
        embed = (classes, width) if classes else (0, 0)
        mapping = MappingNetwork(width, [width] * 2, synthesis.num_ws, embed, rate=0.01)
        return random_state(Generator(mapping, synthesis))


def layer_shapes(state: State, options: StyleGAN3Options, path: Path) -> list[LayerShape]:
    """The layers that the names tell.

    Raises:
        ExportError: the number of a layer is missing.
        InvalidInput: their sizes do not fit the options.
    """
    found = re.findall(r"synthesis\.(L(\d+)_(\d+)_(\d+))\.", " ".join(state))
    named = {int(index): (name, int(side), int(width)) for name, index, side, width in found}
    if len(named) < 2 or sorted(named) != list(range(len(named))):
        raise ExportError(
            f"{path}: does not fit the family stylegan3: its layers are {sorted(named)}",
            "the checkpoint may be truncated; download it again",
        )
    layers = [named[index] for index in range(len(named))]
    sides = [side for _, side, _ in layers]
    # The last two have no margin.
    rates = [*(side - 2 * options.margin_size for side in sides[:-2]), *sides[-2:]]
    shapes = []
    for k, (name, side, width) in enumerate(layers):
        before, last, prefix = max(k - 1, 0), k == len(layers) - 1, f"synthesis.{name}"
        upsampling = 1 if last else options.lrelu_upsampling
        between = max(rates[k], rates[before]) * upsampling
        if min(rates[k], rates[before]) < 1 or between % rates[k] or between % rates[before]:
            raise InvalidInput(
                f"{path}: a margin of {options.margin_size} does not fit the layer {name}",
                "set margin_size and lrelu_upsampling as in the training",
            )
        up, down = between // rates[before], between // rates[k]
        shapes.append(
            LayerShape(
                name=name,
                c_in=layers[before][2],
                c_out=width,
                kernel=size_of(state, f"{prefix}.weight", 2),
                size=sides[before],
                out=side,
                up=up,
                down=down,
                up_taps=_taps(state, f"{prefix}.up_filter", 1, up),
                down_taps=_taps(state, f"{prefix}.down_filter", 2, down),
                last=last,
            )
        )
    return shapes


def _taps(state: State, key: str, axes: int, factor: int) -> tuple[int, ...]:
    """Shape of a filter with up to `axes` axes of one length, for a factor of the rate."""
    if factor == 1:
        return ()
    shape = tuple(state[key].shape) if key in state else (6 * factor,)
    return shape if shape == shape[:1] * len(shape) and len(shape) <= axes else shape[:1]


def _synthesis(w_dim: int, shapes: list[LayerShape], options: StyleGAN3Options) -> Synthesis:
    first = shapes[0]
    rate = first.size - 2 * options.margin_size
    layers = [
        SynthesisLayer(w_dim, shape, options.conv_clamp, options.output_scale) for shape in shapes
    ]
    plane = SynthesisInput(w_dim, first.c_in, first.size, rate, options.first_cutoff)
    return Synthesis(plane, layers)
