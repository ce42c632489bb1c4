"""How far the images of a model are that works in steps: what a call is told before its results."""

from __future__ import annotations

from dataclasses import dataclass, replace

from galatea._requests import Request
from galatea._wire.messages import Arrays
from galatea.card import ModelCard
from galatea.samples import Progress, Samples

__all__ = ["Hearing", "Made"]


@dataclass(frozen=True)
class Made:
    """Calls of the network that were made for all images of a call, of how many."""

    calls: int
    of: int


class Hearing:
    """Turns what comes before the results of requests into previews and sums.

    Args:
        n: images of the call; None: endless, then those that were heard of count.
    """

    def __init__(self, card: ModelCard, n: int | None) -> None:
        self._card, self._n = card, n
        self._steps: dict[int, int] = {}  # made for the images with these indices
        self._made = self._of = self._last = 0

    @property
    def made(self) -> Made:
        """The sums; an image that was not heard of needs as many calls as the last one that was."""
        unheard = 0 if self._n is None else self._n - len(self._steps)
        return Made(self._made, self._of + unheard * self._last)

    def count(self, request: Request, told: Arrays) -> None:
        """Takes in how far images of a request are."""
        rows = zip(*(told[name][:, 0].tolist() for name in ("index", "step", "calls")), strict=True)
        for row, step, calls in rows:
            index = request.first + row
            before = self._steps.get(index, 0)
            if index not in self._steps:
                self._of += calls
            # One that is made again after a failure is no further back than it was.
            self._steps[index] = max(step, before)
            self._made += self._steps[index] - before
            self._last = calls

    def part(self, request: Request, told: Arrays) -> Samples | Made:
        """A preview, or how far all is."""
        self.count(request, told)
        if "image" not in told:
            return self.made
        row, step, calls = (int(told[name][0, 0]) for name in ("index", "step", "calls"))
        preview = request.only(row).answered(self._card, told)
        return replace(preview, progress=Progress(request.first + row, step, calls))
