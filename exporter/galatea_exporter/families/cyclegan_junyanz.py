"""CycleGAN of the junyanz layout: the residual generator, which pix2pix can have too.

Architecture: Zhu et al. 2017 (arXiv:1703.10593) in the layout of the repository
junyanz/pytorch-CycleGAN-and-pix2pix (``resnet_9blocks``, ``resnet_6blocks``). Written from the
description of the network and from the names and shapes in its checkpoints.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from galatea_exporter.checkpoint import State
from galatea_exporter.family import Family, random_weights, register
from galatea_exporter.layers.residual import (
    Layout,
    ResidualTranslator,
    is_aitorzips,
    is_shared,
    read_layout,
    residual_translator,
)
from galatea_exporter.layers.translation import TranslatorOptions
from galatea_exporter.stages import StagedGenerator

NOMINAL = (256, 256)


@register
class CycleGANJunyanz(Family):
    """Sizes, norm and dropout are read from the checkpoint; a picture keeps its size.

    Upstream has two downsamplings. Another number is taken for this family's only together with
    what the others of this network don't have: dropout, or convolutions without biases.
    """

    name = "cyclegan_junyanz"
    title = "CycleGAN, junyanz layout"
    source = "arXiv:1703.10593; junyanz/pytorch-CycleGAN-and-pix2pix"
    aliases = ("cyclegan",)
    options = TranslatorOptions

    def recognises(self, state: State) -> bool:
        layout = read_layout(state)
        if layout is None or not layout.outputs:
            return False
        if is_shared(layout):
            return not is_aitorzips(layout)
        norm = layout.norm
        return norm.bias == (norm.kind == "instance") and (layout.dropout or not norm.bias)

    def build(self, state: State, options: TranslatorOptions, path: Path) -> StagedGenerator:
        return residual_translator(state, options, path, self.name, NOMINAL)

    def example(self, published: bool = False) -> dict[str, Tensor]:
        small = Layout(1, 1, 4, 2, 2, dropout=True)
        return random_weights(ResidualTranslator(Layout(1, 1, 64, 2, 9) if published else small))
