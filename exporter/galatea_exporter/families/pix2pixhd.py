"""pix2pixHD: the global generator, alone or with local enhancers.

Architecture: Wang et al. 2018 (arXiv:1711.11585) in the layout of the repository
NVIDIA/pix2pixHD. Written from the description of the networks and from the names and shapes in
their checkpoints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from galatea_exporter.checkpoint import State, load_strictly
from galatea_exporter.family import Family, random_weights, register
from galatea_exporter.layers.residual import (
    Layout,
    ResidualBlock,
    ResidualTranslator,
    down,
    head,
    is_aitorzips,
    read_layout,
    residual_translator,
    stem,
    up,
)
from galatea_exporter.layers.translation import (
    TranslatorOptions,
    translator,
    without_statistics,
)
from galatea_exporter.stages import StagedGenerator

NOMINAL = (512, 512)


@dataclass(frozen=True)
class Enhancers:
    """What a checkpoint shows of its local enhancers.

    Attributes:
        count: each one doubles the resolution and halves the width.
        blocks: residual blocks in each.
        outputs: channels of the picture that is made.
    """

    count: int
    blocks: int
    outputs: int


class EnhancedTranslator(nn.Module):
    """A global generator for a small picture, and local enhancers up to the full one.

    Args:
        trunk: the global generator, without a head; its width is the first enhancer's twice.
        enhancers: facts of the enhancers.
    """

    def __init__(self, trunk: Layout, enhancers: Enhancers) -> None:
        super().__init__()
        self.model = nn.Sequential(*trunk.layers())
        self.shrink = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
        self.count, norm = enhancers.count, trunk.norm
        for number in range(1, self.count + 1):
            width = trunk.width // 2**number
            entry = [*stem(trunk.inputs, width, norm), *down(width, norm)]
            blocks = [ResidualBlock(2 * width, norm) for _ in range(enhancers.blocks)]
            last = head(width, enhancers.outputs) if number == self.count else []
            self.add_module(f"model{number}_1", nn.Sequential(*entry))
            self.add_module(f"model{number}_2", nn.Sequential(*blocks, *up(width, norm), *last))

    def forward(self, source: Tensor) -> Tensor:
        """float32 [N, C, H, W] → float32 [N, C', H, W] in [-1, 1]."""
        pictures = [source]
        for _ in range(self.count):
            pictures.append(self.shrink(pictures[-1]))
        features: Tensor = self.model(pictures.pop())
        for number in range(1, self.count + 1):
            entry = self.get_submodule(f"model{number}_1")(pictures.pop())
            features = self.get_submodule(f"model{number}_2")(entry + features)
        return features


@dataclass(frozen=True)
class HDOptions(TranslatorOptions):
    """The published model takes pictures of 512 × 512 pixels."""

    size: tuple[int, ...] = NOMINAL


@register
class Pix2PixHD(Family):
    """Sizes, norm and enhancers are read from the checkpoint.

    The global generator is CycleGAN's network with more downsamplings, four by default, and with
    biases before batch norms too.
    """

    name = "pix2pixhd"
    title = "pix2pixHD, global generator and local enhancers"
    source = "arXiv:1711.11585; NVIDIA/pix2pixHD"
    options = HDOptions

    def recognises(self, state: State) -> bool:
        layout = read_layout(state)
        if layout is None or not layout.norm.bias or layout.dropout or is_aitorzips(layout):
            return False
        return bool(layout.outputs) != (read_enhancers(state) is not None)

    def build(self, state: State, options: HDOptions, path: Path) -> StagedGenerator:
        enhancers = read_enhancers(state)
        if enhancers is None:
            return residual_translator(state, options, path, self.name, NOMINAL)
        weights, ignored = without_statistics(state)
        trunk = read_layout(weights)
        assert trunk is not None, "recognised before it is built"
        network = EnhancedTranslator(trunk, enhancers)
        load_strictly(network, weights, path, self.name)
        multiple = trunk.multiple * 2**enhancers.count
        return translator(
            network,
            options,
            inputs=trunk.inputs,
            outputs=enhancers.outputs,
            multiple=multiple,
            minimum=2 * multiple,
            nominal=NOMINAL,
            ignored=ignored,
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        if published:
            return random_weights(ResidualTranslator(Layout(3, 3, 64, 4, 9)))
        return random_weights(EnhancedTranslator(Layout(1, 0, 8, 2, 2), Enhancers(1, 2, 1)))


def read_enhancers(state: State) -> Enhancers | None:
    """The local enhancers that the tensors ``model1_1.*``, ``model1_2.*``, … are of, if any."""
    count = sum(re.fullmatch(r"model\d+_1\.1\.weight", key) is not None for key in state)
    blocks = {m[1] for key in state if (m := re.match(r"model1_2\.(\d+)\.conv_block\.", key))}
    # Behind the blocks of the last one: three layers that double, a border, the convolution.
    weight = state.get(f"model{count}_2.{len(blocks) + 4}.weight")
    if not count or weight is None or weight.ndim != 4:
        return None
    return Enhancers(count, len(blocks), weight.shape[0])
