"""FastGAN with four channels: an image and its segmentation mask from one latent.

Architecture: Liu et al. 2021 (arXiv:2101.04775) in the layout of vlbthambawita/singan-seg-polyp
(``FastGAN-4ch``). Written from the description of the network and from the names and shapes in its
checkpoints. Upstream's script enlarges the result to 512 × 512 with nearest neighbours; here the
image has the size at which the network makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import remove_spectral_norm, spectral_norm

from galatea.errors import ExportError
from galatea_exporter.assembly import from_latent
from galatea_exporter.checkpoint import Checkpoint, State, load_strictly
from galatea_exporter.family import Family, Options, random_weights, register
from galatea_exporter.stages import StagedGenerator

# Channels at each size in pixels, as multiples of ngf.
MULTIPLIERS = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5, 512: 0.25, 1024: 0.125}
NOISY = (8, 32, 128, 512)  # these have two convolutions, with noise injected after each
GATED = (64, 128, 256, 512)  # these are scaled channel by channel by what was made at size / 16
IMAGE_SIZES = (256, 512, 1024)
BUFFERS = ("weight_u", "weight_v", "running_mean", "running_var", "num_batches_tracked")


class Generator(nn.Module):
    """Doublings from 4 × 4 pixels with gated linear units and skip-layer excitation.

    Args:
        ngf: width; at 128 × 128 pixels there are ``ngf`` channels.
        nz: length of the latent vector.
        nc: channels of the image.
        im_size: 256, 512 or 1024; the last one ends in tanh, the others are not bounded.
    """

    def __init__(self, ngf: int, nz: int, nc: int, im_size: int) -> None:
        super().__init__()
        width = {size: max(1, int(factor * ngf)) for size, factor in MULTIPLIERS.items()}
        self.sizes = [size for size in MULTIPLIERS if 4 < size <= im_size]
        self.noise = [size**2 for size in self.sizes if size in NOISY for _ in range(2)]
        first = spectral_norm(nn.ConvTranspose2d(nz, 2 * width[4], 4, bias=False))
        norm = nn.BatchNorm2d(2 * width[4])
        self.init = nn.ModuleDict({"init": nn.Sequential(first, norm, nn.GLU(1))})
        for size in self.sizes:
            double = Doubling(width[size // 2], width[size], noisy=size in NOISY)
            self.add_module(f"feat_{size}", double)
            if size in GATED:
                self.add_module(f"se_{size}", Excitation(width[size // 16], width[size]))
        self.to_big = convolution(width[im_size], nc, 3, padding=1)
        self.last = nn.Tanh() if im_size == 1024 else nn.Identity()

    def forward(self, latent: Tensor, noise: Tensor | None = None) -> Tensor:
        """latent float32 [N, nz], noise float32 [N, sum(self.noise)] → float32 [N, nc, H, W]."""
        draws = None if noise is None else iter(torch.split(noise, self.noise, dim=1))
        made = {4: self.init["init"](latent[:, :, None, None])}
        for size in self.sizes:
            features = self.get_submodule(f"feat_{size}")(made[size // 2], draws)
            if size in GATED:
                features = features * self.get_submodule(f"se_{size}")(made[size // 16])
            made[size] = features
        image: Tensor = self.last(self.to_big(made[self.sizes[-1]]))
        return image


class Doubling(nn.ModuleList):
    """Twice the height and width, then one convolution, or two with injected noise."""

    def __init__(self, c_in: int, c_out: int, *, noisy: bool) -> None:
        layers: list[nn.Module] = [nn.Upsample(scale_factor=2, mode="nearest")]
        for c in (c_in, c_out) if noisy else (c_in,):
            layers.append(convolution(c, 2 * c_out, 3, padding=1))
            layers += [NoiseInjection()] if noisy else []
            layers += [nn.BatchNorm2d(2 * c_out), nn.GLU(1)]
        super().__init__(layers)

    def forward(self, features: Tensor, draws: Iterator[Tensor] | None) -> Tensor:
        for layer in self:
            if not isinstance(layer, NoiseInjection):
                features = layer(features)
            elif draws is not None:
                features = layer(features, next(draws))
        return features


class NoiseInjection(nn.Module):
    """Adds noise float32 [N, H * W] to every channel, with one learnt weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor, noise: Tensor) -> Tensor:
        return features + self.weight * noise.reshape(-1, 1, *features.shape[2:])


