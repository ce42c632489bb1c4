"""Small image-to-image models whose results can be told from their input by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from galatea.card import Input, Preparation, ValueRange
from galatea_exporter.assembly import from_source
from galatea_exporter.checkpoint import State, load_strictly
from galatea_exporter.family import Family, Options
from galatea_exporter.pixels import Pixels
from galatea_exporter.stages import Axis, StagedGenerator

SEQUENCES = ("flair", "t1", "t1c", "t2")


class Formula(nn.Module):
    """source and conditions → what the formula makes of them; the weight is 1."""

    def __init__(self, formula: Callable[..., Tensor]) -> None:
        super().__init__()
        self.formula, self.weight = formula, nn.Parameter(torch.ones(1))

    def forward(self, source: Tensor, *conditions: Tensor) -> Tensor:
        values = [condition[:, :, None, None] for condition in conditions]
        return self.formula(source * self.weight, *values)


@dataclass(frozen=True)
class Translator:
    """A formula with everything that its card needs."""

    formula: Callable[..., Tensor]
    assembly: dict[str, Any]


def negative(source: Tensor) -> Tensor:
    return -source


def older(source: Tensor, age_delta: Tensor) -> Tensor:
    return source + age_delta / 10


def banded(source: Tensor, circle_x: Tensor, radius: Tensor) -> Tensor:
    columns = torch.arange(source.shape[3]).float()[None, None, None]
    mask = ((columns - circle_x.float()).abs() < radius.float()).float()
    return torch.cat([source, mask.expand(-1, -1, source.shape[2], -1)], 1)


def tinted(source: Tensor, label: Tensor) -> Tensor:
    return torch.where(label > 0, -source, source)


LEVELS = Pixels(ValueRange(-1, 1, "nearest"))
FREE = Axis("height", 4, 8, 64), Axis("width", 4, 8, 64)

TRANSLATORS = {
    # Any size, grey levels: the negative.
    "negative": Translator(negative, {
        "source": ("intensity",), "size": FREE, "span": (-1.0, 1.0),
        "preparation": Preparation(), "channels": ("intensity",), "pixels": LEVELS,
    }),
    # Floats of one size, and a condition without a default.
    "older": Translator(older, {
        "source": ("intensity",), "size": (16, 12), "span": (0.0, 1.0),
        "preparation": Preparation("minmax", (16, 12), resample="bilinear"),
        "channels": ("intensity",), "pixels": Pixels(ValueRange(0, 1, "nearest"), levels=False),
        "conditions": (Input("age_delta", "FP32", "years", minimum=-10, maximum=10),),
    }),
    # Four channels and a mask; one condition is drawn, the other has a default.
    "banded": Translator(banded, {
        "source": SEQUENCES, "size": (16, 16), "span": (0.0, 1.0),
        "preparation": Preparation("minmax", (16, 16)), "channels": (*SEQUENCES, "mask"),
        "pixels": Pixels(ValueRange(0, 1, "nearest"), False, mask_channel=4, mask_threshold=0.5),
        "conditions": (
            Input("circle_x", "INT64", "column", minimum=4, maximum=11),
            Input("radius", "INT64", "pixels", default=3, minimum=1, maximum=4),
        ),
    }),
    # Colours, with a class.
    "tinted": Translator(tinted, {
        "source": ("red", "green", "blue"), "size": (32, 32), "span": (-1.0, 1.0),
        "preparation": Preparation(size=(32, 32)), "channels": ("red", "green", "blue"),
        "pixels": LEVELS,
        "conditions": (Input("label", "INT64", "class", labels=("as it is", "negative")),),
    }),
}  # fmt: skip


class FormulaFamily(Family):
    """One of the translators as a family; it is no part of the registry."""

    title = source = "a formula"

    def __init__(self, name: str) -> None:
        self.translator = TRANSLATORS[name]
        self.__class__.name = name

    def recognises(self, state: State) -> bool:
        return list(state) == ["weight"]

    def build(self, state: State, options: Options, path: Path) -> StagedGenerator:
        network = Formula(self.translator.formula)
        load_strictly(network, state, path, "formula")
        return from_source(network, **self.translator.assembly)

    def example(self, published: bool = False) -> dict[str, Tensor]:
        return {"weight": torch.ones(1)}
