"""Samplers in NumPy: from noise to a sample, one call of the network at a time.

DDPM (Ho et al. 2020, learned variances of Nichol and Dhariwal 2021), DDIM (Song et al. 2021), PLMS
(Liu et al. 2022, without its Runge-Kutta start), Euler (Karras et al. 2022, algorithm 1) and
DPM-Solver++ 2M (Lu et al. 2022), each with the conventions of diffusers' scheduler of that name.

Coefficients are computed in float64 and the state is float32. They meet the arrays as Python
floats, so that NumPy 1 and 2 compute the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # never at run time: the two files lie beside each other in no package
    from galatea_exporter.sampler.schedules import Schedule

Array = NDArray[np.float32]
Noise = Callable[[int], Array]

# Weights of the last outputs, the newest first, and what divides their sum.
ADAMS_BASHFORTH = ((1, 1), (3, -1, 2), (23, -16, 5, 12), (55, -59, 37, -9, 24))
TINY_VARIANCE = 1e-20  # its logarithm is finite
SHORT = 15  # with fewer steps DPM-Solver++ ends in first order


@dataclass(frozen=True)
class Settings:
    """What a request chooses.

    Attributes:
        steps: how many timesteps are visited.
        sampler: "ddpm", "ddim", "plms", "euler" or "dpmpp_2m"; None is the schedule's.
        eta: of DDIM, share of DDPM's noise that is added in a step, 0 … 1.
    """

    steps: int
    sampler: str | None = None
    eta: float = 0.0


def start(settings: Settings, schedule: Schedule, shape: tuple[int, ...], noise: Noise) -> Run:
    """Begin a run.

    Args:
        settings: the request's.
        schedule: the model's.
        shape: of the sample, [C, ...].
        noise: gives standard normal noise, float32 of that shape, of a stream: stream 0 is where
            the run starts, stream n + 1 is added in step n.

    Raises:
        ValueError: an unknown sampler, one that can't run this model, or a number of steps or an
            eta that it can't take.
    """
    sampler = settings.sampler or schedule.sampler
    times = schedule.timesteps(sampler, settings.steps)
    if not 0 <= settings.eta <= 1:
        raise ValueError(f"eta must be 0 … 1, not {settings.eta}")
    if settings.eta and sampler != "ddim":
        raise ValueError(f"{sampler} has no eta: leave it 0, or choose ddim")
    return RUNS[sampler](schedule, times, noise, shape, settings.eta)


class Run(ABC):
    """One sample's way from noise to image.

    Attributes:
        calls: calls of the network in all; PLMS needs one more than it has steps.
        sample: the current state, float32 [C, ...]; the result once `finished`.
    """

    def __init__(
        self,
        schedule: Schedule,
        times: NDArray[np.float64],
        noise: Noise,
        shape: tuple[int, ...],
        eta: float,
    ) -> None:
        self._schedule, self._noise, self._eta = schedule, noise, eta
        self._times = self._visits(times)
        self._stride = schedule.train_steps // len(times)
        self._call = 0
        self._clean: Array | None = None
        self._shape = shape
        self.calls = len(self._times)
        self.sample = self._first(noise(0))
        if self.sample.shape != shape:
            raise ValueError(f"noise of shape {self.sample.shape} for samples of {shape}")

    @property
    def finished(self) -> bool:
        """Whether `sample` is the result."""
        return self._call == self.calls

    @property
    def preview(self) -> Array:
        """The clean sample that the last call predicted, float32 [C, ...]; at first, the noise."""
        return self.sample if self._clean is None else self._clean

    def row(self) -> tuple[Array, float]:
        """The network's next input, float32 [C, ...], and its timestep; changes nothing.

        Raises:
            ValueError: the run is finished.
        """
        if self.finished:
            raise ValueError("the run is finished: its result is in `sample`")
        return self._scaled(), self._times[self._call] * self._schedule.timestep_scale

    def advance(self, prediction: NDArray[Any]) -> None:
        """Take the step that the network's answer to :meth:`row` allows.

        Args:
            prediction: float [C, ...], or [2C, ...] from a network with learned variance.

        Raises:
            ValueError: another shape, or the run is finished; nothing has changed then.
        """
        if self.finished:
            raise ValueError("the run is finished: its result is in `sample`")
        channels, *size = self._shape
        learned = self._schedule.variance == "learned_range"
        expected = (2 * channels if learned else channels, *size)
        if prediction.shape != expected:
            raise ValueError(f"prediction of shape {prediction.shape}, expected {expected}")
        prediction = prediction.astype(np.float32, copy=False)
        self.sample = self._step(prediction[:channels], prediction[channels:])
        self._call += 1

    @abstractmethod
    def _step(self, prediction: Array, variance: Array) -> Array:
        """The next state; `variance` is empty unless it is learned."""

    def _visits(self, times: NDArray[np.float64]) -> list[float]:
        return [float(time) for time in times]

    def _first(self, noise: Array) -> Array:
        return noise.astype(np.float32)  # a copy: the caller may keep the noise

    def _scaled(self) -> Array:
        return self.sample

    def _read(self, prediction: Array, sample: Array, alpha_bar: float) -> tuple[Array, Array]:
        """The clean sample and the noise that a prediction means, at a share of variance ᾱ."""
        alpha, sigma = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        if self._schedule.prediction == "epsilon":
            return (sample - sigma * prediction) / alpha, prediction
        if self._schedule.prediction == "v_prediction":
            return alpha * sample - sigma * prediction, alpha * prediction + sigma * sample
        return prediction, (sample - alpha * prediction) / sigma

    def _alpha_bar(self, time: float, final: float = 1.0) -> float:
        return float(self._schedule.alpha_bars[int(time)]) if time >= 0 else final

    @property
    def _next_visit(self) -> float:
        return self._times[self._call + 1] if self._call + 1 < self.calls else -1

    def _clip(self, clean: Array) -> Array:
        if self._schedule.clip_sample is False:
            return clean
        bound = self._schedule.clip_range
        return np.clip(clean, -bound, bound)


class _DDPM(Run):
    def _step(self, prediction: Array, variance: Array) -> Array:
        time = self._times[self._call]
        here, after = self._alpha_bar(time), self._alpha_bar(self._next_visit)
        alpha = here / after
        beta = 1 - alpha
        clean, _ = self._read(prediction, self.sample, here)
        self._clean = clean = self._clip(clean)
        mean = (math.sqrt(after) * beta / (1 - here)) * clean
        mean = mean + (math.sqrt(alpha) * (1 - after) / (1 - here)) * self.sample
        if time == 0:
            return mean
        return mean + self._deviation(here, after, beta, variance) * self._noise(self._call + 1)

    def _deviation(self, here: float, after: float, beta: float, variance: Array) -> float | Array:
        if self._schedule.variance == "fixed_large":
            return math.sqrt(beta)
        posterior = max((1 - after) / (1 - here) * beta, TINY_VARIANCE)
        if self._schedule.variance == "fixed_small":
            return math.sqrt(posterior)
        # In float64, where exp's last bits, which differ between processors, are rounded away.
        share = (variance.astype(np.float64) + 1) / 2
        logarithm = share * math.log(beta) + (1 - share) * math.log(posterior)
        deviation: Array = np.exp(0.5 * logarithm).astype(np.float32)
        return deviation


class _DDIM(Run):
    def _step(self, prediction: Array, variance: Array) -> Array:
        time = self._times[self._call]
        here, after = self._alpha_bar(time), self._after(time)
        clean, noise = self._read(prediction, self.sample, here)
        self._clean = clean = self._clip(clean)
        if self._schedule.clip_noise:
            noise = (self.sample - math.sqrt(here) * clean) / math.sqrt(1 - here)
        added = self._eta**2 * (1 - after) / (1 - here) * (1 - here / after)
        kept = math.sqrt(max(1 - after - added, 0))
        sample = math.sqrt(after) * clean + kept * noise
        if added > 0:
            sample = sample + math.sqrt(added) * self._noise(self._call + 1)
        return sample

    def _after(self, time: float) -> float:
        if self._schedule.spacing == "guided_diffusion":
            return self._alpha_bar(self._next_visit)
        # diffusers goes one stride back, which with a rounded spacing is not the next timestep.
        one = self._schedule.final_alpha_one is not False
        return self._alpha_bar(time - self._stride, 1.0 if one else self._alpha_bar(0))


class _PLMS(Run):
    """The second timestep is visited twice: its first visit corrects the first step (Heun)."""

    def _visits(self, times: NDArray[np.float64]) -> list[float]:
        self._outputs: list[Array] = []
        self._before: Array | None = None
        visits = super()._visits(times)
        return [*visits[:2], *visits[1:]]

    def _step(self, prediction: Array, variance: Array) -> Array:
        time, sample = self._times[self._call], self.sample
        after = time - self._stride
        outputs = self._outputs
        if self._call == 1:
            assert self._before is not None
            time, after, sample = time + self._stride, time, self._before
            mixed = (prediction + outputs[-1]) / 2
        else:
            self._before = sample
            self._outputs = outputs = [*outputs[-3:], prediction]
            mixed = _adams_bashforth(outputs)
        here = self._alpha_bar(time)
        last = 1.0 if self._schedule.final_alpha_one else self._alpha_bar(0)
        there = self._alpha_bar(after, last)
        self._clean, noise = self._read(mixed, sample, here)
        # Equation 11 of the paper, whose denominator does not vanish where both shares are near 1.
        divisor = here * math.sqrt(1 - there) + math.sqrt(here * (1 - here) * there)
        return math.sqrt(there / here) * sample - ((there - here) / divisor) * noise


def _adams_bashforth(outputs: list[Array]) -> Array:
    *weights, divisor = ADAMS_BASHFORTH[len(outputs) - 1]
    mixed: Array = np.zeros_like(outputs[0])
    for weight, output in zip(weights, reversed(outputs), strict=True):
        mixed += weight * output
    mixed /= divisor
    return mixed


class _Sigmas(Run):
    """A run along noise levels σ, the last of which may be 0."""

    def _visits(self, times: NDArray[np.float64]) -> list[float]:
        table = self._schedule.sigmas
        levels = np.interp(times, np.arange(len(table)), table)
        last = 0.0 if self._schedule.final_sigma_zero else table[0]
        self._levels = [float(level) for level in (*levels, last)]
        return super()._visits(times)


class _Euler(_Sigmas):
    """Its state is the clean sample plus σ times noise; the network sees it at unit variance."""

    def _first(self, noise: Array) -> Array:
        largest = max(self._levels)
        spacing = self._schedule.spacing or "linspace"
        scale = math.hypot(largest, 1) if spacing == "leading" else largest
        return scale * noise.astype(np.float32)

    def _scaled(self) -> Array:
        return self.sample / math.hypot(self._levels[self._call], 1)

    def _step(self, prediction: Array, variance: Array) -> Array:
        level, after = self._levels[self._call : self._call + 2]
        if self._schedule.prediction == "epsilon":
            clean = self.sample - level * prediction
        elif self._schedule.prediction == "v_prediction":
            size = level**2 + 1
            clean = self.sample / size - (level / math.sqrt(size)) * prediction
        else:
            clean = prediction
        self._clean = clean
        # Never the difference of sample and clean sample: σ may begin at thousands, where float32
        # would leave four digits of it.
        if self._schedule.prediction == "epsilon":
            return self.sample + (after - level) * prediction
        return (after / level) * self.sample + (1 - after / level) * clean


class _DPMSolver(_Sigmas):
    """Second order from the step before, in the predicted clean sample."""

    def _step(self, prediction: Array, variance: Array) -> Array:
        level, after = self._levels[self._call : self._call + 2]
        alpha, alpha_after = 1 / math.hypot(level, 1), 1 / math.hypot(after, 1)
        clean, _ = self._read(prediction, self.sample, alpha**2)
        last, self._clean = self._clean, clean
        data = clean
        if last is not None and not self._ends_in_first_order:
            # log σ stands for the paper's -λ, and σ's quotient for exp(-h): no infinity at σ = 0.
            step = math.log(level / after)
            step_before = math.log(self._levels[self._call - 1] / level)
            data = clean + (0.5 * step / step_before) * (clean - last)
        kept = (after * alpha_after) / (level * alpha)
        return kept * self.sample + (alpha_after * (1 - after / level)) * data

    @property
    def _ends_in_first_order(self) -> bool:
        schedule = self._schedule
        short = schedule.lower_order_final and self.calls < SHORT
        always = schedule.euler_at_final or schedule.final_sigma_zero
        return self._call == self.calls - 1 and (short or always)


RUNS: dict[str, type[Run]] = {
    "ddpm": _DDPM, "ddim": _DDIM, "plms": _PLMS, "euler": _Euler, "dpmpp_2m": _DPMSolver
}  # fmt: skip
