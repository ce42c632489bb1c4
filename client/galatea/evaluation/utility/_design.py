"""What a study of utility does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from galatea.errors import InvalidInput
from galatea.evaluation._intensity import Intensity
from galatea.evaluation.utility._split import ARMS

__all__ = ["MEASURES", "Design"]

MEASURES = {"classify": "balanced accuracy", "segment": "Dice"}  # of a task


@dataclass(frozen=True)
class Design:
    """What is trained and tested, and how often.

    Attributes:
        task: "classify" or "segment".
        intensity: how pixels become levels.
        arms: some of "real", "synthetic" and "both"; "real" must be there.
        fractions: of the patients to train with, above 0 and at most 1.
        repeats: of each training, with other patients in fractions, other weights and order.
        holdout: share of the patients to test with.
        seed: of all that is drawn.
        network: of segmentation, "unet" or "swin".
        steps: of segmentation, of the optimiser in each training.
        batch_size: of segmentation, images a step.
        size: of segmentation, (H, W) that all images are brought to; default is that of the first
            synthetic one.
        runner: the user's own command, in place of networks and regressions.

    Raises:
        InvalidInput: one of these cannot be.
    """

    task: str
    intensity: Intensity
    arms: Sequence[str] = ARMS
    fractions: Sequence[float] = (0.1, 1.0)
    repeats: int = 3
    holdout: float = 0.3
    seed: int = 0
    network: str = "unet"
    steps: int = 300
    batch_size: int = 8
    size: tuple[int, int] | None = None
    runner: str | None = None

    def __post_init__(self) -> None:
        if self.task not in MEASURES:
            raise InvalidInput(f"no task {self.task!r}", f"choose one of: {', '.join(MEASURES)}")
        other = [arm for arm in self.arms if arm not in ARMS]
        if other:
            raise InvalidInput(f"no arm {other[0]!r}", f"choose of: {', '.join(ARMS)}")
        if "real" not in self.arms:
            raise InvalidInput(
                "without the arm 'real' there is nothing to hold the others against",
                "name it in the arms",
            )
        if not self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise InvalidInput(
                f"{', '.join(f'{fraction:g}' for fraction in self.fractions)}: no fractions",
                "give some above 0 and at most 1",
            )
        if not 0 < self.holdout < 1:
            raise InvalidInput(f"{self.holdout:g} of the patients cannot be held out", "give 0.3")
        if min(self.repeats, self.steps, self.batch_size) < 1:
            raise InvalidInput("there is nothing to train", "give at least 1 repeat and 1 step")

    def facts(self) -> dict[str, Any]:
        """What matters to the result, as plain JSON types."""
        return {
            **asdict(self), "intensity": str(self.intensity), "arms": list(self.arms),
            "fractions": sorted(set(self.fractions)),
        }  # fmt: skip
