"""The UNet of guided-diffusion: every flag of its training is read, told or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from galatea.errors import ExportError, InvalidInput
from galatea_exporter.families.guided_diffusion import GuidedDiffusionOptions
from galatea_exporter.family import find_family, random_weights
from galatea_exporter.graph import NEWEST_IR, OPSET, export_stage, open_session, serialise
from galatea_exporter.layers.guided_diffusion import Attention, UNet, load_unet, unet_stage
from galatea_exporter.layers.guided_layout import GuidedOptions, Layout, Level
from galatea_exporter.parity import compare
from galatea_exporter.sampler.schedules import Schedule
from galatea_exporter.stages import StagedGenerator

PATH = Path("model030000.pt")
TOLERANCE = 1e-4
SIZE = 16

TWO = (Level(32, False), Level(64, True))
SMALL = Layout(3, 6, 32, TWO, blocks=1)
LAYOUTS = {
    "learned sigma": SMALL,
    "fixed sigma": replace(SMALL, channels_in=5, channels_out=5),
    "one level": replace(SMALL, levels=(Level(32, True),)),
    "wide at first": replace(SMALL, levels=(Level(64, True), Level(32, False))),
    "attention at the image's size": replace(SMALL, levels=(Level(32, True), Level(32, False))),
    "classes": replace(SMALL, classes=3),
    "added timestep": replace(SMALL, film=False),
    "residual resampling": replace(SMALL, resampling="residual", blocks=2),
    "residual resampling, no attention": replace(
        SMALL, resampling="residual", levels=(Level(32, False),) * 3
    ),
    "mean and repetition": replace(SMALL, resampling="pool", blocks=3),
    "brain MRI": Layout(
        5, 5, 32, tuple(Level(32 * m, m == 4) for m in (1, 1, 2, 2, 4, 4)), blocks=3
    ),
}

# What upstream's own network gives for the waves of `_waves`, at the first pixels.
UPSTREAM: dict[str, tuple[Layout, GuidedOptions, list[float]]] = {
    "residual resampling, classes, new order": (
        replace(SMALL, resampling="residual", classes=3),
        GuidedOptions(num_head_channels=16, use_new_attention_order=True),
        [1.35412, 0.50085, 0.73048, 0.68639, 1.84494, 1.77477],
    ),
    "mean and repetition, added timestep": (
        replace(SMALL, resampling="pool", film=False),
        GuidedOptions(num_heads=2),
        [2.10901, 0.80337, 0.84735, 1.4005, 2.16468, 2.35586],
    ),
    "other heads on the way up": (
        SMALL,
        GuidedOptions(num_heads=2, num_heads_upsample=8),
        [2.15063, 0.91501, 1.0701, 1.85029, 2.68011, 2.92491],
    ),
}


def _state(layout: Layout) -> dict[str, Tensor]:
    return random_weights(UNet(layout, GuidedOptions()))


def _unet(layout: Layout, **options: Any) -> UNet:
    return load_unet(_state(layout), GuidedOptions(**options), PATH, "guided_diffusion")


def _waves(shape: torch.Size | tuple[int, ...], amplitude: float) -> Tensor:
    """Values that need no generator of random numbers to be the same everywhere."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (amplitude * (count * 0.7 + count**2 * 0.013).sin()).reshape(shape).float()


@pytest.fixture(scope="module")
def golden_unet(golden: Path) -> UNet:
    state = torch.load(golden / "gdiffusion" / "model030000.pt", weights_only=True)
    return load_unet(state, GuidedOptions(num_heads=4), PATH, "guided_diffusion")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32])
def test_it_computes_what_upstream_computes_for_timesteps_of_any_type(
    golden: Path, golden_unet: UNet, dtype: torch.dtype
) -> None:
    given = np.load(golden / "gdiffusion" / "inputs.npz")
    x, t = torch.from_numpy(given["x"]), torch.from_numpy(given["t"]).to(dtype)
    with torch.no_grad():
        made = golden_unet(x, t)
        assert torch.equal(made, golden_unet(x, t[:, None]))
    expected = np.load(golden / "gdiffusion" / "expected.npz")["model_out"]
    assert np.abs(made.numpy() - expected).max() <= TOLERANCE


def test_its_graph_computes_what_upstream_computes_at_any_batch(
    golden: Path, golden_unet: UNet
) -> None:
    stage = unet_stage(golden_unet, 32, steps=4000)
    model = export_stage(stage)
    assert model.ir_version == NEWEST_IR
    assert [entry.version for entry in model.opset_import if not entry.domain] == [OPSET]
    graph = serialise(model)
    compare(stage, open_session(graph), [1, 2, 3], TOLERANCE)
    given = np.load(golden / "gdiffusion" / "inputs.npz")
    feed = {"x": given["x"], "t": given["t"].astype(np.float32)[:, None]}
    made = onnxruntime.InferenceSession(graph).run(["prediction"], feed)[0]
    expected = np.load(golden / "gdiffusion" / "expected.npz")["model_out"]
    assert np.abs(made - expected).max() <= TOLERANCE


