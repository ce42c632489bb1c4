"""Trajectories of diffusers' schedulers, the references of ``tests/test_samplers.py``.

Run in an environment with diffusers and torch; nothing else here needs them:

    PYTHONPATH=tests python tests/references/make_sampler_references.py tests/data/samplers.npz

The network is a formula, so that the file holds everything that a comparison needs: the cases as
JSON, the noise of each stream, and the state after each step.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SHAPE = (2, 2, 3)
LATENT: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
PIXELS: dict[str, Any] = {"beta_schedule": "squaredcos_cap_v2"}
STEPS = (6, 20, 50)


@dataclass(frozen=True)
class Case:
    """One trajectory.

    Attributes:
        name: what it is about.
        config: of the scheduler, with its ``_class_name``.
        steps: as given to ``set_timesteps``.
        eta: of DDIM.
        guided: arguments of our guided-diffusion schedule; then `timesteps` are its visits.
        fine: give the scheduler its table of ᾱ in float64. Its own float32 has 1 - ᾱ of the first
            timesteps to three or four digits, and a learned variance is made of its logarithm.
    """

    name: str
    config: dict[str, Any]
    steps: int
    eta: float = 0.0
    guided: dict[str, Any] = field(default_factory=dict)
    timesteps: list[int] = field(default_factory=list)
    fine: bool = False

    @property
    def key(self) -> str:
        """Its array in the file."""
        return f"{self.name}, {self.steps} steps"


def predict(x: Array, time: float, channels: int) -> Array:
    """The network: a smooth function of state and time, another one for each element."""
    where = np.linspace(0.0, 3.0, channels * x[0].size).reshape(channels, *x.shape[1:])
    wide = np.concatenate([x, x[::-1]])[:channels].astype(np.float64)
    made = np.tanh((0.4 + 0.2 * np.sin(5 * where)) * wide + np.cos(7 * where + time / 400))
    answer: Array = made.astype(np.float32)
    return answer


def cases() -> list[Case]:
    """All that are compared."""
    told: list[tuple[str, dict[str, Any], float]] = []

    def add(name: str, scheduler: str, /, **config: Any) -> None:
        eta = config.pop("eta", 0.0)
        told.append((name, {"_class_name": scheduler, **config}, eta))

    ddpm, ddim, pndm = "DDPMScheduler", "DDIMScheduler", "PNDMScheduler"
    euler, solver = "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"
    bare: dict[str, Any] = {"clip_sample": False}
    v: dict[str, Any] = {"prediction_type": "v_prediction"}
    zero_snr: dict[str, Any] = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    for prediction in ("epsilon", "v_prediction", "sample"):
        kind: dict[str, Any] = {"prediction_type": prediction}
        add(f"ddpm {prediction}", ddpm, **LATENT, **bare, **kind)
        add(f"ddim {prediction}", ddim, **LATENT, **bare, **kind)
        add(f"euler {prediction}", euler, **LATENT, **kind)
        add(f"dpm {prediction}", solver, **LATENT, **kind)
        if prediction != "sample":
            add(f"plms {prediction}", pndm, **LATENT, **kind, skip_prk_steps=True, steps_offset=1)
    for spacing in ("leading", "linspace", "trailing"):
        spaced: dict[str, Any] = {"timestep_spacing": spacing, "steps_offset": 1}
        add(f"ddpm {spacing}", ddpm, **spaced)
        add(f"ddim {spacing}", ddim, **LATENT, **bare, **spaced, set_alpha_to_one=False)
        add(f"euler {spacing}", euler, **LATENT, **spaced)
        add(f"dpm {spacing}", solver, **LATENT, **spaced)
        if spacing != "leading":
            add(f"plms {spacing}", pndm, **LATENT, **spaced, skip_prk_steps=True)
    add("ddpm linear fixed large", ddpm, variance_type="fixed_large")
    add("ddpm cosine learned", ddpm, **PIXELS, variance_type="learned_range")
    add("ddpm cosine v range 2", ddpm, **PIXELS, **v, clip_sample_range=2.0)
    add("ddpm zero snr", ddpm, **LATENT, **v, **bare, **zero_snr)
    add("ddim eta 0.6", ddim, eta=0.6, **LATENT, **bare, set_alpha_to_one=False, steps_offset=1)
    add("ddim eta 1 linear clipped", ddim, eta=1.0)
    add("ddim cosine", ddim, **PIXELS, **v)
    add("ddim zero snr", ddim, eta=0.3, **LATENT, **v, **bare, **zero_snr)
    add("plms linear to one", pndm, skip_prk_steps=True, set_alpha_to_one=True)
    add("euler zero snr", euler, **LATENT, **v, **zero_snr)
    add("euler cosine to smallest sigma", euler, **PIXELS, **v, final_sigmas_type="sigma_min")
    add("dpm zero snr", solver, **LATENT, **v, **zero_snr)
    add("dpm to smallest sigma", solver, **LATENT, final_sigmas_type="sigma_min")
    add("dpm cosine euler at final", solver, **PIXELS, **v, euler_at_final=True)
    made = [
        Case(name, config, steps, eta, fine="learned" in name)
        for name, config, eta in told
        for steps in STEPS
        if steps != 50 or any(word in name for word in ("epsilon", "v_pred", "learned", "eta"))
    ]
    return [*made, *_guided()]


def _guided() -> list[Case]:
    """Visits as in guided-diffusion: sums of fractional strides, and an integer stride."""
    linear = {"num_train_timesteps": 4000, "beta_start": 2.5e-5, "beta_end": 0.005}
    visits = [0, 444, 889, 1333, 1777, 2222, 2666, 3110, 3555, 3999][::-1]
    strided = list(range(0, 4000, 400))[::-1]
    large = {"_class_name": "DDPMScheduler", **linear, "variance_type": "fixed_large"}
    ranged = {"_class_name": "DDPMScheduler", **linear, "variance_type": "learned_range"}
    ddim = {"_class_name": "DDIMScheduler", **linear}
    asked = {"steps": 4000}
    learning = {**asked, "learn_sigma": True}
    return [
        Case("guided fixed large", large, 10, 0.0, asked, visits, fine=True),
        Case("guided learned", ranged, 10, 0.0, learning, visits, fine=True),
        Case("guided ddim", ddim, 10, 0.0, asked, strided, fine=True),
        Case("guided ddim eta 0.5", ddim, 10, 0.5, asked, strided, fine=True),
    ]


def _trajectory(case: Case, noises: Array) -> Array:
    torch, diffusers = importlib.import_module("torch"), importlib.import_module("diffusers")
    config = dict(case.config)
    name = config.pop("_class_name")
    scheduler = getattr(diffusers, name)(**config)
    if case.fine:
        scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), dim=0)
    ddim, ddpm = name == "DDIMScheduler", name == "DDPMScheduler"
    call = 0
    if ddpm:  # its step takes no noise: it draws here
        module = importlib.import_module("diffusers.schedulers.scheduling_ddpm")
        vars(module)["randn_tensor"] = lambda *_, **__: torch.from_numpy(noises[call + 1])[None]
    if case.timesteps and ddpm:
        scheduler.set_timesteps(timesteps=case.timesteps)
    else:
        scheduler.set_timesteps(case.steps)
    if case.timesteps:
        assert scheduler.timesteps.tolist() == case.timesteps
    learned = config.get("variance_type") == "learned_range"
    state = torch.from_numpy(noises[0])[None] * scheduler.init_noise_sigma
    states = []
    for call, time in enumerate(scheduler.timesteps):  # read by the drawing above
        shown = scheduler.scale_model_input(state, time)[0].numpy()
        made = torch.from_numpy(predict(shown, float(time), SHAPE[0] * (1 + learned)))[None]
        more: dict[str, Any] = {}
        if ddim:
            more = {"eta": case.eta, "use_clipped_model_output": bool(case.guided)}
            more["variance_noise"] = torch.from_numpy(noises[call + 1])[None]
        state = scheduler.step(made, time, state, **more).prev_sample
        state = state.float()
        states.append(state[0].numpy())
    return np.stack(states)


def main(path: str) -> None:
    """Write the file."""
    rng = np.random.default_rng(20)
    noises = rng.standard_normal((max(STEPS) + 2, *SHAPE)).astype(np.float32)
    arrays = {case.key: _trajectory(case, noises) for case in cases()}
    told = json.dumps([asdict(case) for case in cases()])
    np.savez_compressed(path, noises=noises, cases=np.array(told), **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
