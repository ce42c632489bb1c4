"""Candidates measured beside the released configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from galatea.errors import GalateaError, ServerError
from galatea.load import Load
from galatea.repository import Release
from galatea_server.configurations import configurations
from galatea_server.sameness import difference
from galatea_server.tuning.result import Trial
from galatea_server.tuning.settings import Settings, tuned
from galatea_server.tuning.stand import Images, Stand

__all__ = ["Comparison", "Demand"]

FURTHER_SEEDS = 3  # beyond a whole batch, so that one is not full


@dataclass(frozen=True)
class Demand:
    """What callers ask for.

    Attributes:
        batch: images of a request.
        callers: who send their next request when they have the answer.
        conditions: inputs of the generator.
    """

    batch: int
    callers: int
    conditions: Mapping[str, Any] = field(default_factory=dict)


class Comparison:
    """The released configuration on a server that runs all the while, and candidates beside it.

    Every window of a candidate has one of the released configuration next to it, so that whatever
    else the machine does strikes both; which comes first changes from pair to pair.

    Args:
        folder: an empty one, for the servers' repositories.
        release: the generator.
        stages: its Triton models that settings are for.
        baseline: the settings of the released configuration.
        demand: the load.

    Attributes:
        loads: (settings, load) of every window.
        start_seconds: that a server needs until it is ready.
        triton: name and version of the server.
    """

    def __init__(
        self,
        folder: Path,
        release: Release,
        stages: Sequence[str],
        baseline: Settings,
        demand: Demand,
    ) -> None:
        self.release, self.stages = release, stages
        self.baseline, self.demand = baseline, demand
        self.loads: list[tuple[Settings, Load]] = []
        self.start_seconds, self.triton = 0.0, ""
        self._folder, self._stands = folder, 0
        self._card = release.card()

    def __enter__(self) -> Comparison:
        """Starts the server of the baseline, and keeps its images to compare with.

        Raises:
            GalateaError: it cannot be served, or makes no images.
        """
        begin = time.monotonic()
        self._base = self._stand(self.baseline)
        self._base.__enter__()
        self.start_seconds = time.monotonic() - begin
        try:
            self.triton = self._base.triton()
            self._before = self._images(self._base)
        except BaseException:
            self._base.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._base.__exit__(kind, error, traceback)

    def window(self, shortest: float, requests: int, longest: float) -> float:
        """Seconds in which the baseline answers about so many requests, within bounds.

        Raises:
            GalateaError: the baseline fails under the load.
        """
        begin = time.monotonic()
        self._base.images(self.demand.batch, self.demand.conditions)
        load = self._measured(self._base, max(shortest, 2 * (time.monotonic() - begin)))
        return max(shortest, min(longest, requests / load.requests_per_second))

    def measure(
        self,
        trial: Trial,
        *,
        pairs: int,
        seconds: float,
        ladder: Sequence[Demand] = (),
        go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Adds pairs of windows to a trial, or the reason why it is discarded.

        Args:
            seconds: of each window.
            ladder: other loads, under which both are measured once after that.
            go_on: asked before each pair and each of these loads, the first pair left out.

        Raises:
            GalateaError: the baseline fails.
        """
        try:
            with self._stand(trial.settings) as stand:
                trial.discarded = difference(
                    self._card, self.baseline.variant, trial.settings.variant,
                    self._before, self._images(stand),
                )  # fmt: skip
                for k in range(0 if trial.discarded else pairs):
                    if k == 0 or go_on():
                        trial.pairs.append(
                            self._pair(trial.settings, stand, seconds, self.demand, k)
                        )
                for demand in ladder if trial.pairs else ():
                    if go_on():
                        self._pair(trial.settings, stand, seconds, demand)
        except _BaselineFailed as error:
            raise error.reason from error
        except GalateaError as error:  # Triton refuses it, or it fails under the load
            trial.discarded = error.problem

    def configs(self, settings: Settings) -> dict[str, Any]:
        """The ModelConfig of each Triton model with these settings."""
        return tuned(configurations(self.release, settings.variant), self.stages, settings)

    def _stand(self, settings: Settings) -> Stand:
        self._stands += 1
        folder = self._folder / str(self._stands)
        return Stand(folder, self.release, self.configs(settings))

    def _images(self, stand: Stand) -> Images:
        return stand.images(self.demand.batch + FURTHER_SEEDS, self.demand.conditions)

    def _pair(
        self, settings: Settings, stand: Stand, seconds: float, demand: Demand, k: int = 0
    ) -> tuple[Load, Load]:
        """The k-th pair of windows, (baseline's, candidate's).

        Raises:
            _BaselineFailed: the baseline's requests failed.
            GalateaError: the candidate's did.
        """
        made: dict[Stand, Load] = {}
        for each in (self._base, stand) if k % 2 == 0 else (stand, self._base):
            try:
                made[each] = self._measured(each, seconds, demand)
            except GalateaError as error:
                if each is self._base:
                    raise _BaselineFailed(error) from error
                raise
        self.loads += [(self.baseline, made[self._base]), (settings, made[stand])]
        return made[self._base], made[stand]

    def _measured(self, stand: Stand, seconds: float, demand: Demand | None = None) -> Load:
        """A window.

        Raises:
            ServerError: some requests failed.
            GalateaError: all did.
        """
        asked = demand or self.demand
        load = stand.measure(asked.batch, asked.callers, seconds, asked.conditions)
        if load.errors:
            errors = ", ".join(f"{count} {name}" for name, count in load.errors.items())
            raise ServerError(
                f"requests failed under {asked.callers} callers of {asked.batch} images: {errors}",
                "see galatea doctor for the size of /dev/shm, or measure with fewer --callers",
            )
        return load


class _BaselineFailed(Exception):
    """Not the candidate's fault."""

    def __init__(self, reason: GalateaError) -> None:
        super().__init__(reason)
        self.reason = reason
