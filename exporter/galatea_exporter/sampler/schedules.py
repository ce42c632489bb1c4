"""Noise schedules of diffusion models: how much noise a timestep has, and which ones are visited.

Written from Ho et al. 2020 (DDPM, linear betas), Rombach et al. 2022 (scaled linear), Nichol and
Dhariwal 2021 (cosine, respacing) and Lin et al. 2023 (zero terminal SNR, spacings). Where the
papers leave a choice, this follows diffusers' schedulers, and guided-diffusion for its own models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

SAMPLERS = ("ddpm", "ddim", "plms", "euler", "dpmpp_2m")
MAX_BETA = 0.999  # of the cosine schedule: its last one would be 1
SMALLEST_ALPHA_BAR = 2.0**-24  # instead of the 0 of zero terminal SNR, where sigma is infinite


@dataclass(frozen=True)
class Schedule:
    """What training fixed about the noise of a diffusion model.

    Attributes:
        train_steps: number of timesteps T of the training.
        betas: "linear", "scaled_linear" or "squaredcos_cap_v2" (cosine).
        beta_start, beta_end: bounds of the linear schedules.
        trained_betas: the T betas themselves; they replace the four above.
        zero_terminal_snr: whether the last timestep is rescaled to pure noise.
        prediction: what the network returns: "epsilon", "v_prediction" or "sample".
        spacing: which timesteps are visited: "leading", "linspace" or "trailing", or
            "guided_diffusion" for that repository's respacing. None is the sampler's own default.
        steps_offset: added to the timesteps of the leading spacing.
        clip_sample: whether DDPM and DDIM clip the predicted sample; None is yes, as in diffusers.
        clip_range: to this magnitude.
        clip_noise: whether DDIM derives the noise anew from the clipped sample, as
            guided-diffusion does and diffusers does not.
        final_alpha_one: whether what follows the last timestep has no noise at all, or that of
            timestep 0. None is the sampler's default: yes in DDIM, no in PLMS.
        final_sigma_zero: the same for Euler and DPM-Solver++.
        variance: of DDPM: "fixed_small", "fixed_large", or "learned_range", where the network
            returns twice the channels.
        lower_order_final, euler_at_final: whether DPM-Solver++ ends in a first-order step: below
            15 steps, always.
        timestep_scale: the network is told the timestep times this.
        sampler: the one that the model came with.
    """

    train_steps: int = 1000
    betas: str = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    trained_betas: tuple[float, ...] | None = None
    zero_terminal_snr: bool = False
    prediction: str = "epsilon"
    spacing: str | None = None
    steps_offset: int = 0
    clip_sample: bool | None = None
    clip_range: float = 1.0
    clip_noise: bool = False
    final_alpha_one: bool | None = None
    final_sigma_zero: bool = True
    variance: str = "fixed_small"
    lower_order_final: bool = True
    euler_at_final: bool = False
    timestep_scale: float = 1.0
    sampler: str = "ddpm"

    def check(self, sampler: str) -> None:
        """Whether this sampler can run the model.

        Raises:
            ValueError: it can't; the text says why and what can.
        """
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler {sampler!r} is unknown: choose one of {', '.join(SAMPLERS)}")
        if sampler == "plms" and self.zero_terminal_snr:
            raise ValueError("PLMS does not take zero terminal SNR: choose ddim or ddpm")
        if sampler == "plms" and self.prediction == "sample":
            raise ValueError("PLMS does not take sample prediction: choose ddim or ddpm")
        noiseless = self.zero_terminal_snr and self.prediction == "epsilon"
        if noiseless and sampler in ("ddpm", "ddim"):
            raise ValueError(
                "with zero terminal SNR the first epsilon says nothing of the sample: "
                "choose euler or dpmpp_2m, or a model with v-prediction"
            )

    @cached_property
    def alpha_bars(self) -> NDArray[np.float64]:
        """Share ᾱ of the clean sample's variance at each timestep, float64 [T], descending."""
        alpha_bars: NDArray[np.float64] = np.cumprod(1 - self._betas())
        if self.zero_terminal_snr:
            roots = np.sqrt(alpha_bars)
            first, last = roots[0], roots[-1]
            alpha_bars = ((roots - last) * first / (first - last)) ** 2
        alpha_bars.flags.writeable = False
        return alpha_bars

    def _betas(self) -> NDArray[np.float64]:
        if self.trained_betas is not None:
            if len(self.trained_betas) != self.train_steps:
                raise ValueError(
                    f"{len(self.trained_betas)} trained betas for {self.train_steps} timesteps"
                )
            return np.array(self.trained_betas)
        if self.betas == "linear":
            return np.linspace(self.beta_start, self.beta_end, self.train_steps)
        if self.betas == "scaled_linear":
            roots = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.train_steps)
            squares: NDArray[np.float64] = roots**2
            return squares
        share = np.arange(self.train_steps + 1) / self.train_steps
        wanted = np.cos((share + 0.008) / 1.008 * np.pi / 2) ** 2
        betas: NDArray[np.float64] = np.minimum(1 - wanted[1:] / wanted[:-1], MAX_BETA)
        return betas

    @cached_property
    def sigmas(self) -> NDArray[np.float64]:
        """Noise beside an unscaled sample at each timestep, sqrt((1 - ᾱ) / ᾱ): float64 [T]."""
        alpha_bars = self.alpha_bars
        if self.zero_terminal_snr:
            alpha_bars = np.maximum(alpha_bars, SMALLEST_ALPHA_BAR)
        sigmas: NDArray[np.float64] = np.sqrt((1 - alpha_bars) / alpha_bars)
        sigmas.flags.writeable = False
        return sigmas

    def timesteps(self, sampler: str, steps: int) -> NDArray[np.float64]:
        """The timesteps that a sampler visits, descending: float64 [steps], whole but in Euler.

        Raises:
            ValueError: the sampler is unknown, or that many steps can't be had.
        """
        self.check(sampler)
        if not 1 <= steps <= self.train_steps:
            raise ValueError(f"steps must be 1 … {self.train_steps}, not {steps}")
        chosen = self._spaced(sampler, steps)
        if chosen[0] > self.train_steps - 1 or chosen[-1] < 0 or (np.diff(chosen) >= 0).any():
            raise ValueError(
                f"{sampler} can't take {steps} different steps of {self.train_steps}: take fewer"
            )
        return chosen

    def _spaced(self, sampler: str, steps: int) -> NDArray[np.float64]:
        total, spacing = self.train_steps, self.spacing
        if spacing == "guided_diffusion":
            if sampler == "ddpm":
                return _fractional(total, steps)
            if sampler == "ddim":
                return _strided(total, steps)
            spacing = None
        spacing = spacing or ("linspace" if sampler in ("euler", "dpmpp_2m") else "leading")
        # DPM-Solver++ does not visit the last one: it spaces one more and leaves that out.
        extra = 1 if sampler == "dpmpp_2m" else 0
        if spacing == "leading":
            stride = total // (steps + extra)
            first = np.arange(steps + extra, dtype=np.float64) * stride + self.steps_offset
            return first[::-1][:steps]
        if spacing == "trailing":
            # Cut, because rounding errors may add a timestep past the end.
            ends: NDArray[np.float64] = np.round(np.arange(total, 0, -total / steps)[:steps])
            return ends - 1
        even = np.linspace(0, total - 1, steps + extra)[::-1][:steps]
        if sampler == "euler":  # the network is told fractions, in float32
            return even.astype(np.float32).astype(np.float64)
        return even.round()


def _fractional(total: int, steps: int) -> NDArray[np.float64]:
    """guided-diffusion's respacing for DDPM: fractional strides, summed, then rounded."""
    stride = (total - 1) / (steps - 1) if steps > 1 else 1.0
    # The sum, not the product: at halves, the last bit decides which way the rounding goes.
    visited: NDArray[np.float64] = np.cumsum([0.0, *[stride] * (steps - 1)])
    return visited.round()[::-1]


def _strided(total: int, steps: int) -> NDArray[np.float64]:
    """guided-diffusion's respacing for DDIM: the smallest integer stride with that many steps."""
    stride = next((s for s in range(1, total + 1) if math.ceil(total / s) <= steps), total)
    count = math.ceil(total / stride)
    if count != steps:
        raise ValueError(
            f"DDIM's integer strides through {total} timesteps don't give {steps} steps: "
            f"take {count} or {math.ceil(total / (stride - 1))}"
        )
    return np.arange(0.0, total, stride)[::-1]
