"""The sizes of a guided-diffusion UNet, read from the names and shapes of its state dict.

Upstream's checkpoints are bare state dicts; the flags of the training command are not in them. Most
of them follow from the tensors; the rest is :class:`GuidedOptions`, under upstream's own names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from galatea.errors import ExportError, InvalidInput
from galatea_exporter.checkpoint import State
from galatea_exporter.family import Options

GROUPS = 32  # of all norms; upstream has no flag for it

# Upstream's multipliers of the width at each level where the command gives none, by image size.
USUAL_SIZES = {
    (0.5, 1, 1, 2, 2, 4, 4): 512,
    (1, 1, 2, 2, 4, 4): 256,
    (1, 1, 2, 3, 4): 128,
    (1, 2, 3, 4): 64,
}

Resampling = Literal["conv", "pool", "residual"]


@dataclass(frozen=True)
class GuidedOptions(Options):
    """Adds the flags of the training command that leave no trace in the weights.

    Attributes:
        image_size: height and width in pixels; None takes the size that upstream's multipliers
            of the width belong to.
        num_heads: of each attention.
        num_head_channels: channels of each head, in place of `num_heads`; -1 is not set.
        num_heads_upsample: heads on the way up, where they differ; -1 is as on the way down.
        use_new_attention_order: queries, keys and values are split before the heads.
    """

    image_size: int | None = None
    num_heads: int = 4
    num_head_channels: int = -1
    num_heads_upsample: int = -1
    use_new_attention_order: bool = False


@dataclass(frozen=True)
class Level:
    """One size of the features.

    Attributes:
        width: channels of the features.
        attention: whether attention follows each residual block.
    """

    width: int
    attention: bool


@dataclass(frozen=True)
class Layout:
    """The sizes of a UNet.

    Attributes:
        channels_in, channels_out: of the noisy image and of the prediction.
        width: of the embedded timestep, which is four times as wide behind its first layer.
        levels: from the image's size down; each halves height and width.
        blocks: residual blocks at each level on the way down; one more on the way up.
        classes: number of labels; 0 for an unconditional network.
        film: the timestep scales and shifts the features ("scale-shift norm"); otherwise it is
            added to them.
        resampling: what halves and doubles: a convolution, mean and repetition, or these within a
            residual block.
    """

    channels_in: int
    channels_out: int
    width: int
    levels: tuple[Level, ...]
    blocks: int
    classes: int = 0
    film: bool = True
    resampling: Resampling = "conv"

    @classmethod
    def read(cls, state: State, path: Path) -> Layout:
        """What names and shapes tell.

        Args:
            path: names the checkpoint in errors.

        Raises:
            ExportError: a tensor that tells a size is not there.
        """

        def size(key: str, axis: int) -> int:
            if key not in state or state[key].ndim <= axis:
                raise ExportError(
                    f"{path}: {key} is missing or has too few axes",
                    "name the right family: galatea families",
                )
            return state[key].shape[axis]

        resampling, halving = _resampling(state)
        levels: list[list[Level]] = [[]]
        for k in range(1, _input_blocks(state)):
            if k in halving:
                levels.append([])
            else:
                width = size(f"input_blocks.{k}.0.in_layers.2.weight", 0)
                levels[-1].append(Level(width, f"input_blocks.{k}.1.qkv.weight" in state))
        if not all(levels):
            raise ExportError(
                f"{path}: a level without residual blocks", "compare its size and checksum"
            )
        told = size("input_blocks.1.0.emb_layers.1.weight", 0)
        return cls(
            channels_in=size("input_blocks.0.0.weight", 1),
            channels_out=size("out.2.weight", 0),
            width=size("time_embed.0.weight", 1),
            levels=tuple(level[0] for level in levels),
            blocks=max(len(level) for level in levels),
            classes=size("label_emb.weight", 0) if "label_emb.weight" in state else 0,
            film=told == 2 * levels[0][0].width,
            resampling=resampling,
        )

    @property
    def factor(self) -> int:
        """Height and width are multiples of this."""
        return 1 << (len(self.levels) - 1)

    @property
    def learned_sigma(self) -> bool:
        """Whether the second half of the prediction is the variance."""
        return self.channels_out == 2 * self.channels_in

    def size(self, options: GuidedOptions) -> int:
        """Height and width of the images, in pixels.

        Raises:
            InvalidInput: neither the option nor the multipliers tell it, or it does not fit.
        """
        multipliers = tuple(level.width / self.width for level in self.levels)
        size = USUAL_SIZES.get(multipliers) if options.image_size is None else options.image_size
        if size is None:
            raise InvalidInput(
                "the checkpoint does not tell the size of its images",
                "set image_size to the --image_size of the training",
            )
        if size < self.factor or size % self.factor:
            raise InvalidInput(
                f"image_size {size} does not fit a network with {len(self.levels)} levels",
                f"set it to a multiple of {self.factor}",
            )
        return size

    def check(self, options: GuidedOptions, path: Path) -> None:
        """Whether a network can be made of these sizes.

        Raises:
            ExportError: the norms do not divide a width: the checkpoint is of another network.
            InvalidInput: the heads do not divide the width of an attention.
        """
        for width in (level.width for level in self.levels):
            if width % GROUPS:
                raise ExportError(
                    f"{path}: {width} channels are no multiple of the {GROUPS} groups of a norm",
                    "this is not a network of guided-diffusion: galatea families",
                )
        wanted = [options.num_heads, options.num_heads_upsample]
        name, given = "num_heads", [heads for heads in wanted if heads != -1]
        if options.num_head_channels != -1:
            name, given = "num_head_channels", [options.num_head_channels]
        attended = {level.width for level in self.levels if level.attention}
        for width in sorted({*attended, self.levels[-1].width}):  # the middle always has attention
            for number in given:
                if number < 1 or width % number:
                    raise InvalidInput(
                        f"{name} {number} does not divide the {width} channels of an attention",
                        f"set {name} to the --{name} of the training",
                    )


def _input_blocks(state: State) -> int:
    """How many blocks there are on the way down, with those that have no weights."""
    found = _numbers(state, "input_blocks.")
    # At most every second block is without weights: a name with a huge number is left over.
    return min(max(found, default=0) + 1, 2 * len(found))


def _resampling(state: State) -> tuple[Resampling, set[int]]:
    """What halves the features, and at which blocks on the way down."""
    count = _input_blocks(state)
    convolutions = {k for k in range(count) if f"input_blocks.{k}.0.op.weight" in state}
    if convolutions:
        return "conv", convolutions
    found = _numbers(state, "input_blocks.")
    if len(found) < count:
        return "pool", set(range(count)) - found
    # A residual block that halves has the names and shapes of one that does not. On the way up the
    # one that doubles stands out: it is the second of its block. All levels have as many blocks.
    doubling = [
        k
        for k in range(count)
        if any(f"output_blocks.{k}.{i}.in_layers.2.weight" in state for i in (1, 2))
    ]
    if doubling:
        step = doubling[0] + 1
        return "residual", set(range(step, count, step))
    return "conv", set()


def _numbers(state: State, prefix: str) -> set[int]:
    """The numbers that follow a prefix in names."""
    rest = (key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix))
    return {int(number) for number in rest if number.isascii() and number.isdigit()}
