"""Brain tumours painted into MR images (FLAIR, T1, T1 with contrast, T2).

Architecture: Kim et al. 2021 (arXiv:2003.07526, doi:10.1002/mp.14701) in the layout of
KSH0660/BrainTumor: concentric circles become the shape of a tumour, then its grades, and the masked
brain is painted with it. Written from the description of the networks and from the names and
shapes in their checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import remove_spectral_norm, spectral_norm

from galatea.card import Input, Preparation
from galatea_exporter.assembly import from_source
from galatea_exporter.checkpoint import State, load_strictly
from galatea_exporter.family import Family, Options, random_weights, register
from galatea_exporter.layers.equalised import size_of
from galatea_exporter.layers.instance_norm import InstanceNorm
from galatea_exporter.stages import Anchor, StagedGenerator, TensorSpec

SIZE = 256
SEQUENCES = ("flair", "t1", "t1c", "t2")
HEADS = ("F", "T1", "T1c", "T2")  # their names in the checkpoint

# Disjoint ranges: radius_1 < radius_2 < radius_3 whatever is drawn.
CIRCLES = (
    Input("circle_x", "INT64", "column of the tumour's centre", minimum=90, maximum=170),
    Input("circle_y", "INT64", "row of the tumour's centre", minimum=90, maximum=170),
    Input("radius_1", "INT64", "of the necrotic core, in pixels", minimum=5, maximum=12),
    Input("radius_2", "INT64", "of the enhancing tumour, in pixels", minimum=13, maximum=22),
    Input("radius_3", "INT64", "of the oedema, in pixels", minimum=23, maximum=45),
)
LEVELS = (1.0, 0.75, 0.5)  # of the circles, as of the grades that come of them


class Conv(nn.Module):
    """Convolution, InstanceNorm without parameters, activation."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, activation: nn.Module, *,
        stride: int = 1, spectral: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        convolution = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2)
        if spectral:
            convolution = spectral_norm(convolution)
        self.conv = nn.Sequential(convolution, InstanceNorm(), activation)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv(x)
        return made


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions around which the input is added; no activation behind them."""

    def __init__(self, width: int, activation: nn.Module, *, spectral: bool = False) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            Conv(width, width, 3, activation, spectral=spectral),
            Conv(width, width, 3, nn.Identity(), spectral=spectral),
        )

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = x + self.conv_block(x)
        return made


class MaskGenerator(nn.Module):
    """Two maps to one: the shape of the tumour, or its grades.

    Args:
        widths: channels at full size and at each of the three halvings.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        activation = nn.LeakyReLU(0.01)
        layers: list[nn.Module] = [Conv(2, widths[0], 5, activation)]
        for k in range(3):
            layers.append(Conv(widths[k], widths[k + 1], 3, activation, stride=2))
        layers += [ResidualBlock(widths[3], activation, spectral=True) for _ in range(3)]
        for k in reversed(range(3)):
            layers.append(nn.ConvTranspose2d(widths[k + 1], widths[k], 3, 2, 1, 1))
            layers += [InstanceNorm(), activation]
        self.model = nn.Sequential(*layers, Conv(widths[0], 1, 5, activation))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """float32 [N, 1, H, W] each → float32 [N, 1, H, W], unbounded above."""
        made: Tensor = self.model(torch.cat([first, second], dim=1))
        return made


class Inpainter(nn.Module):
    """A brain with a hole and the grades of a tumour → the four sequences, unbounded above.

    Args:
        stem: channels behind the two convolutions that read brain and grades.
        mask: the same for those that read the grades alone.
        head: channels of each head at a quarter, half and full size.
    """

    def __init__(self, stem: tuple[int, ...], mask: tuple[int, ...], head: tuple[int, ...]) -> None:
        super().__init__()
        relu = nn.ReLU()

        def reading(*widths: int) -> list[nn.Module]:
            return [Conv(c_in, c_out, 3, relu, stride=2) for c_in, c_out in pairwise(widths)]

        def painting() -> nn.Sequential:
            layers: list[nn.Module] = []
            for c_in, c_out in pairwise((stem[1] + mask[1], *head)):
                layers += [Conv(c_in, c_out, 3, relu), ResidualBlock(c_out, relu)]
                layers.append(nn.Upsample(scale_factor=2))
            return nn.Sequential(*layers[:-1], Conv(head[2], 1, 7, relu))

        residual = [ResidualBlock(stem[1], relu) for _ in range(3)]
        self.model_initial = nn.Sequential(*reading(len(HEADS) + 1, *stem), *residual)
        self.model_Mask = nn.Sequential(*reading(1, *mask))
        for name in HEADS:
            self.add_module(f"model_{name}", painting())

    def forward(self, brain: Tensor, grades: Tensor) -> Tensor:
        """float32 [N, 4, H, W], float32 [N, 1, H, W] → float32 [N, 4, H, W]."""
        read = self.model_initial(torch.cat([brain, grades], dim=1))
        read = torch.cat([read, self.model_Mask(grades)], dim=1)
        heads = [self.get_submodule(f"model_{name}") for name in HEADS]
        return torch.cat([head(read) for head in heads], dim=1)


