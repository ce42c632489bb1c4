"""From a scheduler's configuration to the schedule that our samplers run.

Reads diffusers' ``scheduler_config.json``, the arguments of MONAI's schedulers (which have the same
names but one) and the flags of guided-diffusion's command line. What no sampler of ours does is an
error: a sampler that ignores an option gives other images without a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from galatea.errors import ExportError
from galatea_exporter.sampler.schedules import SAMPLERS, Schedule

# diffusers' class of each sampler; the first three are MONAI's too.
CLASSES = {
    "DDPMScheduler": "ddpm",
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "plms",
    "EulerDiscreteScheduler": "euler",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
}
BETAS = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "squaredcos_cap_v2",
    "linear_beta": "linear",  # MONAI's names; its "cosine" is another one
    "scaled_linear_beta": "scaled_linear",
}
VARIANCES = {
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",  # the same numbers by way of their logarithm
    "fixed_large": "fixed_large",
    "learned_range": "learned_range",
}
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = (None, "leading", "linspace", "trailing")
FINAL_SIGMAS = {"zero": True, "sigma_min": False}

# What diffusers takes where the file is silent, of the options that have one supported value.
SILENT: Mapping[str, Any] = {
    "skip_prk_steps": False,
    "interpolation_type": "linear",
    "timestep_type": "discrete",
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "solver_type": "midpoint",
    "lambda_min_clipped": -math.inf,
}
UNSET = (None, False)
SUPPORTED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "ddpm": {},
    "ddim": {},
    "plms": {"skip_prk_steps": (True,)},  # without the Runge-Kutta start
    "euler": {
        "interpolation_type": ("linear",),
        "timestep_type": ("discrete",),
        "use_karras_sigmas": UNSET,
        "use_exponential_sigmas": UNSET,
        "use_beta_sigmas": UNSET,
    },
    "dpmpp_2m": {
        "algorithm_type": ("dpmsolver++",),
        "solver_order": (2,),
        "solver_type": ("midpoint",),
        "lambda_min_clipped": (-math.inf,),
        "use_karras_sigmas": UNSET,
        "use_exponential_sigmas": UNSET,
        "use_beta_sigmas": UNSET,
        "use_lu_lambdas": UNSET,
        "use_flow_sigmas": UNSET,
    },
}


def read_schedule(config: Mapping[str, Any], sampler: str | None = None) -> Schedule:
    """The schedule of diffusers' ``scheduler_config.json``, or of MONAI's arguments.

    What the file does not say stays open until a request names a sampler, which then has the
    default of diffusers' scheduler of that name.

    Args:
        config: the file's content; MONAI's ``schedule`` may stand for ``beta_schedule``.
        sampler: instead of that of the file's ``_class_name``, whose other options then don't
            matter.

    Raises:
        ExportError: the file asks for something that no sampler here does; the text names it.
    """
    name = str(config.get("_class_name"))
    if sampler is None and name not in CLASSES:
        raise ExportError(
            f"no sampler here does what the scheduler {name} does",
            f"name one of {', '.join(SAMPLERS)} instead",
        )
    chosen = sampler or CLASSES[name]
    supported: dict[str, tuple[Any, ...]] = {"thresholding": UNSET}
    if CLASSES.get(name) == chosen:
        supported |= SUPPORTED[chosen]
    for option, values in supported.items():
        _one_of(option, config.get(option, SILENT.get(option)), values)
    told = {key: value for key, value in config.items() if value is not None}
    betas = told.get("beta_schedule", told.get("schedule", "linear"))
    variance = told.get("variance_type", "fixed_small")
    final = told.get("final_sigmas_type", "zero")
    trained = told.get("trained_betas")
    try:
        schedule = Schedule(
            train_steps=int(told.get("num_train_timesteps", 1000)),
            betas=BETAS[_one_of("beta_schedule", betas, BETAS)],
            beta_start=float(told.get("beta_start", 1e-4)),
            beta_end=float(told.get("beta_end", 0.02)),
            trained_betas=None if trained is None else tuple(map(float, trained)),
            zero_terminal_snr=bool(told.get("rescale_betas_zero_snr", False)),
            prediction=_one_of(
                "prediction_type", told.get("prediction_type", "epsilon"), PREDICTIONS
            ),
            spacing=_one_of("timestep_spacing", told.get("timestep_spacing"), SPACINGS),
            steps_offset=int(told.get("steps_offset", 0)),
            clip_sample=told.get("clip_sample"),
            clip_range=float(told.get("clip_sample_range", 1.0)),
            final_alpha_one=told.get("set_alpha_to_one"),
            final_sigma_zero=FINAL_SIGMAS[_one_of("final_sigmas_type", final, FINAL_SIGMAS)],
            variance=VARIANCES[_one_of("variance_type", variance, VARIANCES)],
            lower_order_final=bool(told.get("lower_order_final", True)),
            euler_at_final=bool(told.get("euler_at_final", False)),
            sampler=chosen,
        )
        schedule.check(chosen)
    except (TypeError, ValueError) as error:
        raise ExportError(f"the scheduler {name}: {error}", "name another sampler") from error
    return schedule


def guided_schedule(
    steps: int = 1000,
    noise_schedule: str = "linear",
    *,
    learn_sigma: bool = False,
    sigma_small: bool = False,
    predict_xstart: bool = False,
    rescale_timesteps: bool = False,
) -> Schedule:
    """The schedule of a model of openai/guided-diffusion, by the flags of its training.

    Its linear betas are scaled so that T steps add as much noise as 1000 would.

    Raises:
        ExportError: `noise_schedule` is neither "linear" nor "cosine".
    """
    linear = _one_of("noise_schedule", noise_schedule, ("linear", "cosine")) == "linear"
    fixed = "fixed_small" if sigma_small else "fixed_large"
    return Schedule(
        train_steps=steps,
        betas="linear" if linear else "squaredcos_cap_v2",
        beta_start=1e-4 * 1000 / steps,
        beta_end=0.02 * 1000 / steps,
        prediction="sample" if predict_xstart else "epsilon",
        spacing="guided_diffusion",
        clip_noise=True,
        variance="learned_range" if learn_sigma else fixed,
        timestep_scale=1000 / steps if rescale_timesteps else 1.0,
    )


def _one_of(option: str, value: Any, supported: Any) -> Any:
    if value not in list(supported):  # a list: what is in the file may have no hash
        raise ExportError(
            f"{option} {value!r} is not supported, but {', '.join(map(str, supported))}",
            "name another sampler, or change the scheduler's configuration",
        )
    return value
