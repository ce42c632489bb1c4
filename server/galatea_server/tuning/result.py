"""What a tuning has measured, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

from galatea.load import Load
from galatea.measured import Measured
from galatea_server.tuning.settings import Settings

__all__ = ["Point", "Target", "Trial", "Tuned", "frontier"]

Target = Literal["throughput", "latency"]


@dataclass(frozen=True)
class Point:
    """What one setting gave under one load, the median of its windows.

    Attributes:
        best: whether no other point has as many images a second and as low a p95 latency.
    """

    settings: Settings
    batch: int
    callers: int
    images_per_second: float
    p50_ms: float
    p95_ms: float
    windows: int
    best: bool = False


@dataclass
class Trial:
    """A candidate and its windows, each beside one of the baseline.

    Attributes:
        pairs: (baseline's load, candidate's load) measured one after the other.
        discarded: why it is out of the question; nothing where it is not.
    """

    settings: Settings
    pairs: list[tuple[Load, Load]] = field(default_factory=list)
    discarded: str = ""

    def ratios(self, target: Target) -> list[float]:
        """How much better than the baseline it is in each pair; 1 is as good."""
        if target == "latency":
            return [before.p95_ms / after.p95_ms for before, after in self.pairs]
        return [after.images_per_second / before.images_per_second for before, after in self.pairs]

    def gain(self, target: Target) -> float:
        """The median ratio; 0 before anything was measured."""
        return median(self.ratios(target)) if self.pairs else 0.0

    def noise(self, target: Target) -> float:
        """Half of the range of the ratios."""
        ratios = self.ratios(target)
        return (max(ratios) - min(ratios)) / 2


@dataclass(frozen=True)
class Tuned:
    """The outcome.

    Attributes:
        name, version: the generator.
        baseline: as released.
        best: the settings that were measured to the end; None where none was.
        gain: of `best` over the baseline, measured beside it: images a second, or for the target
            latency the p95 latency, as a ratio that is larger where it is better.
        noise: half of the range of that ratio over the windows.
        better: whether the gain is beyond the noise.
        points: all that was measured, by load and settings.
        discarded: (settings, why) of candidates that fail or make other images.
        untried: candidates for which there was no time.
        measured: of `best` under the load of the target.
        interrupted: whether it was ended before its time.
        written: paths that were written, below the repository.
    """

    name: str
    version: int
    target: Target
    batch: int
    callers: int
    baseline: Settings
    best: Settings | None
    gain: float
    noise: float
    better: bool
    points: tuple[Point, ...]
    discarded: tuple[tuple[Settings, str], ...]
    untried: tuple[Settings, ...]
    seconds: float
    measured: Measured | None = None
    interrupted: bool = False
    written: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain = asdict(self)
        plain["measured"] = self.measured.to_dict() if self.measured else None
        plain["discarded"] = [
            {"settings": asdict(settings), "reason": reason} for settings, reason in self.discarded
        ]
        return plain


def frontier(loads: Iterable[tuple[Settings, Load]]) -> tuple[Point, ...]:
    """The points of many windows, by load and settings; those that nothing beats are marked."""
    windows: dict[tuple[int, int, Settings], list[Load]] = {}
    for settings, load in loads:
        windows.setdefault((load.batch, load.callers or 0, settings), []).append(load)
    points = [
        Point(
            settings, batch, callers,
            round(median(load.images_per_second for load in group), 1),
            round(median(load.p50_ms for load in group), 2),
            round(median(load.p95_ms for load in group), 2),
            len(group),
        )
        for (batch, callers, settings), group in sorted(windows.items())
    ]  # fmt: skip
    return tuple(_marked(point, points) for point in points)


def _marked(point: Point, points: Sequence[Point]) -> Point:
    beaten = any(
        other.images_per_second >= point.images_per_second
        and other.p95_ms <= point.p95_ms
        and (other.images_per_second, other.p95_ms) != (point.images_per_second, point.p95_ms)
        for other in points
    )
    return Point(**{**vars(point), "best": not beaten})
