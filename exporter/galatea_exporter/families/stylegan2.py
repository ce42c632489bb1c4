"""StyleGAN2 and StyleGAN2-ADA.

Architecture: Karras et al. 2019 (arXiv:1912.04958) and 2020 (arXiv:2006.06676), in the layout of
NVlabs/stylegan2-ada-pytorch and of ``networks_stylegan2`` in NVlabs/stylegan3. Written from the
papers and from the names and shapes in their checkpoints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from galatea.errors import ExportError
from galatea_exporter.assembly import from_latent
from galatea_exporter.checkpoint import Checkpoint, State
from galatea_exporter.family import Family, Options, register
from galatea_exporter.layers.equalised import load_equalised, size_of
from galatea_exporter.layers.stylegan import (
    HIGH,
    LOW,
    Activation,
    Generator,
    MappingNetwork,
    mapping_network,
    random_state,
    snapshot_arguments,
)
from galatea_exporter.layers.stylegan2 import FIRST, Architecture, NoiseMode, Shared, Synthesis
from galatea_exporter.stages import StagedGenerator


@dataclass(frozen=True)
class StyleGAN2Options(Options):
    """Adds what a state dict does not tell; a snapshot tells all but the noise.

    Attributes:
        noise_mode: "const" adds the noise that the checkpoint holds, always the same; "none" adds
            nothing; "random" adds noise drawn by the seed.
        conv_clamp: bound of every layer's output, or none.
        activation: of the synthesis layers.
        lr_multiplier: factor of the mapping's weights.
        mapping_activation: of the mapping's layers.
    """

    low: float = LOW
    high: float = HIGH
    noise_mode: NoiseMode = "const"
    conv_clamp: float | None = 256.0
    activation: Activation = "lrelu"
    lr_multiplier: float = 0.01
    mapping_activation: Activation = "lrelu"


@register
class StyleGAN2(Family):
    """Sizes and architecture are read from the names and shapes of the tensors."""

    name = "stylegan2"
    title = "StyleGAN2 and StyleGAN2-ADA"
    source = "arXiv:1912.04958, arXiv:2006.06676; NVlabs/stylegan2-ada-pytorch, NVlabs/stylegan3"
    aliases = ("stylegan2ada", "stylegan2-ada")
    containers = ("G_ema", "G")
    modules = ("training.networks*",)
    options = StyleGAN2Options

    def recognises(self, state: State) -> bool:
        return "synthesis.b4.const" in state and "mapping.w_avg" in state

    def arguments(self, checkpoint: Checkpoint) -> dict[str, Any]:
        synthesis, mapping = snapshot_arguments(checkpoint, self.containers)
        told = {key: synthesis[key] for key in ("conv_clamp", "activation") if key in synthesis}
        names = {"lr_multiplier": "lr_multiplier", "activation": "mapping_activation"}
        return told | {names[key]: value for key, value in mapping.items() if key in names}

    def build(self, state: State, options: StyleGAN2Options, path: Path) -> StagedGenerator:
        synthesis = _synthesis(state, options, path)
        mapping = mapping_network(
            state, synthesis.num_ws, options.lr_multiplier, options.mapping_activation
        )
        load_equalised(Generator(mapping, synthesis), state, path, self.name)
        controls = mapping.controls(options.labels)
        return from_latent(
            synthesis,
            latent=mapping.z_dim,
            image=(synthesis.channels, synthesis.resolution, synthesis.resolution),
            channels=options.channel_names(synthesis.channels),
            pixels=options.pixels(synthesis.channels),
            noise=synthesis.noise,
            conditions=controls,
            mapping=mapping.stage(controls),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        if published:
            return example_of(512, [512, 512, 512, 512, 256, 128, 64])
        return example_of(16, [16, 16, 12, 8])


def example_of(width: int, widths: list[int]) -> dict[str, Tensor]:
    """Random weights; `width` of z and w, `widths` of the resolutions from 4 × 4 pixels on."""
    synthesis = Synthesis(Shared(width, 3, 4, "const", "lrelu", 256.0), "skip", widths)
    mapping = MappingNetwork(width, [width] * 2, synthesis.num_ws, (2, width), rate=0.01)
    return random_state(Generator(mapping, synthesis))


def _synthesis(state: State, options: StyleGAN2Options, path: Path) -> Synthesis:
    """The network with the sizes of these tensors; missing ones are left to strict loading.

    Raises:
        ExportError: a resolution is missing.
    """
    found = {int(side) for side in re.findall(r"synthesis\.b(\d+)\.", " ".join(state))}
    resolutions = [FIRST << k for k in range((max(found) // FIRST).bit_length())]
    if found != set(resolutions):
        raise ExportError(
            f"{path}: does not fit the family stylegan2: its resolutions are {sorted(found)}",
            "the checkpoint may be truncated; download it again",
        )
    blocks = [f"synthesis.b{resolution}" for resolution in resolutions]
    showing = {block for block in blocks if any(key.startswith(f"{block}.torgb.") for key in state)}
    residual = any(".skip." in key for key in state)
    architecture: Architecture = "resnet" if residual else "skip" if len(showing) > 1 else "orig"
    noise = any(key.endswith((".noise_const", ".noise_strength")) for key in state)
    taps = size_of(state, "synthesis.b4.resample_filter", 0)
    shared = Shared(
        w_dim=size_of(state, "mapping.w_avg", 0),
        channels=size_of(state, f"{blocks[-1]}.torgb.bias", 0),
        taps=taps + taps % 2,
        noise=options.noise_mode if noise else "absent",
        activation=options.activation,
        conv_clamp=options.conv_clamp,
    )
    widths = [size_of(state, f"{block}.conv1.bias", 0) for block in blocks]
    return Synthesis(shared, architecture, widths)
