"""Samplers equal diffusers' schedulers, step by step, and guided-diffusion's loops."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from galatea.errors import ExportError
from galatea_exporter.layers.guided_diffusion import load_unet
from galatea_exporter.layers.guided_layout import GuidedOptions
from galatea_exporter.sampler import samplers, schedules
from galatea_exporter.sampler.samplers import Run, Settings, start
from galatea_exporter.sampler.schedules import SAMPLERS, Schedule
from galatea_exporter.scheduler_config import CLASSES, guided_schedule, read_schedule
from references.make_sampler_references import SHAPE, Case, predict
from support import ROOT

Array = NDArray[np.float32]

REFERENCES = ROOT / "tests" / "data" / "samplers.npz"
SD = {
    "_class_name": "PNDMScheduler", "skip_prk_steps": True, "steps_offset": 1,
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
}  # fmt: skip

TOLERANCE = 1e-5  # of the largest value
# diffusers steps along the difference of two large numbers in float32; against float64 we are
# within 1e-6 (below).
COARSE = {"euler zero snr": 2e-5, "euler cosine to smallest sigma": 1e-3}


@cache
def references() -> dict[str, Any]:
    with np.load(REFERENCES) as file:
        return dict(file)


def cases() -> list[Case]:
    with np.load(REFERENCES) as file:
        return [Case(**case) for case in json.loads(str(file["cases"]))]


def noise(stream: int) -> Array:
    array: Array = references()["noises"][stream]
    return array


def run(schedule: Schedule, settings: Settings) -> tuple[Run, list[Array]]:
    """A run to its end with the formula as network, and the states on the way."""
    begun, states = start(settings, schedule, SHAPE, noise), []
    channels = SHAPE[0] * (2 if schedule.variance == "learned_range" else 1)
    while not begun.finished:
        begun.advance(predict(*begun.row(), channels))
        states.append(begun.sample)
    return begun, states


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.key)
def test_every_state_equals_that_of_diffusers(case: Case) -> None:
    schedule = read_schedule(case.config)
    if case.guided:
        schedule = guided_schedule(**case.guided)
    settings = Settings(case.steps, CLASSES[case.config["_class_name"]], case.eta)
    expected = references()[case.key]
    begun, states = run(schedule, settings)
    assert begun.calls == len(expected) == len(states)
    tolerance = COARSE.get(case.name, TOLERANCE)
    for state, reference in zip(states, expected, strict=True):
        assert state.dtype == np.float32
        assert np.abs(state - reference).max() <= tolerance * np.abs(reference).max()


@pytest.mark.parametrize("case", [case for case in cases() if case.name in COARSE], ids=str)
def test_euler_keeps_its_digits_where_sigma_begins_at_thousands(case: Case) -> None:
    schedule = read_schedule(case.config)
    times = schedule.timesteps("euler", case.steps)
    levels = np.interp(times, np.arange(1000), schedule.sigmas)
    assert levels[0] > 4000
    last = 0.0 if schedule.final_sigma_zero else schedule.sigmas[0]
    state = levels[0] * noise(0).astype(np.float64)
    for time, level, after in zip(times, levels, [*levels[1:], last], strict=True):
        size = np.sqrt(level**2 + 1)
        velocity = predict((state / size).astype(np.float32), float(time), SHAPE[0])
        clean = state / size**2 - level / size * velocity
        state += (after - level) / level * (state - clean)
    found = run(schedule, Settings(case.steps))[0].sample
    assert np.abs(found - state).max() <= 1e-6 * np.abs(state).max()


def test_there_are_references_of_every_sampler_at_6_20_and_50_steps_of_epsilon_and_v() -> None:
    known = {case.key for case in cases()}
    for sampler in ("ddpm", "ddim", "plms", "euler", "dpm"):
        for prediction in ("epsilon", "v_prediction"):
            assert {f"{sampler} {prediction}, {n} steps" for n in (6, 20, 50)} <= known


def test_guided_diffusion_is_respaced_as_upstream(golden: Path) -> None:
    inputs = np.load(golden / "gdiffusion" / "inputs.npz")
    expected = np.load(golden / "gdiffusion" / "expected.npz")
    schedule = guided_schedule(4000)
    for sampler, name in (("ddpm", "p_sample"), ("ddim", "ddim")):
        times = schedule.timesteps(sampler, 10)[::-1].astype(int)
        assert times.tolist() == inputs[f"{name}_timestep_map"].tolist()
        shares = expected[f"alphas_cumprod_{name}"]
        np.testing.assert_allclose(schedule.alpha_bars[times], shares, rtol=1e-12)


@pytest.mark.parametrize(("sampler", "name"), [("ddpm", "p_sample_loop"), ("ddim", "ddim_eta0")])
def test_loops_of_guided_diffusion_end_in_the_golden_samples(
    golden: Path, sampler: str, name: str
) -> None:
    folder = golden / "gdiffusion"
    inputs, expected = (np.load(folder / f"{file}.npz") for file in ("inputs", "expected"))
    path = folder / "model030000.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = load_unet(state, GuidedOptions(image_size=32), path, "guided_diffusion").eval()

    def upstream(stream: int) -> Array:
        steps = inputs["step_noises_in_call_order"]
        drawn: Array = inputs["x_T"][0] if stream == 0 else steps[stream - 1, 0]
        return drawn

    begun = start(Settings(10, sampler), guided_schedule(4000), (5, 32, 32), upstream)
    while not begun.finished:
        x, time = begun.row()
        with torch.no_grad():
            made = network(torch.from_numpy(x)[None], torch.tensor([time]))
        begun.advance(made[0].numpy())
    assert np.abs(begun.sample - expected[name][0]).max() <= 1e-4


def test_monai_is_spaced_as_upstream(golden: Path) -> None:
    told = json.loads((golden / "monai_ldm_cxr" / "meta.json").read_text())
    expected = np.load(golden / "monai_ldm_cxr" / "expected.npz")
    config = {"_class_name": "DDIMScheduler", **told["constructor_args"]["scheduler"]}
    schedule = read_schedule(config)
    assert schedule.prediction == "v_prediction"
    assert schedule.timesteps("ddim", 6).tolist() == expected["timesteps"].tolist()
    np.testing.assert_allclose(schedule.alpha_bars, expected["alphas_cumprod"], rtol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_known_clean_sample_is_found_by_every_sampler(sampler: str) -> None:
    target = noise(3)
    schedule = read_schedule({**SD, "clip_sample": False, "set_alpha_to_one": True}, sampler)
    begun = start(Settings(30), schedule, SHAPE, noise)
    while not begun.finished:
        seen, time = begun.row()
        share = np.interp(time, np.arange(1000), schedule.alpha_bars)
        begun.advance((seen - np.sqrt(share) * target) / np.sqrt(1 - share))
        np.testing.assert_allclose(begun.preview, target, atol=0.02)
    np.testing.assert_allclose(begun.sample, target, atol=0.02)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_row_can_be_read_twice_and_a_bad_prediction_changes_nothing(sampler: str) -> None:
    begun = start(Settings(5, sampler), read_schedule(SD), SHAPE, noise)
    first, time = begun.row()
    before = first.tobytes()
    with pytest.raises(ValueError, match=r"prediction of shape \(1, 2, 3\), expected \(2, 2, 3\)"):
        begun.advance(first[:1])
    assert (begun.row()[0].tobytes(), begun.row()[1]) == (before, time)
    begun.advance(predict(first, time, SHAPE[0]))
    assert first.tobytes() == before


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_equal_noise_gives_equal_bits(sampler: str) -> None:
    made = [run(read_schedule(SD), Settings(12, sampler))[0].sample.tobytes() for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize(("sampler", "streams"), [("ddpm", 9), ("ddim", 1), ("euler", 1)])
def test_each_step_draws_from_its_own_stream(sampler: str, streams: int) -> None:
    drawn: list[int] = []

    def listen(stream: int) -> Array:
        drawn.append(stream)
        return noise(stream)

    schedule = read_schedule({"_class_name": "DDPMScheduler"})
    begun = start(Settings(9, sampler), schedule, SHAPE, listen)
    while not begun.finished:
        begun.advance(predict(*begun.row(), SHAPE[0]))
    assert drawn == list(range(streams))  # the last step of DDPM ends at no noise


def test_plms_makes_one_call_more_than_it_has_steps() -> None:
    begun, _ = run(read_schedule(SD), Settings(6))
    assert begun.calls == 7
    with pytest.raises(ValueError, match="finished"):
        begun.row()
    with pytest.raises(ValueError, match="finished"):
        begun.advance(begun.sample)


def test_a_single_step_is_taken() -> None:
    for sampler in SAMPLERS:
        begun, states = run(
            read_schedule({**SD, "timestep_spacing": "trailing"}), Settings(1, sampler)
        )
        assert begun.calls == 1
        assert np.isfinite(states[0]).all()


def test_rescaled_timesteps_tell_the_network_thousandths() -> None:
    schedule = guided_schedule(4000, rescale_timesteps=True)
    assert start(Settings(10), schedule, SHAPE, noise).row()[1] == pytest.approx(999.75)


def test_what_a_file_leaves_open_is_up_to_the_sampler() -> None:
    schedule = read_schedule(SD)
    assert schedule.timesteps("plms", 5).tolist() == [801, 601, 401, 201, 1]
    assert schedule.timesteps("dpmpp_2m", 5).tolist() == [999, 799, 599, 400, 200]
    leading = replace(schedule, spacing="leading")
    assert leading.timesteps("dpmpp_2m", 5).tolist() == [831, 665, 499, 333, 167]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "LMSDiscreteScheduler"}, "what the scheduler LMSDiscreteScheduler does"),
        ({"_class_name": "PNDMScheduler"}, "skip_prk_steps False is not supported, but True"),
        ({**SD, "beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid' .*scaled_linear"),
        ({**SD, "beta_schedule": ["linear"]}, "beta_schedule"),
        ({**SD, "beta_end": "much"}, "much"),
        ({**SD, "prediction_type": "flow_prediction"}, "flow_prediction"),
        ({**SD, "prediction_type": "sample"}, "choose ddim or ddpm"),
        ({**SD, "rescale_betas_zero_snr": True}, "choose ddim or ddpm"),
        ({**SD, "thresholding": True}, "thresholding True"),
        ({**SD, "timestep_spacing": "even"}, "timestep_spacing 'even'"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, "variance_type 'learned'"),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}, "use_karras_sigmas"),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}, "solver_order 3"),
        (
            {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True},
            "choose euler or dpmpp_2m",
        ),
    ],
)
def test_what_is_not_supported_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        read_schedule(config)


def test_a_sampler_can_be_named_for_a_file_of_an_unsupported_one() -> None:
    config = {**SD, "_class_name": "LMSDiscreteScheduler"}
    assert read_schedule(config, "euler").sampler == "euler"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(0), "steps must be 1 … 1000, not 0"),
        (Settings(1001), "steps must be 1 … 1000, not 1001"),
        (Settings(1000), "plms can't take 1000 different steps of 1000: take fewer"),
        (Settings(1000, "dpmpp_2m"), "dpmpp_2m can't take 1000 different steps"),
        (Settings(9, "heun"), "sampler 'heun'"),
        (Settings(9, "ddim", 1.5), "eta must be 0 … 1"),
        (Settings(9, "euler", 0.5), "euler has no eta"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(settings: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        start(settings, read_schedule(SD), SHAPE, noise)


def test_strides_of_guided_diffusion_that_do_not_exist_are_refused_with_the_nearest() -> None:
    schedule = guided_schedule(1000)
    with pytest.raises(ValueError, match="don't give 300 steps: take 250 or 334"):
        schedule.timesteps("ddim", 300)
    for steps in (250, 334):
        assert len(schedule.timesteps("ddim", steps)) == steps


def test_files_run_alone_beside_each_other(tmp_path: Path) -> None:
    for module in (schedules, samplers):
        source = Path(str(module.__file__))
        (tmp_path / source.name).write_bytes(source.read_bytes())
    program = (
        "import sys, numpy, schedules, samplers\n"
        "run = samplers.start(samplers.Settings(4), schedules.Schedule(), (1, 2, 2),"
        " lambda stream: numpy.ones((1, 2, 2), numpy.float32))\n"
        "assert run.row()[1] == 750.0\n"
        "assert not {'torch', 'galatea_exporter', 'onnxruntime'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
