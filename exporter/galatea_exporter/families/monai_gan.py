"""MONAI's GAN generator (hands of MedNIST, 64 × 64).

Architecture: a linear layer, then transposed convolutions, each with a residual unit behind it, in
the layout of ``monai.networks.nets.Generator`` (Project-MONAI/MONAI) and of the bundle
``mednist_gan`` in its model zoo. Written from the description of the network and from the names and
shapes in its checkpoints. The bundle trains with normal latents and samples with uniform ones from
0 to 1; here they are normal.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import isqrt, prod
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from galatea.errors import ExportError, InvalidInput
from galatea_exporter.assembly import from_latent
from galatea_exporter.checkpoint import State, load_strictly
from galatea_exporter.family import Family, Options, random_weights, register
from galatea_exporter.stages import StagedGenerator, TensorSpec

NORMS = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d}


@dataclass(frozen=True)
class Layout:
    """The sizes of a generator.

    Attributes:
        latent: length of the latent vector.
        start: channels, height and width that the linear layer makes.
        channels: what each transposed convolution makes; the last are those of the image.
        strides: factor by which each of them enlarges height and width.
        kernel: of all convolutions, an odd number.
        units: convolutions in each residual unit; 0 for no residual units.
        norm: "instance" has no parameters, "batch" has.
        bias: whether the convolutions have biases.
    """

    latent: int
    start: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    kernel: int = 3
    units: int = 2
    norm: str = "instance"
    bias: bool = True


class Generator(nn.Module):
    """From a latent vector to logits; the last layer has neither norm nor activation."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.start = layout.start
        self.linear = nn.Linear(layout.latent, prod(layout.start))
        self.conv = nn.Sequential()
        c_in, last = layout.start[0], len(layout.channels) - 1
        for k, (c_out, stride) in enumerate(zip(layout.channels, layout.strides, strict=True)):
            up = nn.ConvTranspose2d(
                c_in, c_out, layout.kernel, stride, layout.kernel // 2, stride - 1,
                bias=layout.bias,
            )  # fmt: skip
            norm = None if k == last else layout.norm
            layer = unit(up, None if layout.units else norm)
            if layout.units:
                layer = nn.Sequential(layer, Residual(c_out, layout, norm))
            self.conv.add_module(f"layer_{k}", layer)
            c_in = c_out

    def forward(self, latent: Tensor) -> Tensor:
        """latent float32 [N, latent] → float32 [N, C, H, W], not bounded."""
        logits: Tensor = self.conv(self.linear(latent).unflatten(1, self.start))
        return logits


class Residual(nn.Module):
    """Convolutions of one width, whose result is added to what they got.

    Args:
        norm: of the last of them, which without one is bare.
    """

    def __init__(self, width: int, layout: Layout, norm: str | None) -> None:
        super().__init__()
        self.conv = nn.Sequential()
        for k in range(layout.units):
            conv = nn.Conv2d(width, width, layout.kernel, padding="same", bias=layout.bias)
            bare = norm is None and k == layout.units - 1
            self.conv.add_module(f"unit{k}", unit(conv, None if bare else layout.norm))

    def forward(self, features: Tensor) -> Tensor:
        made: Tensor = features + self.conv(features)
        return made


def unit(conv: nn.Conv2d | nn.ConvTranspose2d, norm: str | None) -> nn.Sequential:
    """A convolution, followed by norm and PReLU unless `norm` is None."""
    layers = nn.Sequential(OrderedDict(conv=conv))
    if norm is not None:
        adn = OrderedDict(N=NORMS[norm](conv.out_channels), A=nn.PReLU())
        layers.add_module("adn", nn.Sequential(adn))
    return layers


