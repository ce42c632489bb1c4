"""CycleGAN of the aitorzip layout (slices of brain MRI, T1 to T2 and back).

Architecture: Zhu et al. 2017 (arXiv:1703.10593) in the layout of the repository
aitorzip/PyTorch-CycleGAN. Written from the description of the network and from the names and
shapes in its checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from galatea_exporter.checkpoint import State
from galatea_exporter.family import Family, random_weights, register
from galatea_exporter.layers.residual import (
    Layout,
    ResidualTranslator,
    is_shared,
    read_layout,
    residual_translator,
)
from galatea_exporter.layers.translation import TranslatorOptions
from galatea_exporter.stages import StagedGenerator

NOMINAL = (224, 192)


@dataclass(frozen=True)
class AitorzipOptions(TranslatorOptions):
    """The published model resizes a slice and spreads it over the whole range."""

    size: tuple[int, ...] = NOMINAL
    resample: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    scale: Literal["levels", "minmax", "minmax-after"] = "minmax-after"


@register
class CycleGANAitorzip(Family):
    """Channels and blocks are read from the checkpoint; the width is always 64."""

    name = "cyclegan_aitorzip"
    title = "CycleGAN, aitorzip layout"
    source = "arXiv:1703.10593; aitorzip/PyTorch-CycleGAN"
    options = AitorzipOptions

    def recognises(self, state: State) -> bool:
        layout = read_layout(state)
        if layout is None or not layout.outputs:
            return False
        return is_shared(layout) and layout.width == 64

    def build(self, state: State, options: AitorzipOptions, path: Path) -> StagedGenerator:
        return residual_translator(state, options, path, self.name, NOMINAL)

    def example(self, published: bool = False) -> dict[str, Tensor]:
        return random_weights(ResidualTranslator(Layout(1, 1, 64, 2, 9 if published else 1)))