def test_labels_residual_resampling_and_new_attention_are_exported_too() -> None:
    layout = replace(SMALL, classes=3, resampling="residual")
    unet = _unet(layout, num_head_channels=32, use_new_attention_order=True)
    stage = unet_stage(unet, SIZE)
    assert [spec.name for spec in stage.inputs] == ["x", "t", "label"]
    compare(stage, open_session(serialise(export_stage(stage))), [1, 2, 3], TOLERANCE)


@pytest.mark.parametrize("case", UPSTREAM)
def test_flags_that_leave_no_weights_mean_what_they_mean_upstream(case: str) -> None:
    layout, options, expected = UPSTREAM[case]
    state = {
        key: _waves(tensor.shape, (2 / max(1, tensor[0].numel())) ** 0.5)
        for key, tensor in UNet(layout, options).state_dict().items()
    }
    unet = load_unet(state, options, PATH, "guided_diffusion")
    x, t = _waves((2, 3, SIZE, SIZE), 1.0), torch.tensor([7, 640])
    with torch.no_grad():
        made = unet(x, t, torch.tensor([0, 2]) if layout.classes else None)
    np.testing.assert_allclose(made[:, 4, 5, 6:9].flatten(), expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", LAYOUTS)
def test_sizes_are_read_from_names_and_shapes(name: str) -> None:
    layout = LAYOUTS[name]
    assert Layout.read(_state(layout), PATH) == layout
    assert layout.learned_sigma == (name not in ("fixed sigma", "brain MRI"))


def test_each_row_has_its_own_timestep_and_label() -> None:
    unet = _unet(replace(SMALL, classes=3))
    x, t, label = torch.randn(3, 3, SIZE, SIZE), torch.tensor([0.0, 12.5, 999]), torch.arange(3)
    with torch.no_grad():
        together = unet(x, t, label)
        for i in range(3):
            row = slice(i, i + 1)
            alone = unet(x[row], t[row], label[row])
            assert (alone - together[row]).abs().max() <= TOLERANCE
            elsewhere = unet(x[row], t[row], (label[row] + 1) % 3)
            assert (alone - elsewhere).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("new_order", [False, True])
def test_attention_is_that_of_pytorch_in_either_order(new_order: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(64, GuidedOptions(num_heads=4, use_new_attention_order=new_order))
    features = torch.randn(2, 64, 4, 4)
    with torch.no_grad():
        row = features.flatten(2)
        joined = attention.qkv(attention.norm(row)).transpose(1, 2)  # [N, pixels, 3 · 64]
        shape = (3, 4, 16) if new_order else (4, 3, 16)
        parts = joined.unflatten(2, shape).unbind(2 if new_order else 3)
        mixed = torch.nn.functional.scaled_dot_product_attention(
            *(part.transpose(1, 2) for part in parts)
        )
        expected = row + attention.proj_out(mixed.transpose(2, 3).flatten(1, 2))
        assert (attention(features).flatten(2) - expected).abs().max() <= 1e-5


def test_heads_follow_the_flags() -> None:
    def heads(up: bool = False, **options: Any) -> int:
        return Attention(64, GuidedOptions(**options), up).heads

    assert heads() == 4
    assert heads(num_heads=2, num_heads_upsample=8) == 2
    assert heads(num_heads=2, num_heads_upsample=8, up=True) == 8
    assert heads(num_heads=2, num_heads_upsample=8, num_head_channels=64, up=True) == 1


@pytest.mark.parametrize(
    ("multipliers", "size"),
    [((1, 1, 2, 2, 4, 4), 256), ((1, 2, 3, 4), 64), ((0.5, 1, 1, 2, 2, 4, 4), 512)],
)
def test_upstreams_multipliers_tell_the_image_size(
    multipliers: tuple[float, ...], size: int
) -> None:
    layout = replace(SMALL, width=64, levels=tuple(Level(int(64 * m), True) for m in multipliers))
    assert layout.size(GuidedOptions()) == size
    assert layout.size(GuidedOptions(image_size=192)) == 192


def test_an_image_size_that_nothing_tells_must_be_given() -> None:
    with pytest.raises(InvalidInput, match="image_size"):
        SMALL.size(GuidedOptions())
    for wrong in (0, -2, 33):
        with pytest.raises(InvalidInput, match="multiple of 2"):
            SMALL.size(GuidedOptions(image_size=wrong))


@pytest.mark.parametrize("name", ["num_heads", "num_head_channels", "num_heads_upsample"])
@pytest.mark.parametrize("value", [0, 5, 128])
def test_heads_that_do_not_fit_are_named(name: str, value: int) -> None:
    with pytest.raises(InvalidInput, match=f"num_head.* {value} does not divide the 64 channels"):
        _unet(SMALL, **{name: value})


@pytest.mark.parametrize(
    "name",
    ["input_blocks.1.0.in_layers.2.weight", "time_embed.0.weight", "out.2.weight", "out.0.bias"],
)
def test_a_missing_tensor_is_named(name: str) -> None:
    state = _state(SMALL)
    del state[name]
    with pytest.raises(ExportError, match=rf"{name}.*missing|missing.*{name}"):
        load_unet(state, GuidedOptions(), PATH, "guided_diffusion")


@pytest.mark.parametrize(
    "name", ["input_blocks.99999999999999.0.weight", "middle_block.1.encoder_kv.weight"]
)
def test_a_tensor_too_many_is_named(name: str) -> None:
    state = {**_state(SMALL), name: torch.zeros(1)}
    with pytest.raises(ExportError):
        load_unet(state, GuidedOptions(), PATH, "guided_diffusion")


def test_networks_that_upstream_cannot_build_are_refused() -> None:
    state = _state(SMALL)
    volumes = {key: t[..., None] if t.ndim == 4 else t for key, t in state.items()}
    with pytest.raises(ExportError, match="3 axes"):
        load_unet(volumes, GuidedOptions(), PATH, "guided_diffusion")
    key = "input_blocks.1.0.in_layers.2.weight"
    with pytest.raises(ExportError, match="48 channels are no multiple"):
        load_unet(
            {**state, key: torch.zeros(48, 32, 3, 3)}, GuidedOptions(), PATH, "guided_diffusion"
        )


def test_weights_in_half_are_computed_in_single_precision() -> None:
    half = {key: tensor.half() for key, tensor in _state(SMALL).items()}
    unet = load_unet(half, GuidedOptions(), PATH, "guided_diffusion")
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.float32}
    with torch.no_grad():
        assert unet(torch.randn(1, 3, SIZE, SIZE), torch.tensor([5])).dtype == torch.float32


def _generator(layout: Layout, **options: Any) -> StagedGenerator:
    """The family's generator of small images."""
    options = {"image_size": SIZE, **options}
    chosen = GuidedDiffusionOptions(**options)
    return find_family("guided_diffusion").build(_state(layout), chosen, PATH)


def test_flags_of_the_training_become_the_schedule() -> None:
    assert _schedule(_generator(SMALL)).variance == "learned_range"
    fixed = replace(SMALL, channels_out=3)
    assert _schedule(_generator(fixed)).variance == "fixed_large"
    assert _schedule(_generator(fixed, sigma_small=True)).variance == "fixed_small"
    flags = {"diffusion_steps": 4000, "noise_schedule": "cosine", "rescale_timesteps": True}
    schedule = _schedule(_generator(fixed, **flags, predict_xstart=True, sampler="ddim"))
    assert (schedule.train_steps, schedule.betas) == (4000, "squaredcos_cap_v2")
    assert (schedule.timestep_scale, schedule.prediction) == (0.25, "sample")
    assert schedule.sampler == "ddim"


def test_classes_are_asked_for_by_name_and_guided_where_one_stands_for_none() -> None:
    classes = replace(SMALL, classes=3)
    names = ("benign", "malignant")
    generator = _generator(classes, labels=names, unconditional_label=2, guidance=2.0)
    inputs = {entry.name: entry for entry in generator.inputs}
    assert generator.task == "class-conditional"
    assert inputs["label"].labels == names
    assert inputs["guidance"].default == 2.0
    assert generator.sampling is not None
    assert generator.sampling.unconditional == {"label": 2}
    assert "guidance" not in {entry.name for entry in _generator(classes).inputs}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"labels": ("a", "b")}, "2 labels for 3 classes"),
        ({"unconditional_label": 3}, "unconditional_label 3"),
        ({"diffusion_steps": 0}, "diffusion_steps is 0"),
        ({"steps": 1001}, "steps must be 1 … 1000"),
        ({"steps": 300, "sampler": "ddim"}, "take 250 or 334"),
        ({"predict_xstart": True, "sampler": "plms"}, "PLMS"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        _generator(replace(SMALL, classes=3), **options)


def test_networks_that_start_from_other_images_are_refused() -> None:
    with pytest.raises(ExportError, match="takes 6 channels and predicts 3"):
        _generator(replace(SMALL, channels_in=6, channels_out=3))


def _schedule(generator: StagedGenerator) -> Schedule:
    assert generator.sampling is not None
    return generator.sampling.schedule
