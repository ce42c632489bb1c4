"""Parity stays strict where a network rounds its own floats: they are compared before it does."""

from typing import Any

import pytest
from torch import Tensor, nn

from galatea import ExportError
from galatea_exporter.graph import export_stage, open_session, serialise
from galatea_exporter.parity import compare
from galatea_exporter.stages import Anchor, Stage, TensorSpec

TOLERANCE = 1e-4


class Threshold(nn.Module):
    """1 where the input plus an offset is above 0; float32 [N, 4] → the same, and the sum."""

    def __init__(self, offset: float, mark: nn.Module) -> None:
        super().__init__()
        self.offset, self.mark = offset, mark

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        floats = given + self.offset
        return (self.mark(floats) > 0).float(), floats


def stage(offset: float, mark: nn.Module) -> Stage:
    """Its example inputs are all 0, right at the threshold."""
    four = TensorSpec("given", "float32", (4,), (0, 0))
    made, floats = TensorSpec("image", "float32", (4,)), TensorSpec("floats", "float32", (4,))
    return Stage("threshold", Threshold(offset, mark), (four,), (made,), (floats,))


def graph(offset: float) -> Any:
    """What another runtime computes: the sums are off by `offset`."""
    return open_session(serialise(export_stage(stage(offset, nn.Identity()))))


def test_values_that_flip_at_a_threshold_do_not_count_where_an_anchor_is() -> None:
    difference = compare(stage(0.0, Anchor("floats")), graph(1e-6), (1, 2), TOLERANCE)
    assert 0 < difference.max_abs <= 2e-6


def test_without_an_anchor_they_do() -> None:
    with pytest.raises(ExportError, match=r"'threshold', image, batch 1: max abs difference"):
        compare(stage(0.0, nn.Identity()), graph(1e-6), (1,), TOLERANCE)


def test_floats_before_a_threshold_must_agree() -> None:
    with pytest.raises(ExportError, match=r"'threshold', floats, batch 1: max abs difference"):
        compare(stage(0.0, Anchor("floats")), graph(1e-3), (1,), TOLERANCE)


def test_what_follows_a_threshold_must_be_the_same_function() -> None:
    class Inverted(Threshold):
        def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
            above, floats = super().forward(given)
            return 1 - above, floats

    wrong = stage(0.0, nn.Identity())
    wrong = Stage("threshold", Inverted(0.0, nn.Identity()), wrong.inputs, wrong.outputs,
                  wrong.probes)  # fmt: skip
    other = open_session(serialise(export_stage(wrong)))
    with pytest.raises(ExportError, match=r"'threshold', image, batch 1: max abs difference"):
        compare(stage(0.0, Anchor("floats")), other, (1,), TOLERANCE)