class Inpainting(nn.Module):
    """The whole way, with upstream's thresholds.

    Args:
        tumor_shape, tumor_grade, inp_gen: the three networks.
        grade: whether the grades are a channel of what is made.
    """

    def __init__(
        self,
        tumor_shape: MaskGenerator,
        tumor_grade: MaskGenerator,
        inp_gen: Inpainter,
        *,
        grade: bool = False,
    ) -> None:
        super().__init__()
        self.tumor_shape, self.tumor_grade, self.inp_gen = tumor_shape, tumor_grade, inp_gen
        self.shape_anchor, self.grade_anchor = Anchor("tumor_shape_out"), Anchor("tumor_grade_out")
        self.grade = grade

    def forward(self, brain: Tensor, *circle: Tensor) -> tuple[Tensor, ...]:
        """brain float32 [N, 4, 256, 256], centre and radii int64 [N, 1] → the channels and probes.

        The channels are the sequences, the mask 0 or 1 and, where wanted, the grades 0, 0.5, 0.75
        or 1.
        """
        level = circles(*circle)
        shape = self.tumor_shape((brain[:, :1] > 0).float(), (level > 0.3).float())
        mask = (self.shape_anchor(shape) > 0.3).float()
        grade = self.tumor_grade(mask, level)
        grades = quantised(self.grade_anchor(grade))
        blank = brain * (1 - mask)
        painted = self.inp_gen(blank, grades)
        final = painted * mask + blank
        channels = [final, mask, *([grades] if self.grade else [])]
        return torch.cat(channels, dim=1), shape, grade, painted, final


def circles(x: Tensor, y: Tensor, *radii: Tensor) -> Tensor:
    """Centre and radii int64 [N, 1] → levels float32 [N, 1, 256, 256], 0 outside the circles."""
    line = torch.arange(SIZE).float()
    across, down = line - x.float()[:, :, None, None], line[:, None] - y.float()[:, :, None, None]
    squared = across * across + down * down
    level = torch.zeros_like(squared)
    for radius, value in reversed(tuple(zip(radii, LEVELS, strict=True))):
        square = (radius * 1.0)[:, :, None, None]
        level = torch.where(squared < square * square, value, level)
    return level


def quantised(grade: Tensor) -> Tensor:
    """To 0, 0.5, 0.75 and 1; exactly 0.85 becomes 0, as upstream's comparisons leave it."""
    low = torch.where(grade < 0.36, 0.0, torch.where(grade < 0.63, 0.5, 0.75))
    return torch.where(grade > 0.85, 1.0, torch.where(grade < 0.85, low, 0.0))


@dataclass(frozen=True)
class InpaintOptions(Options):
    """Adds what a user may want beside the picture; the value range is upstream's.

    Attributes:
        grade: whether the image has a last channel with the grades of the tumour: 1 necrotic core,
            0.75 enhancing tumour, 0.5 oedema, 0 none.
    """

    low: float = 0.0
    pixel_type: Literal["auto", "uint8", "float32"] = "float32"
    mask_channel: int | None = len(SEQUENCES)
    mask_threshold: float = 0.5
    grade: bool = False


@register
class InpaintBrain(Family):
    """Widths are read from the checkpoint; the picture has the size that upstream's circles have.

    ``example`` and checkpoints have upstream's three files as they are, spectral norms included.
    """

    name = "inpaint_brain"
    title = "Brain tumours painted into MR images of four sequences"
    source = "arXiv:2003.07526, doi:10.1002/mp.14701; KSH0660/BrainTumor"
    aliases = ("tumor_inpainting",)
    files = ("tumor_shape.pth", "tumor_grade.pth", "inp_gen.pth")
    options = InpaintOptions

    def recognises(self, state: State) -> bool:
        firsts = ("tumor_shape.model.0", "tumor_grade.model.0", "inp_gen.model_initial.0")
        return all(f"{first}.conv.0.weight" in state for first in firsts)

    def build(self, state: State, options: InpaintOptions, path: Path) -> StagedGenerator:
        def widths(name: str, *layers: int) -> tuple[int, ...]:
            return tuple(size_of(state, f"{name}.{n}.conv.0.weight", 0) for n in layers)

        network = Inpainting(
            MaskGenerator(widths("tumor_shape.model", 0, 1, 2, 3)),
            MaskGenerator(widths("tumor_grade.model", 0, 1, 2, 3)),
            Inpainter(
                widths("inp_gen.model_initial", 0, 1),
                widths("inp_gen.model_Mask", 0, 1),
                widths("inp_gen.model_F", 0, 3, 6),
            ),
            grade=options.grade,
        )
        load_strictly(network, state, path, self.name)
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and hasattr(module, "weight_orig"):
                remove_spectral_norm(module)
        names = (*SEQUENCES, "mask", *(["grade"] if options.grade else []))
        if not options.channels:
            options = replace(options, channels=names)
        full = (SIZE, SIZE)
        made = from_source(
            network,
            source=SEQUENCES,
            size=full,
            span=(0.0, 1.0),
            preparation=Preparation("minmax", full),
            channels=options.channel_names(len(names)),
            pixels=options.pixels(len(names)),
            conditions=CIRCLES,
            probes=(
                TensorSpec("tumor_shape_out", "float32", (1, *full)),
                TensorSpec("tumor_grade_out", "float32", (1, *full)),
                TensorSpec("inp_gen_out", "float32", (len(SEQUENCES), *full)),
                TensorSpec("final", "float32", (len(SEQUENCES), *full)),
            ),
        )
        return replace(made, tolerance_reason=Anchor.REASON)

    def example(self, published: bool = False) -> dict[str, Tensor]:
        masks, stem, mask, head = (
            ((32, 64, 128, 256), (32, 128), (32, 16), (256, 128, 64))
            if published
            else ((4, 4, 8, 8), (4, 8), (4, 2), (8, 4, 4))
        )
        generators = MaskGenerator(masks), MaskGenerator(masks), Inpainter(stem, mask, head)
        return random_weights(Inpainting(*generators))
