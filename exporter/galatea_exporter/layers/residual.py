"""The residual network that CycleGAN and pix2pixHD translate pictures with.

Johnson et al. 2016 (arXiv:1603.08155), taken over by CycleGAN (arXiv:1703.10593) and pix2pixHD
(arXiv:1711.11585): a stem, downsamplings, residual blocks, upsamplings and a head, numbered through
in one ``nn.Sequential``. Written from the description of the networks and from the names and
shapes in their checkpoints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from galatea_exporter.checkpoint import State, load_strictly
from galatea_exporter.layers.translation import (
    Norm,
    TranslatorOptions,
    translator,
    without_statistics,
)
from galatea_exporter.stages import StagedGenerator

CONVOLUTION = re.compile(r"model\.(\d+)(?:\.conv_block\.(\d+))?\.weight")
PLAIN = Norm("instance", bias=True)


def stem(inputs: int, width: int, norm: Norm) -> list[nn.Module]:
    """[N, inputs, H, W] → [N, width, H, W]."""
    first = nn.Conv2d(inputs, width, 7, bias=norm.bias)
    return [nn.ReflectionPad2d(3), *norm.after(first), nn.ReLU()]


def down(width: int, norm: Norm) -> list[nn.Module]:
    """[N, width, H, W] → [N, 2·width, H/2, W/2]."""
    halving = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=norm.bias)
    return [*norm.after(halving), nn.ReLU()]


def up(width: int, norm: Norm) -> list[nn.Module]:
    """[N, 2·width, H/2, W/2] → [N, width, H, W]."""
    doubling = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1, bias=norm.bias)
    return [*norm.after(doubling), nn.ReLU()]


def head(width: int, outputs: int) -> list[nn.Module]:
    """[N, width, H, W] → [N, outputs, H, W] in [-1, 1]."""
    return [nn.ReflectionPad2d(3), nn.Conv2d(width, outputs, 7), nn.Tanh()]


class ResidualBlock(nn.Module):
    """[N, width, H, W] → the same: what comes in, and two convolutions of it added.

    Its sides must be longer than 1 for the reflected border and the instance norm.
    """

    def __init__(self, width: int, norm: Norm, *, dropout: bool = False) -> None:
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, bias=norm.bias) for _ in range(2))
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            *norm.after(first),
            nn.ReLU(),
            *([nn.Dropout()] if dropout else []),
            nn.ReflectionPad2d(1),
            *norm.after(second),
        )

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, width, H, W] → the same."""
        changed: Tensor = self.conv_block(x)
        return x + changed


@dataclass(frozen=True)
class Layout:
    """A residual network as its checkpoint shows it.

    Attributes:
        inputs: channels of the picture.
        outputs: channels of the picture that is made; 0 for a network without a head.
        width: channels behind the stem; each downsampling doubles them.
        downs: downsamplings, and as many upsamplings.
        blocks: residual blocks between them.
        norm: of all convolutions but the head's.
        dropout: whether the blocks have one, which moves their second convolution.
    """

    inputs: int
    outputs: int
    width: int
    downs: int
    blocks: int
    norm: Norm = PLAIN
    dropout: bool = False

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this, and at least two."""
        return 1 << self.downs

    def layers(self) -> list[nn.Module]:
        """[N, inputs, H, W] → [N, outputs, H, W], or [N, width, H, W] without a head."""
        widths = [self.width * 2**k for k in range(self.downs + 1)]
        blocks = [
            ResidualBlock(widths[-1], self.norm, dropout=self.dropout) for _ in range(self.blocks)
        ]
        return [
            *stem(self.inputs, self.width, self.norm),
            *(layer for width in widths[:-1] for layer in down(width, self.norm)),
            *blocks,
            *(layer for width in widths[-2::-1] for layer in up(width, self.norm)),
            *(head(self.width, self.outputs) if self.outputs else ()),
        ]


class ResidualTranslator(nn.Module):
    """The layers of a layout in a row."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.model = nn.Sequential(*layout.layers())

    def forward(self, source: Tensor) -> Tensor:
        """float32 [N, C, H, W] → float32 [N, C', H, W], in [-1, 1] behind a head."""
        picture: Tensor = self.model(source)
        return picture


def read_layout(state: State) -> Layout | None:
    """The layout that the tensors ``model.*`` are of; None if it is another than this."""
    convolutions: dict[int, tuple[int, ...]] = {}
    blocks: dict[int, set[int]] = {}
    for key, tensor in state.items():
        match = CONVOLUTION.fullmatch(key)
        if match is None or tensor.ndim != 4:
            continue
        if match[2] is None:
            convolutions[int(match[1])] = tuple(tensor.shape)
        else:
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    places = set().union(*blocks.values())
    first, last = convolutions.get(1, ()), convolutions.get(max(convolutions, default=0), ())
    if first[2:] != (7, 7) or not blocks or not places <= {1, 5, 6}:
        return None
    return Layout(
        inputs=first[1],
        outputs=last[0] if last[1:] == (first[0], 7, 7) else 0,
        width=first[0],
        downs=sum(1 < index < min(blocks) for index in convolutions),
        blocks=len(blocks),
        norm=Norm.read(state, "model.1", "model.2"),
        dropout=6 in places,
    )


def is_shared(layout: Layout) -> bool:
    """Whether three families have this very network, under the same names.

    CycleGAN of junyanz, CycleGAN of aitorzip and pix2pixHD's global generator with two
    downsamplings then differ only in the preparation of pictures, which no checkpoint tells: each
    family takes such a network, but for those that :func:`is_aitorzips` tells.
    """
    return layout.downs == 2 and layout.norm == PLAIN and not layout.dropout


def is_aitorzips(layout: Layout) -> bool:
    """Whether a shared network is left to aitorzip's family.

    Width 64 is the only one there, and of the others' networks of that width, only those with 6
    or 9 blocks are published.
    """
    return is_shared(layout) and layout.width == 64 and layout.blocks not in (6, 9)


def residual_translator(
    state: State, options: TranslatorOptions, path: Path, family: str, nominal: tuple[int, int]
) -> StagedGenerator:
    """The translator of a checkpoint that holds one residual network.

    Raises:
        ExportError: a tensor is missing, left over or of the wrong shape.
        InvalidInput: an option does not fit the checkpoint.
    """
    weights, ignored = without_statistics(state)
    layout = read_layout(weights)
    assert layout is not None, "recognised before it is built"
    network = ResidualTranslator(layout)
    load_strictly(network, weights, path, family)
    return translator(
        network,
        options,
        inputs=layout.inputs,
        outputs=layout.outputs,
        multiple=layout.multiple,
        minimum=2 * layout.multiple,
        nominal=nominal,
        ignored=ignored,
    )