class Activated(nn.Module):
    """A generator whose logits go through a sigmoid; gives both."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.generator(latent)
        return logits.sigmoid(), logits


@dataclass(frozen=True)
class MONAIGANOptions(Options):
    """Adds what the checkpoint's shapes leave open; the bundle's images lie in [0, 1].

    Attributes:
        activation: what the generator's output goes through, in the bundle's script a sigmoid.
        strides: factor by which each layer enlarges the image; by default 2, and 1 for the last.
        start_shape: channels, height and width that the linear layer makes; by default a square.
    """

    low: float = 0.0
    activation: Literal["sigmoid", "none"] = "sigmoid"
    strides: tuple[int, ...] = ()
    start_shape: tuple[int, ...] = ()


@register
class MONAIGAN(Family):
    """Sizes, residual units and norm are read from the checkpoint's names and shapes."""

    name = "monai_gan"
    title = "MONAI's GAN generator"
    source = "Project-MONAI/MONAI monai.networks.nets.Generator; model-zoo mednist_gan"
    containers = ("model",)
    options = MONAIGANOptions

    def recognises(self, state: State) -> bool:
        linear, first = state.get("linear.weight"), _upsampling(state, 0)
        return linear is not None and linear.ndim == 2 and first is not None

    def build(self, state: State, options: MONAIGANOptions, path: Path) -> StagedGenerator:
        layout = _layout(state, options, path)
        generator = Generator(layout)
        load_strictly(generator, state, path, self.name)
        channels, scale = layout.channels[-1], prod(layout.strides)
        image = (channels, layout.start[1] * scale, layout.start[2] * scale)
        activated = options.activation == "sigmoid"
        return from_latent(
            Activated(generator) if activated else generator,
            latent=layout.latent,
            image=image,
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
            probes=(TensorSpec("logits", "float32", image),) if activated else (),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        widths = (64, 32, 16, 8, 1) if published else (8, 4, 4, 1)
        size, strides = (8, (2, 2, 2, 1)) if published else (4, (2, 2, 1))
        layout = Layout(64, (widths[0], size, size), widths[1:], strides)
        state = random_weights(Generator(layout))
        # Nothing norms what is added up from layer to layer, and saturated images are all alike.
        state[f"conv.layer_{len(strides) - 1}.0.conv.weight"] *= 0.05
        return state


def _upsampling(state: State, layer: int) -> Tensor | None:
    """Weight [c_in, c_out, kernel, kernel] of a layer's transposed convolution."""
    names = (f"conv.layer_{layer}.{part}conv.weight" for part in ("0.", ""))
    weight = next((state[name] for name in names if name in state), None)
    return weight if weight is not None and weight.ndim == 4 else None


def _layout(state: State, options: MONAIGANOptions, path: Path) -> Layout:
    """What the names and shapes tell, completed by the options.

    Raises:
        ExportError: a layer is missing.
        InvalidInput: the options do not fit.
    """
    depth = len({key.split(".")[1] for key in state if key.startswith("conv.layer_")})
    layers = [weight for k in range(depth) if (weight := _upsampling(state, k)) is not None]
    if len(layers) < depth:
        raise ExportError(
            f"{path}: {depth - len(layers)} of {depth} layers have no 2-D transposed convolution",
            "the checkpoint may be truncated, or of a 3-D generator, which is not supported",
        )
    rows, latent = state["linear.weight"].shape
    width = layers[0].shape[0]
    side = isqrt(rows // width)
    start = options.start_shape or (width, side, side)
    if len(start) != 3 or start[0] != width or prod(start) != rows:
        raise InvalidInput(
            f"start_shape {start} does not fit {rows} values in {width} channels",
            f"set start_shape to {width},height,width",
        )
    strides = options.strides or (*[2] * (depth - 1), 1)
    if len(strides) != depth or min(strides) < 1:
        raise InvalidInput(
            f"strides {strides} do not fit {depth} layers", f"set strides to {depth} numbers"
        )
    units = {key.split(".")[4] for key in state if key.startswith("conv.layer_0.1.conv.unit")}
    return Layout(
        latent,
        start,
        tuple(weight.shape[1] for weight in layers),
        strides,
        kernel=layers[0].shape[2],
        units=len(units),
        norm="batch" if any(key.endswith("adn.N.weight") for key in state) else "instance",
        bias=any(key.startswith("conv.") and key.endswith("conv.bias") for key in state),
    )
