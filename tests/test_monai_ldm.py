"""MONAI's latent diffusion: both namings of its networks, bundles, volumes and texts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from galatea.errors import ExportError, InvalidInput
from galatea_exporter.checkpoint import State
from galatea_exporter.families.monai_ldm import BRAIN, MONAIOptions
from galatea_exporter.family import find_family, random_weights
from galatea_exporter.layers.monai_ldm import load_decoder, load_unet, monai_networks, unused
from galatea_exporter.monai_bundle import read_bundle
from galatea_exporter.stages import StagedGenerator

PATH = Path("bundle/models")
GROUPS: dict[str, Any] = {"groups": 8, "eps": 1e-6}

UNET = {"spatial_dims": 2, "in_channels": 3, "out_channels": 3, "channels": (16, 32),
        "num_res_blocks": 1, "norm_num_groups": 8}  # fmt: skip
UNETS: dict[str, dict[str, Any]] = {
    "texts": {"attention_levels": (False, True), "num_head_channels": (0, 16),
              "with_conditioning": True, "cross_attention_dim": 32, "transformer_num_layers": 2},
    "numbers, volumes": {"spatial_dims": 3, "in_channels": 7, "attention_levels": (False, True),
                         "num_head_channels": (16, 32), "resblock_updown": True,
                         "with_conditioning": True, "cross_attention_dim": 4},
    "nothing": {"attention_levels": (True, True), "num_head_channels": 16},
    "nothing, no projection": {"attention_levels": (True, True), "num_head_channels": 16,
                               "num_res_blocks": (1, 2), "include_fc": False},
}  # fmt: skip

AUTOENCODER = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "latent_channels": 3,
               "channels": (16, 16, 32), "num_res_blocks": 1, "norm_num_groups": 8,
               "attention_levels": (False, False, False)}  # fmt: skip
AUTOENCODERS: dict[str, dict[str, Any]] = {
    "attention at the bottom": {"with_encoder_nonlocal_attn": True},
    "no attention, volumes": {"spatial_dims": 3, "channels": (16, 32),
                              "attention_levels": (False, False), "num_res_blocks": (2, 1),
                              "with_decoder_nonlocal_attn": False},
    "attention in levels": {"attention_levels": (False, True, True), "num_res_blocks": 2,
                            "with_decoder_nonlocal_attn": False},
    "attention everywhere, no projection": {"attention_levels": (False, False, True),
                                            "include_fc": False},
}  # fmt: skip

OLDER = (
    (r"(\.attentions\.\d+|\.attention|blocks\.\d+)\.attn\.(to_[qkv])\.", r"\1.\2."),
    (r"\.out_proj\.", ".to_out.0."),
    (r"\.postconv\.", ".conv."),
)


def older(state: State) -> dict[str, Tensor]:
    """The names of Project-MONAI/GenerativeModels, with the layers that it never applies."""
    named = {}
    for key, tensor in state.items():
        new = key
        for pattern, name in OLDER:
            new = re.sub(pattern, name, new)
        named[new] = tensor
        if ".attn.to_q." in key:
            named[new.replace(".to_q.", ".proj_attn.")] = torch.ones_like(tensor)
    return named


def namings(state: State, *, projected: bool) -> list[dict[str, Tensor]]:
    """MONAI core's names and, where older code could have made the network, its own."""
    return [dict(state)] if projected else [dict(state), older(state)]


