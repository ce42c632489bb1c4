"""What the families share that translate pictures: options, norms, assembly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from galatea.card import Preparation
from galatea.errors import InvalidInput
from galatea_exporter.assembly import from_source
from galatea_exporter.checkpoint import State
from galatea_exporter.family import Options
from galatea_exporter.layers.instance_norm import InstanceNorm
from galatea_exporter.stages import Axis, StagedGenerator

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
BATCH_PIXELS = 2**22  # of the largest batch; 64 float32 channels of them take 1 GiB
LARGEST_BATCH = 16


@dataclass(frozen=True)
class TranslatorOptions(Options):
    """Adds the way of a picture to the network.

    Attributes:
        size: (height, width) that a picture is resized to; empty keeps its own.
        fit: "stretch" to exactly that size, or "inside" it, keeping the aspect ratio.
        resample: the filter of the resizing.
        scale: "levels" takes 8-bit levels; "minmax" and "minmax-after" spread each picture over
            the whole range, before or after the resizing.
        source_low, source_high: what the network takes for the darkest and the brightest value.
        source_channels: what each channel of the picture means.
    """

    size: tuple[int, ...] = ()
    fit: Literal["stretch", "inside"] = "stretch"
    resample: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    scale: Literal["levels", "minmax", "minmax-after"] = "levels"
    source_low: float = -1.0
    source_high: float = 1.0
    source_channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Norm:
    """What follows the convolutions of a network, and whether these have biases.

    An instance norm has no parameters of its own.
    """

    kind: Literal["batch", "instance", "none"] = "instance"
    bias: bool = True

    @classmethod
    def read(cls, state: State, convolution: str, norm: str) -> Norm:
        """The norm named `norm` behind `convolution`: only a batch norm has weights.

        Without it the biases decide: upstream's convolutions have them before instance norms only.
        """
        bias = f"{convolution}.bias" in state
        if f"{norm}.weight" in state:
            return cls("batch", bias)
        return cls("instance" if bias else "none", bias)

    def after(self, convolution: nn.Conv2d | nn.ConvTranspose2d) -> Iterator[nn.Module]:
        """The convolution and its norm."""
        yield convolution
        if self.kind == "batch":
            yield nn.BatchNorm2d(convolution.out_channels)
        else:
            yield InstanceNorm() if self.kind == "instance" else nn.Identity()


def without_statistics(state: State) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Drops the running statistics of instance norms, and says so.

    Checkpoints of PyTorch before 0.4 have them. Upstream's loaders drop them too and normalise
    each picture by its own statistics.
    """
    stray = [
        key
        for key in state
        if key.rpartition(".")[2] in STATISTICS and f"{key.rpartition('.')[0]}.weight" not in state
    ]
    kept = {key: tensor for key, tensor in state.items() if key not in stray}
    return kept, tuple(f"{key}: an instance norm takes the picture's own" for key in stray)


def fold(network: nn.Module) -> None:
    """Joins each norm to the convolution before it, as far as it goes; changes `network`.

    A batch norm in eval mode is linear and goes into the weights; an instance norm subtracts the
    bias before it again.
    """
    for layers in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for index in range(1, len(layers)):
            before, norm = layers[index - 1], layers[index]
            if not isinstance(before, nn.Conv2d | nn.ConvTranspose2d):
                continue
            if isinstance(norm, nn.BatchNorm2d):
                transposed = isinstance(before, nn.ConvTranspose2d)
                layers[index - 1] = fuse_conv_bn_eval(before, norm, transpose=transposed)
                layers[index] = nn.Identity()
            elif isinstance(norm, InstanceNorm):
                before.bias = None


def translator(
    network: nn.Module,
    options: TranslatorOptions,
    *,
    inputs: int,
    outputs: int,
    multiple: int,
    minimum: int,
    nominal: tuple[int, int],
    ignored: tuple[str, ...] = (),
) -> StagedGenerator:
    """A fully convolutional network as a translator; its norms are folded.

    Args:
        network: float32 [N, inputs, H, W] → float32 [N, outputs, H, W].
        multiple: of height and width.
        minimum: of height and width.
        nominal: height and width where the options name no size.
        ignored: see :class:`StagedGenerator`.

    Raises:
        InvalidInput: an option does not fit the network.
    """
    if len(options.size) not in (0, 2) or any(side < minimum for side in options.size):
        raise InvalidInput(
            f"size {','.join(map(str, options.size))} does not fit this network",
            f"give height,width of at least {minimum} pixels, or nothing to keep a picture's own",
        )
    if not options.source_low < options.source_high:
        raise InvalidInput(
            f"the source's range [{options.source_low}, {options.source_high}] is empty",
            "set source_low below source_high",
        )
    if options.source_channels and len(options.source_channels) != inputs:
        raise InvalidInput(
            f"{len(options.source_channels)} source_channels for a network that takes {inputs}",
            "set source_channels to one name each, separated by commas",
        )
    fold(network)
    height, width = (side // multiple * multiple for side in options.size or nominal)
    generator = from_source(
        network,
        source=Options(channels=options.source_channels).channel_names(inputs),
        size=(
            Axis("height", multiple, minimum, height),
            Axis("width", multiple, minimum, width),
        ),
        span=(options.source_low, options.source_high),
        preparation=Preparation(options.scale, options.size, options.fit, options.resample),
        channels=options.channel_names(outputs),
        pixels=options.pixels(outputs),
        ignored=ignored,
    )
    largest = min(LARGEST_BATCH, max(1, BATCH_PIXELS // (height * width)))
    return replace(generator, max_batch=largest)
