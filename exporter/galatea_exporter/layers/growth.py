"""Progressive growing: which of a generator's sizes is in use (Karras et al. 2017).

Code that follows arXiv:1710.10196 saves layers for all sizes, trained or not, and does not save how
far the training came.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from galatea.errors import InvalidInput
from galatea_exporter.family import Options


@dataclass(frozen=True)
class GrowthOptions(Options):
    """Adds how far the generator has grown.

    Attributes:
        step: the size is 4·2^step pixels; None takes the largest that there are layers for.
        alpha: weight of that size against the one before it; outside [0, 1) there is no fading.
    """

    step: int | None = None
    alpha: float = 1.0

    @property
    def fading(self) -> bool:
        """Whether the size before takes part."""
        return 0 <= self.alpha < 1

    def grown(self, steps: range, path: Path) -> int:
        """The step in use.

        Args:
            steps: those that the checkpoint has layers for.
            path: names the checkpoint in errors.

        Raises:
            InvalidInput: it has no layers for the step that was set.
        """
        step = steps[-1] if self.step is None else self.step
        if step not in steps:
            raise InvalidInput(
                f"step {step} does not exist; {path} grows to {4 * 2 ** steps[-1]} pixels",
                f"choose {steps[0]} … {steps[-1]}",
            )
        return step
