"""DCGAN of the Alyafi layout (patches of breast masses, 128 × 128).

Architecture: Radford et al. 2015 (arXiv:1511.06434) with LeakyReLU in the generator, in the layout
of RichardObi/Projects (``master_thesis/DCGAN.py``). Written from the description of the network and
from the names and shapes in its checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from galatea_exporter.assembly import from_latent
from galatea_exporter.checkpoint import State, load_strictly
from galatea_exporter.family import Family, Options, random_weights, register
from galatea_exporter.stages import StagedGenerator

MULTIPLIERS = (10, 8, 4, 2, 1)  # of ngf, from 4 × 4 to 64 × 64 pixels
IMAGE_SIZE = 128


class Generator(nn.Module):
    """Transposed convolutions from a latent vector to an image in [-1, 1].

    Args:
        nz: length of the latent vector.
        ngf: width; the last hidden stage has ``ngf`` channels.
        nc: channels of the image.
    """

    def __init__(self, nz: int, ngf: int, nc: int) -> None:
        super().__init__()
        widths = [ngf * multiplier for multiplier in MULTIPLIERS]
        layers: list[nn.Module] = []
        for k, (c_in, c_out) in enumerate(zip([nz, *widths], [*widths, nc], strict=True)):
            stride, padding = (1, 0) if k == 0 else (2, 1)
            layers.append(nn.ConvTranspose2d(c_in, c_out, 4, stride, padding, bias=False))
            layers += [nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers[:-2], nn.Tanh())

    def forward(self, latent: Tensor) -> Tensor:
        """latent float32 [N, nz] → image float32 [N, nc, 128, 128]."""
        image: Tensor = self.model(latent[:, :, None, None])
        return image


@dataclass(frozen=True)
class AlyafiOptions(Options):
    """Upstream rounds to the nearest level."""

    rounding: Literal["truncate", "nearest"] = "nearest"


@register
class DCGANAlyafi(Family):
    """Sizes are read from the checkpoint's shapes."""

    name = "dcgan_alyafi"
    title = "DCGAN of breast masses, Alyafi layout"
    source = "arXiv:1511.06434; RichardObi/Projects master_thesis/DCGAN.py"
    containers = ("generator",)
    options = AlyafiOptions

    def recognises(self, state: State) -> bool:
        first, last = state.get("model.0.weight"), state.get("model.15.weight")
        return first is not None and last is not None and first.ndim == 4 and last.ndim == 4

    def build(self, state: State, options: AlyafiOptions, path: Path) -> StagedGenerator:
        nz = state["model.0.weight"].shape[0]
        ngf, channels = state["model.15.weight"].shape[:2]
        generator = Generator(nz, ngf, channels)
        load_strictly(generator, state, path, self.name)
        return from_latent(
            generator,
            latent=nz,
            image=(channels, IMAGE_SIZE, IMAGE_SIZE),
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        return random_weights(Generator(200, 45, 1) if published else Generator(16, 2, 1))
