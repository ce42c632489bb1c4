"""A generator that computes nothing: it looks its images up by their seed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from galatea.card import Output, ValueRange
from galatea_exporter.assembly import SEED_INPUT
from galatea_exporter.checkpoint import State
from galatea_exporter.family import Family, Options
from galatea_exporter.stages import Stage, StagedGenerator, TensorSpec

SHAPE = 256, 256, 3
BATCH = 64
ENTRIES = 8  # 1.6 MB: the table stays in a core's cache, so that an image costs its writing alone


@cache
def table() -> NDArray[np.uint8]:
    """The images, uint8 [8, 256, 256, 3]: noise, so that no two rows are alike."""
    return np.random.default_rng(0).integers(0, 256, (ENTRIES, *SHAPE), np.uint8)


def pictures(seeds: NDArray[np.int64]) -> NDArray[np.uint8]:
    """What the model makes of seeds int64 [n] from 0: uint8 [n, 256, 256, 3]."""
    images: NDArray[np.uint8] = table()[seeds % ENTRIES]
    return images


class Lookup(nn.Module):
    """seed int64 [N, 1] → image uint8 [N, 256, 256, 3]."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = nn.Buffer(images)

    def forward(self, seed: Tensor) -> Tensor:
        return self.images.index_select(0, seed[:, 0] % ENTRIES)


class PassThrough(Family):
    """The table as a family of one stage."""

    name = "pass_through"
    title = "images from a table"
    source = "benchmarks/wire.py"

    def recognises(self, state: State) -> bool:
        return list(state) == ["images"]

    def build(self, state: State, options: Options, path: Path) -> StagedGenerator:
        channels = "red", "green", "blue"
        stage = Stage(
            "lookup",
            Lookup(state["images"]).eval(),
            (TensorSpec("seed", "int64", (1,)),),
            (TensorSpec("image", "uint8", SHAPE),),
            accelerated=False,  # one thread, and no batch is split and joined again
        )
        return StagedGenerator(
            stages=(stage,),
            task="unconditional",
            inputs=(SEED_INPUT,),
            outputs=(Output("image", "UINT8", SHAPE, channels),),
            value_range=ValueRange(0, 255, "truncate"),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        return {"images": torch.from_numpy(table())}