class Excitation(nn.Module):
    """Features of a small size → a factor in 0 … 1 for each channel of a large one."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        reduce, mix = convolution(c_in, c_out, 4), convolution(c_out, c_out, 1)
        self.main = nn.Sequential(nn.AdaptiveAvgPool2d(4), reduce, nn.SiLU(), mix, nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        factors: Tensor = self.main(features)
        return factors


def convolution(c_in: int, c_out: int, kernel: int, padding: int = 0) -> nn.Module:
    """A convolution without bias under spectral normalisation."""
    return spectral_norm(nn.Conv2d(c_in, c_out, kernel, padding=padding, bias=False))


@dataclass(frozen=True)
class FastGANOptions(Options):
    """Adds which of a checkpoint's weights are served, and the noise inside the network.

    Attributes:
        weights: "g", as upstream's script, or their moving average "g_ema", where there is one.
        noise_mode: "random" injects noise drawn by the seed, as upstream; "none" injects nothing.
    """

    weights: Literal["g", "g_ema"] = "g"
    noise_mode: Literal["random", "none"] = "random"


@register
class FastGAN(Family):
    """Sizes are read from the checkpoint's names and shapes.

    With a mask in the last of four channels, the catalogue's options set ``mask_channel`` to 3;
    upstream's threshold of 0.5 after scaling to [0, 1] is 0 in the network's own units.
    """

    name = "fastgan"
    title = "FastGAN of images with segmentation masks"
    source = "arXiv:2101.04775; vlbthambawita/singan-seg-polyp FastGAN-4ch"
    containers = ("g",)
    options = FastGANOptions

    def recognises(self, state: State) -> bool:
        first, last = state.get("init.init.0.weight_orig"), state.get("to_big.weight_orig")
        return first is not None and last is not None and first.ndim == 4 and last.ndim == 4

    def state(
        self, checkpoint: Checkpoint, options: FastGANOptions
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Upstream saves the moving average as a list, in the order of g's parameters."""
        state, beside = super().state(checkpoint, options)
        if options.weights == "g":
            return state, beside
        content = checkpoint.content
        average = content.get("g_ema") if isinstance(content, Mapping) else None
        names = [key for key in state if key.rpartition(".")[2] not in BUFFERS]
        shapes = [state[key].shape for key in names]
        if not isinstance(average, list) or [getattr(t, "shape", 0) for t in average] != shapes:
            raise ExportError(
                f"{checkpoint.path}: no list g_ema that fits the {len(names)} parameters of g",
                "set weights to g",
            )
        averaged = dict(zip(names, average, strict=True))
        return {**state, **averaged}, tuple(key for key in beside if key != "g_ema")

    def build(self, state: State, options: FastGANOptions, path: Path) -> StagedGenerator:
        nz, doubled = state["init.init.0.weight_orig"].shape[:2]
        nc = state["to_big.weight_orig"].shape[0]
        present = {key.partition(".")[0] for key in state}
        im_size = max(size for size in IMAGE_SIZES if size == 256 or f"feat_{size}" in present)
        generator = Generator(int(doubled / MULTIPLIERS[4] / 2), nz, nc, im_size)
        small = [key for key in state if key.startswith("to_128.")]
        used = {key: value for key, value in state.items() if key not in small}
        load_strictly(generator, used, path, self.name)
        for module in generator.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                remove_spectral_norm(module)
        return from_latent(
            generator,
            latent=nz,
            image=(nc, im_size, im_size),
            channels=options.channel_names(nc),
            pixels=options.pixels(nc),
            noise=sum(generator.noise) if options.noise_mode == "random" else 0,
            ignored=tuple(f"{key}: makes the image of 128 × 128 for training" for key in small),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        ngf, nz, nc = (64, 256, 4) if published else (8, 16, 3)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            generator = Generator(ngf, nz, nc, 256)
            generator.load_state_dict(random_weights(generator))
            for module in generator.modules():
                if isinstance(module, NoiseInjection):
                    module.weight.fill_(0.02)
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 1.0
            # A few passes in training mode make all norms fit the weights.
            for _ in range(3):
                generator(torch.randn(4, nz), torch.randn(4, sum(generator.noise)))
        return dict(generator.state_dict())
