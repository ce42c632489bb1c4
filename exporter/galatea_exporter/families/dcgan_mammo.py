"""DCGAN and WGAN-GP of the mammo_gans layout (patches of digital mammograms).

Architecture: Radford et al. 2015 (arXiv:1511.06434), WGAN-GP by Gulrajani et al. 2017
(arXiv:1704.00028), in the layout of the repositories zuzaanto/mammo_gans_iwbi2022 and
RichardObi/mammo_dp, which several medigan models use. Written from the description of the
network and from the names and shapes in its checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from galatea.card import Input
from galatea.errors import ExportError, InvalidInput
from galatea_exporter.assembly import from_latent
from galatea_exporter.checkpoint import State, listed, load_strictly
from galatea_exporter.family import Family, Options, random_weights, register
from galatea_exporter.layers.instance_norm import InstanceNorm
from galatea_exporter.stages import StagedGenerator

IMAGE_SIZE = {5: 64, 6: 128, 7: 224}  # by the number of transposed convolutions


class Generator(nn.Module):
    """Transposed convolutions from a latent vector to an image in [-1, 1].

    Args:
        nz: length of the latent vector.
        ngf: width; the last hidden stage has ``ngf`` channels.
        channels: channels of the image.
        image_size: 64, 128 or 224 (224 = two unstrided stages, 1 → 4 → 7, then five doublings).
        embedding: maps a label int64 [N, 1] or a continuous condition float32 [N, 1] to [N, nz],
            which is concatenated to the latent; None for an unconditional generator.
        instance_norm: InstanceNorm without parameters in place of BatchNorm2d.
        bias: biases in the convolutions (some WGAN-GP checkpoints).
    """

    def __init__(
        self,
        nz: int,
        ngf: int,
        channels: int,
        image_size: int,
        *,
        embedding: nn.Module | None = None,
        instance_norm: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        # (kernel 4) stride and padding of each stage; the first always turns 1x1 into 4x4.
        unstrided, doubling = (1, 0), (2, 1)
        steps = {
            64: [unstrided, *[doubling] * 4],
            128: [unstrided, *[doubling] * 5],
            224: [unstrided, unstrided, *[doubling] * 5],
        }[image_size]
        widths = [ngf * 2**k for k in reversed(range(len(steps) - 1))]
        inputs = [nz * (2 if embedding is not None else 1), *widths]
        layers: list[nn.Module] = []
        for (stride, padding), c_in, c_out in zip(steps, inputs, [*widths, channels], strict=True):
            layers.append(nn.ConvTranspose2d(c_in, c_out, 4, stride, padding, bias=bias))
            layers += [InstanceNorm() if instance_norm else nn.BatchNorm2d(c_out), nn.ReLU()]
        self.main = nn.Sequential(*layers[:-2], nn.Tanh())
        self.embed_nn = embedding

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """latent float32 [N, nz], condition [N, 1] → image float32 [N, C, H, W]."""
        if self.embed_nn is not None:
            assert condition is not None
            if not condition.is_floating_point():
                condition = condition.flatten()
            latent = torch.cat([latent, self.embed_nn(condition)], dim=1)
        image: Tensor = self.main(latent[:, :, None, None])
        return image


def categorical_embedding(classes: int, width: int, nz: int, leakiness: float) -> nn.Sequential:
    """Label int64 [N] → float32 [N, nz]."""
    return nn.Sequential(
        nn.Embedding(classes, width), nn.Linear(width, nz), nn.LeakyReLU(leakiness)
    )


def continuous_embedding(nz: int, leakiness: float, *, batch_norm: bool) -> nn.Sequential:
    """Condition float32 [N, 1] → float32 [N, nz]; the 2021 layout has a BatchNorm1d."""
    layers: list[nn.Module] = [nn.Linear(1, nz)]
    if batch_norm:
        layers.append(nn.BatchNorm1d(nz))
    return nn.Sequential(*layers, nn.LeakyReLU(leakiness))


def upstream_state(generator: Generator) -> dict[str, Tensor]:
    """The state dict as upstream saves it: ``first_layers.*`` repeats the first two stages."""
    state = dict(generator.state_dict())
    aliases = {
        "first_layers" + key.removeprefix("main"): tensor
        for key, tensor in state.items()
        if key.startswith("main.") and int(key.split(".")[1]) < 6
    }
    return {**aliases, **state}


@dataclass(frozen=True)
class MammoOptions(Options):
    """Adds what the checkpoint's shapes leave open.

    Attributes:
        leakiness: negative slope of the embedding's LeakyReLU.
    """

    leakiness: float = 0.1


@register
class DCGANMammo(Family):
    """Sizes and layers are read from the checkpoint.

    Condition and normalisation differ between checkpoints of one code base, so they are decided by
    the tensors that are present: without ``main.1.weight`` the norm is InstanceNorm, an
    ``embed_nn`` that the first convolution has no room for is unused.
    """

    name = "dcgan_mammo"
    title = "DCGAN, conditional DCGAN and WGAN-GP of mammographic patches"
    source = "arXiv:1511.06434, arXiv:1704.00028; zuzaanto/mammo_gans_iwbi2022, RichardObi/mammo_dp"
    aliases = ("dcgan", "cdcgan", "wgangp")
    containers = ("generator", "generator_state_dict")
    options = MammoOptions

    def recognises(self, state: State) -> bool:
        return "main.0.weight" in state and state["main.0.weight"].ndim == 4

    def build(self, state: State, options: MammoOptions, path: Path) -> StagedGenerator:
        weights, ignored = _without_aliases(state, path)
        convolutions = [key for key, value in weights.items() if _is_convolution(key, value)]
        if len(convolutions) not in IMAGE_SIZE:
            raise ExportError(
                f"{path}: {len(convolutions)} convolutions; this family has "
                f"{', '.join(map(str, IMAGE_SIZE))}",
                "the checkpoint may be truncated; see: galatea families",
            )
        image_size = IMAGE_SIZE[len(convolutions)]
        ngf, channels = weights[convolutions[-1]].shape[:2]
        room = weights["main.0.weight"].shape[0]
        embedding, condition, nz = _embedding(weights, options)
        if embedding is not None and room == nz:  # upstream keeps it even when unconditional
            ignored += [f"{key}: unconditional" for key in weights if key.startswith("embed_nn.")]
            weights = {k: v for k, v in weights.items() if not k.startswith("embed_nn.")}
            embedding = condition = None
        nz = nz if condition is not None else room
        generator = Generator(
            nz, ngf, channels, image_size,
            embedding=embedding,
            instance_norm="main.1.weight" not in weights,
            bias="main.0.bias" in weights,
        )  # fmt: skip
        load_strictly(generator, weights, path, self.name)
        return from_latent(
            generator,
            latent=nz,
            image=(channels, image_size, image_size),
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
            conditions=(condition,) if condition is not None else (),
            ignored=tuple(ignored),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        nz, ngf, channels, size = (100, 64, 1, 128) if published else (16, 4, 2, 64)
        embedding = categorical_embedding(2, 50, nz, 0.1)
        generator = Generator(nz, ngf, channels, size, embedding=embedding)
        generator.load_state_dict(random_weights(generator))
        return upstream_state(generator)


def _is_convolution(key: str, value: Tensor) -> bool:
    return key.startswith("main.") and value.ndim == 4


def _without_aliases(state: State, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Drops ``first_layers.*``, which must repeat ``main.*``."""
    aliases = [key for key in state if key.startswith("first_layers.")]
    differing = [
        key
        for key in aliases
        if not _same(state[key], state.get("main" + key.removeprefix("first_layers")))
    ]
    if differing:
        raise ExportError(
            f"{path}: {listed(differing)} should repeat the first layers of main, but differ",
            "the file is damaged or of another architecture; download it again",
        )
    weights = {key: value for key, value in state.items() if key not in aliases}
    return weights, [f"{key}: repeats main" for key in aliases]


def _same(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and torch.equal(one, other)


def _embedding(weights: State, options: MammoOptions) -> tuple[nn.Module | None, Input | None, int]:
    """The embedding whose tensors are present, the input that feeds it, and nz."""
    first = weights.get("embed_nn.0.weight")
    if first is None:
        return None, None, 0
    linear = weights.get("embed_nn.1.weight")
    if linear is not None and linear.ndim == 2:
        classes, width = first.shape
        labels = options.labels or tuple(f"class {k}" for k in range(classes))
        if len(labels) != classes:
            raise InvalidInput(
                f"{len(labels)} labels for {classes} classes",
                f"give {classes} names, separated by commas",
            )
        nz = linear.shape[0]
        label = Input("label", "INT64", "class of the image", labels)
        return categorical_embedding(classes, width, nz, options.leakiness), label, nz
    nz = first.shape[0]
    condition = Input("condition", "FP32", "continuous condition, in the units of the training")
    embedding = continuous_embedding(
        nz, options.leakiness, batch_norm="embed_nn.1.running_mean" in weights
    )
    return embedding, condition, nz