@pytest.mark.parametrize("name", UNETS)
def test_a_unets_sizes_are_read_and_either_naming_computes_the_same(name: str) -> None:
    arguments = {**UNET, **UNETS[name]}
    theirs = monai_networks().DiffusionModelUNet(**arguments).eval()
    state = random_weights(theirs)
    theirs.load_state_dict(state)
    x, t = torch.randn(2, 3, *[8] * arguments["spatial_dims"]), torch.tensor([[7.0], [640.0]])
    given: list[Tensor] = []
    full, context = x, None
    if "texts" in name:
        given = [context := torch.randn(2, 5, 32)]
    elif "numbers" in name:
        given = [torch.rand(2, 1) for _ in range(4)]
        context = torch.stack(given, 2)
        planes = [value[..., None, None, None].expand(2, 1, 8, 8, 8) for value in given]
        full = torch.cat([x, *planes], 1)
    heads = arguments["num_head_channels"]
    heads = heads if isinstance(heads, tuple) else (heads,)
    plain = name == "nothing"  # the older code has no projection in these attentions
    for named in namings(state, projected=plain):
        ours, _ = load_unet(named, PATH, "monai_ldm", heads=heads, **GROUPS)
        with torch.no_grad():
            expected = theirs(full, timesteps=t[:, 0], context=context)
            assert (ours(x, t, *given) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_a_decoders_sizes_are_read_and_either_naming_computes_the_same(name: str) -> None:
    arguments = {**AUTOENCODER, **AUTOENCODERS[name]}
    theirs = monai_networks().AutoencoderKL(**arguments).eval()
    state = random_weights(theirs)
    theirs.load_state_dict(state)
    latent = torch.randn(1, 3, *[4] * arguments["spatial_dims"])
    plain = any(".out_proj." in key for key in state)
    for named in namings(state, projected=plain):
        ours, _ = load_decoder(named, PATH, "monai_ldm", **GROUPS)
        with torch.no_grad():
            assert (ours(latent) - theirs.decode(latent)).abs().max() <= 1e-5
        left = {entry.partition(":")[0] for entry in unused(named)}
        assert {key.split(".")[0] for key in set(named) - left} == {"decoder", "post_quant_conv"}


BUNDLE = {
    "latent_channels": 4,
    "latent_shape": ["@latent_channels", 48, 48, 32],
    "network_def": {
        "_target_": "generative.networks.nets.DiffusionModelUNet",
        "spatial_dims": "@spatial_dims",
        "num_head_channels": [0, 32, 32],
    },
    "noise_scheduler": {
        "_target_": "generative.networks.schedulers.DDIMScheduler",
        "num_train_timesteps": "@timesteps",
        "beta_end": 0.0195,
        "schedule": "scaled_linear_beta",
        "clip_sample": False,
    },
    "noise": "$torch.randn([1]+@latent_shape).to(@device)",
    "set_timesteps": "$@noise_scheduler.set_timesteps(num_inference_steps=50)",
}


def test_a_bundles_configuration_tells_options_and_is_not_executed(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text(json.dumps(BUNDLE))
    assert read_bundle(tmp_path / "models") == {
        "num_head_channels": [0, 32, 32], "latent_size": [48, 48, 32], "beta_end": 0.0195,
        "schedule": "scaled_linear_beta", "clip_sample": False, "sampler": "ddim", "steps": 50,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_configuration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text(text)
    with pytest.raises(ExportError, match=r"inference\.json"):
        read_bundle(tmp_path / "models")


@pytest.fixture(scope="module")
def example() -> dict[str, Tensor]:
    """Networks of small volumes that take four numbers."""
    return find_family("monai_ldm").example()


def build(state: State, **options: Any) -> StagedGenerator:
    return find_family("monai_ldm").build(state, MONAIOptions(**options), PATH)


def test_volumes_have_three_axes_a_voxel_size_and_named_numbers(example: State) -> None:
    generator = build(
        example, latent_size=(4, 6, 8), conditions=BRAIN, spacing=(1.0, 1.0, 2.0), channels=("T1",)
    )
    (image,) = generator.outputs
    assert (image.dtype, image.shape, image.spacing) == ("FP32", (8, 12, 16, 1), (1.0, 1.0, 2.0))
    inputs = {entry.name: entry for entry in generator.inputs}
    assert [name for name in inputs if name in BRAIN] == list(BRAIN)
    assert (inputs["age"].minimum, inputs["age"].maximum) == (0.0, 1.0)
    assert "guidance" not in inputs


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"latent_size": (8, 8)}, "latent_size 8,8 does not fit"),
        ({"latent_size": (8, 8, 0)}, "latent_size 8,8,0 does not fit"),
        ({"conditions": ("age",)}, "conditions age are no names for 4 numbers"),
        ({"conditions": ("age", "seed", "a", "b")}, "no names for 4 numbers"),
        ({"norm_num_groups": 5}, "can't make this network"),
        ({"num_head_channels": (5,)}, "heads of 5 channels do not divide"),
        ({"num_head_channels": (0, 0)}, "can't make this network"),
        ({"steps": 0}, "steps must be"),
    ],
)
def test_options_that_do_not_fit_are_named(
    example: State, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem):
        build(example, **options)


@pytest.fixture(scope="module")
def from_texts() -> dict[str, Tensor]:
    """Networks of small images that take texts of width 32."""
    networks = monai_networks()
    unet = networks.DiffusionModelUNet(**{**UNET, **UNETS["texts"]})
    autoencoder = networks.AutoencoderKL(**AUTOENCODER)
    parts = {"diffusion_model.": unet, "autoencoder.": autoencoder}
    return {
        prefix + key: tensor
        for prefix, network in parts.items()
        for key, tensor in random_weights(network).items()
    }


TEXTS: dict[str, Any] = {
    "norm_num_groups": 8, "num_head_channels": (0, 16), "latent_size": (8, 8),
    "prediction_type": "v_prediction", "scale_factor": 0.3,
}  # fmt: skip


def test_a_latent_is_a_multiple_of_what_the_network_halves(from_texts: State) -> None:
    with pytest.raises(InvalidInput, match="latent_size 8,7 does not fit") as refused:
        build(from_texts, **{**TEXTS, "latent_size": (8, 7)})
    assert "2 multiples of 2" in refused.value.remedy


def test_a_model_of_texts_asks_for_its_text_encoder(from_texts: State) -> None:
    with pytest.raises(InvalidInput) as refused:
        build(from_texts, **TEXTS)
    assert "set text_encoder" in refused.value.remedy


def test_a_pipelines_text_encoder_makes_prompts_of_its_contexts(
    from_texts: State, golden: Path
) -> None:
    pipeline = golden / "sd_diffusers" / "pipeline"
    generator = build(from_texts, **TEXTS, text_encoder=str(pipeline))
    assert generator.task == "text-to-image"
    assert [stage.name for stage in generator.stages] == ["text", "unet", "vae"]
    inputs = {entry.name: entry for entry in generator.inputs}
    assert {"prompt", "negative_prompt"} <= set(inputs)
    assert inputs["guidance"].default == 7.0
    assert generator.outputs[0].shape == (32, 32, 1)
