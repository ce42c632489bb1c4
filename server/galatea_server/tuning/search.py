"""The search for better settings: many candidates briefly, few at length, the best once more.

Successive halving (Jamieson & Talwalkar 2016): each round measures the candidates that are left in
windows twice as long as before and keeps the better half. What is told in the end is measured anew,
so that a candidate that was lucky in the rounds is not told as better than it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_low
from tempfile import TemporaryDirectory
from typing import Any

from galatea.errors import InvalidInput
from galatea.load import here
from galatea.measured import Measured
from galatea.repository import Release
from galatea_server.configurations import configurations, heavy
from galatea_server.tuning.comparison import Comparison, Demand
from galatea_server.tuning.machine import device, is_on_gpu
from galatea_server.tuning.result import Target, Trial, Tuned, frontier
from galatea_server.tuning.settings import Settings, delays, grid, released

__all__ = ["Search"]

SHORTEST, LONGEST = 0.5, 10.0  # seconds of a window
ENOUGH = 12  # requests that a window should hold,
MOST_SHARE = 0.04  # unless it took more of the budget than this
FINAL_PAIRS, LEAST_PAIRS = 5, 3
FINAL_SHARE = 0.35  # of the budget, for the last comparison
DELAY_SHARE = 0.15  # of the budget, for queue delays where they matter
LEAST_GAIN = 0.02  # less is not worth a configuration of its own
MOST_CALLERS = 16
LADDER = ((1, 1), (1, 4), (8, 4))  # (batch, callers) of further loads at the end


class Search:
    """Measures what can be chosen of how a generator is served, within a time.

    Args:
        release: the generator.
        variants: of its configurations; the first one, as it is released, is the baseline.
        target: "throughput" of full batches of several callers, or "latency", the p95 of one
            caller who waits for one image.
        budget: seconds that it may take, about; the last comparison is made in any case.
        batch, callers: a load in place of the target's.
        conditions: inputs of the generator.
        report: told in a line what was measured.

    Raises:
        InvalidInput: the generator has no stage that could be tuned, or no such load.
    """

    def __init__(
        self,
        release: Release,
        variants: Sequence[str],
        *,
        target: Target = "throughput",
        budget: float = 600.0,
        batch: int | None = None,
        callers: int | None = None,
        conditions: Mapping[str, Any] | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.release, self.target, self.budget, self.report = release, target, budget, report
        stages = heavy(release)
        if not stages:
            raise InvalidInput(
                f"{release.name} has no stage whose serving could be chosen",
                "tune a generator with a network that could run on a GPU",
            )
        configs = {variant: configurations(release, variant) for variant in variants}
        first = configs[variants[0]]
        self.collects = any(first[stage].HasField("dynamic_batching") for stage in stages)
        self.most = max(1, first[release.name].max_batch_size)
        bases = [released(configs[variant], stages, variant) for variant in variants]
        self.stages, self.baseline = stages, bases[0]
        self.demand = _demand(release, target, self.most, batch, callers, conditions or {})
        self.candidates = [
            *bases[1:],
            *(
                settings
                for base in bases
                for settings in grid(base, here()[1], on_gpu=is_on_gpu(base.variant))
            ),
        ]
        self._trials: list[Trial] = []
        self._final: Trial | None = None
        self._comparison: Comparison | None = None
        self._begin = time.monotonic()

    def run(self) -> None:
        """Measures until the best is found or the time is over.

        It may be interrupted; :meth:`result` tells what was measured until then.

        Raises:
            GalateaError: the released configuration cannot be served, or fails under the load.
        """
        self._begin = time.monotonic()
        with TemporaryDirectory(prefix="galatea-tune-") as scratch:
            comparison = Comparison(
                Path(scratch), self.release, self.stages, self.baseline, self.demand
            )
            self._comparison = comparison
            self.report(f"starting the baseline, {self.baseline}")
            with comparison:
                least = comparison.window(SHORTEST, ENOUGH, MOST_SHARE * self.budget)
                shared = self.demand.callers > 1 and self.demand.batch < self.most
                spared = FINAL_SHARE + (DELAY_SHARE if self.collects and shared else 0)
                window = self._first_window(least, spared)
                best = self._halve(comparison, self.candidates, window, spared)
                if best and self.collects and shared:
                    again = delays(best.settings)
                    best = self._halve(comparison, again, least, FINAL_SHARE, best)
                if best:
                    self._finish(comparison, best.settings, least)

    def result(self, *, interrupted: bool = False) -> Tuned:
        """What was measured."""
        final = self._final if self._final and self._final.pairs else None
        gain, noise = (final.gain(self.target), final.noise(self.target)) if final else (0.0, 0.0)
        measured = self._comparison
        return Tuned(
            name=self.release.name,
            version=self.release.version,
            target=self.target,
            batch=self.demand.batch,
            callers=self.demand.callers,
            baseline=self.baseline,
            best=final.settings if final else None,
            gain=round(gain, 4),
            noise=round(noise, 4),
            better=gain - 1 > max(noise, LEAST_GAIN),
            points=frontier(measured.loads if measured else ()),
            discarded=tuple((t.settings, t.discarded) for t in self._trials if t.discarded),
            untried=tuple(t.settings for t in self._trials if not (t.pairs or t.discarded)),
            seconds=round(time.monotonic() - self._begin, 1),
            measured=self._measured(final) if final else None,
            interrupted=interrupted,
        )

    def _left(self, share: float = 0.0) -> float:
        """Seconds that are left of the budget, without a share of it."""
        return self._begin + self.budget * (1 - share) - time.monotonic()

    def _first_window(self, least: float, spared: float) -> float:
        """Seconds of a window in the first round, so that the rounds fit into the budget."""
        assert self._comparison is not None
        tries = max(1, 2 * len(self.candidates))  # over all rounds, each half as many as before
        rounds = max(1, len(self.candidates)).bit_length()
        time_left = self._left(spared) - tries * self._comparison.start_seconds
        return min(LONGEST, max(least, time_left / (2 * rounds * len(self.candidates) or 1)))

    def _halve(
        self,
        comparison: Comparison,
        candidates: Sequence[Settings],
        window: float,
        spared: float,
        champion: Trial | None = None,
    ) -> Trial | None:
        """The best of the candidates and a champion; None where no candidate can be used.

        Args:
            window: seconds of one in the first round.
            spared: share of the budget to leave.
        """
        left = [Trial(settings) for settings in candidates]
        self._trials += left
        while left:
            for trial in left:
                cost = comparison.start_seconds + 2.5 * window
                if self._left(spared) > cost or not any(t.pairs for t in self._trials):
                    comparison.measure(trial, pairs=1, seconds=window)
                    self.report(self._told(trial))
            sound = [trial for trial in left if trial.pairs and not trial.discarded]
            sound.sort(key=lambda trial: trial.gain(self.target), reverse=True)
            if len(sound) <= 1 or self._left(spared) <= 0:
                left = sound[:1]
                break
            left, window = sound[: (len(sound) + 1) // 2], 2 * window
        rivals = [*([champion] if champion else []), *left]
        return max(rivals, key=lambda trial: trial.gain(self.target), default=None)

    def _finish(self, comparison: Comparison, settings: Settings, least: float) -> None:
        """Measures the best anew, at length, and under other loads as far as there is time."""
        final = self._final = Trial(settings)
        self.report(f"measuring the best once more, {settings}")
        each = (self._left() - comparison.start_seconds) / (2.5 * (FINAL_PAIRS + len(LADDER)))
        window = min(LONGEST, max(least, each))
        ladder = [
            Demand(batch, callers, self.demand.conditions)
            for batch, callers in LADDER
            if batch <= self.most and (batch, callers) != (self.demand.batch, self.demand.callers)
        ]
        comparison.measure(
            final,
            pairs=FINAL_PAIRS,
            seconds=window,
            ladder=ladder,
            go_on=lambda: len(final.pairs) < LEAST_PAIRS or self._left() > 2.5 * window,
        )
        if final.discarded:
            self._trials.append(final)
        self.report(self._told(final))

    def _told(self, trial: Trial) -> str:
        if trial.discarded:
            return f"{trial.settings}: discarded, {trial.discarded}"
        load = trial.pairs[-1][1]
        return (
            f"{trial.settings}: {trial.gain(self.target):.2f} × the baseline "
            f"({load.images_per_second:.1f} images/s, p95 {load.p95_ms:.1f} ms)"
        )

    def _measured(self, final: Trial) -> Measured:
        """The figures of the best: of the window with the median throughput."""
        assert self._comparison is not None
        rate = median_low([load.images_per_second for _, load in final.pairs])
        load = next(load for _, load in final.pairs if load.images_per_second == rate)
        name, gpus = device(final.settings.variant)
        return Measured.of(
            load, device=name, gpus=gpus, cores=here()[1], instances=final.settings.instances,
            threads=final.settings.threads or None, variant=final.settings.variant,
            server=self._comparison.triton,
        )  # fmt: skip


def _demand(
    release: Release,
    target: Target,
    most: int,
    batch: int | None,
    callers: int | None,
    conditions: Mapping[str, Any],
) -> Demand:
    """The load to tune for.

    Raises:
        InvalidInput: the generator does not take it.
    """
    waits = target == "latency"
    usual = Demand(1, 1) if waits else Demand(most, min(MOST_CALLERS, here()[1] + 2))
    made = replace(
        usual,
        batch=usual.batch if batch is None else batch,
        callers=usual.callers if callers is None else callers,
        conditions=conditions,
    )
    if not 1 <= made.batch <= most or made.callers < 1:
        raise InvalidInput(
            f"{made.callers} callers of {made.batch} images are no load for {release.name}",
            f"give at least one caller, and 1 to {most} images",
        )
    return made
