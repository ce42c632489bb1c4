"""Folders of diffusers' pipelines: tokenizer, weights in any file, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from galatea.errors import ExportError, InvalidInput
from galatea_exporter.checkpoint import read_checkpoint
from galatea_exporter.family import find_family
from galatea_exporter.layers.diffusers import NEW_NAMES
from galatea_exporter.stages import StagedGenerator
from galatea_exporter.tokenizer import clip_tokenizer
from golden import Case, load

FAMILY = find_family("stable_diffusion")
WEIGHTS = "model.safetensors"


def build(folder: Path, **options: Any) -> StagedGenerator:
    checkpoint = read_checkpoint(folder, FAMILY.files)
    return FAMILY.load(checkpoint, replace(FAMILY.options(), **options))


def weights(generator: StagedGenerator) -> dict[str, Tensor]:
    """Every tensor of every stage."""
    return {
        f"{stage.name}.{key}": tensor
        for stage in generator.stages
        for key, tensor in stage.module.state_dict().items()
    }


def same(one: StagedGenerator, other: StagedGenerator, tolerance: float = 0.0) -> bool:
    mine, theirs = weights(one), weights(other)
    return list(mine) == list(theirs) and all(
        torch.allclose(mine[key], theirs[key], rtol=tolerance, atol=tolerance) for key in mine
    )


def rewrite(path: Path, **changes: Any) -> None:
    """Changes entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def example() -> dict[str, Tensor]:
    return FAMILY.example()


@pytest.fixture
def pipeline(example: dict[str, Tensor], tmp_path: Path) -> Path:
    return FAMILY.save(example, tmp_path / "pipeline")


@pytest.fixture(scope="module")
def pretrained(golden: Path) -> Case:
    folder = golden / "sd_diffusers"
    return Case(folder, folder / "pipeline")


def test_the_tokens_are_those_of_transformers(pretrained: Case) -> None:
    tokenizer = Tokenizer.from_str(clip_tokenizer(pretrained.checkpoint / "tokenizer", 77))
    texts = [pretrained.meta["prompt"], pretrained.meta["negative_prompt"]]
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    assert np.array_equal(ids, pretrained.inputs()["input_ids"])


def test_the_image_is_that_of_the_pipeline(pretrained: Case) -> None:
    latent = torch.from_numpy(pretrained.expected("pipeline_final_latents"))
    vae = next(stage for stage in load(pretrained).stages if stage.name == "vae")
    with torch.no_grad():
        image, *_ = vae.module(latent)
    expected = np.round(255 * pretrained.expected("pipeline_image_nhwc_01"))
    assert np.abs(image.numpy() - expected).max() <= 1
    assert (image.numpy() == expected).mean() > 0.999


def ids(folder: Path, text: str, length: int = 12) -> list[int]:
    encoded: list[int] = Tokenizer.from_str(clip_tokenizer(folder, length)).encode(text).ids
    return encoded


def test_texts_of_any_script_have_tokens_and_long_ones_are_cut(pipeline: Path) -> None:
    folder = pipeline / "tokenizer"
    known = json.loads((folder / "vocab.json").read_text())
    begin, end = known["<|startoftext|>"], known["<|endoftext|>"]
    words = [known[word] for word in ("xr", "a</w>", "x", "r</w>")]
    assert ids(folder, "xra XR") == [begin, *words, *[end] * 7]
    assert ids(folder, "") == [begin] + [end] * 11
    assert ids(folder, "é") == ids(folder, "e\u0301") == ids(folder, " É\n")
    assert end not in ids(folder, "肺炎")[1:7]
    cut = ids(folder, "word " * 100)
    assert (len(cut), cut[0], cut[-1]) == (12, begin, end)


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "special_tokens_map.json"], ids=["newer", "older"]
)
def test_the_token_that_fills_up_short_texts_is_read(pipeline: Path, name: str) -> None:
    folder = pipeline / "tokenizer"
    (folder / name).write_text(json.dumps({"pad_token": {"content": "!"}}))
    bang = json.loads((folder / "vocab.json").read_text())["!"]
    assert ids(folder, "a")[3:] == [bang] * 9


def test_weights_are_read_from_any_of_the_usual_files(
    pipeline: Path, example: dict[str, Tensor]
) -> None:
    expected = build(pipeline)
    unet = load_file(pipeline / "unet" / WEIGHTS)
    (pipeline / "unet" / WEIGHTS).unlink()
    torch.save(unet, pipeline / "unet" / "diffusion_pytorch_model.bin")
    assert same(build(pipeline), expected)

    half = {key: tensor.half() for key, tensor in unet.items()}
    (pipeline / "unet" / "diffusion_pytorch_model.bin").unlink()
    save_file(half, pipeline / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    made = build(pipeline)
    assert {tensor.dtype for tensor in weights(made).values()} == {torch.float32}
    assert same(made, expected, tolerance=1e-2)

    # The file with all digits is the better one.
    names = sorted(unet)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, keys in shards.items():
        save_file({key: unet[key] for key in keys}, pipeline / "unet" / shard)
    index = {"weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
    (pipeline / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps(index)
    )
    assert same(build(pipeline), expected)


def test_older_names_of_the_same_weights_are_read(pipeline: Path) -> None:
    expected = build(pipeline)
    older = {name: old for old, name in NEW_NAMES.items()}
    vae = {}
    for key, tensor in load_file(pipeline / "vae" / WEIGHTS).items():
        found = re.fullmatch(r"(.*attentions\.\d+)\.(to_[qkv]|to_out\.0)\.(\w+)", key)
        name = f"{found[1]}.{older[found[2]]}.{found[3]}" if found else key
        vae[name] = tensor[:, :, None, None].contiguous() if found and tensor.ndim == 2 else tensor
    save_file(vae, pipeline / "vae" / WEIGHTS)
    text = load_file(pipeline / "text_encoder" / WEIGHTS)
    counts = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(
        {f"text_model.{key}": tensor for key, tensor in text.items()} | counts,
        pipeline / "text_encoder" / WEIGHTS,
    )
    made = build(pipeline)
    assert same(made, expected)
    assert any("position_ids" in entry for entry in made.ignored)


def test_a_checkpoints_digest_is_that_of_all_its_files(pipeline: Path) -> None:
    before = read_checkpoint(pipeline, FAMILY.files).sha256
    assert read_checkpoint(pipeline, FAMILY.files).sha256 == before
    rewrite(pipeline / "scheduler" / "scheduler_config.json", steps_offset=0)
    assert read_checkpoint(pipeline, FAMILY.files).sha256 != before


def test_configurations_tell_the_size_the_activation_and_the_schedule(pipeline: Path) -> None:
    rewrite(pipeline / "unet" / "config.json", sample_size=[8, 16])
    rewrite(pipeline / "text_encoder" / "config.json", hidden_act="gelu")
    scheduler = pipeline / "scheduler" / "scheduler_config.json"
    rewrite(scheduler, _class_name="DDIMScheduler", prediction_type="v_prediction")
    rewrite(pipeline / "model_index.json", safety_checker=["stable_diffusion", "Checker"])
    made = build(pipeline)
    assert made.outputs[0].shape == (16, 32, 3)
    assert made.sampling is not None
    schedule = made.sampling.schedule
    assert (schedule.sampler, schedule.prediction) == ("ddim", "v_prediction")
    assert schedule.clip_sample is False
    assert "safety_checker: not the generator" in made.ignored
    text = next(stage for stage in made.stages if stage.name == "text").module
    assert any(isinstance(module, torch.nn.GELU) for module in text.modules())
    assert build(pipeline, height=8, width=24).outputs[0].shape == (8, 24, 3)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "two text encoders": (
        "model_index.json",
        {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]},
        "text_encoder_2",
    ),
    "classes": ("unet/config.json", {"num_class_embeds": 3}, "num_class_embeds 3"),
    "more conditions": (
        "unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type",
    ),
    "another network": ("unet/config.json", {"_class_name": "UNet2DModel"}, "is a UNet2DModel"),
    "another text encoder": (
        "text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel",
    ),
    "another activation": ("text_encoder/config.json", {"hidden_act": "relu"}, "relu"),
    "heads of no width": ("text_encoder/config.json", {"num_attention_heads": 3}, "3 heads"),
    "a scale for each channel": ("vae/config.json", {"latents_mean": [0] * 4}, "scale"),
    "a small vocabulary": ("text_encoder/config.json", {"vocab_size": 9}, "another shape"),
    "another scheduler": (
        "scheduler/scheduler_config.json", {"_class_name": "UniPCMultistepScheduler"}, "UniPC",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_named(pipeline: Path, name: str) -> None:
    file, changes, words = REFUSED[name]
    rewrite(pipeline / file, **changes)
    with pytest.raises(ExportError, match=words):
        build(pipeline)


def test_a_network_that_starts_from_pictures_is_refused(
    example: dict[str, Tensor], tmp_path: Path
) -> None:
    key = "unet.conv_in.weight"
    inpainting = {**example, key: torch.ones(len(example[key]), 9, 3, 3)}
    pipeline = FAMILY.save(inpainting, tmp_path / "pipeline")
    rewrite(pipeline / "unet" / "config.json", in_channels=9)
    with pytest.raises(ExportError, match="takes 9 channels and returns 4"):
        build(pipeline)


@pytest.mark.parametrize(
    "name",
    ["unet/config.json", "model_index.json", "tokenizer/vocab.json", "tokenizer/merges.txt",
     "scheduler/scheduler_config.json"],
)  # fmt: skip
@pytest.mark.parametrize("damage", [None, "[", "[]"], ids=["missing", "cut", "no object"])
def test_a_damaged_file_is_named(pipeline: Path, name: str, damage: str | None) -> None:
    path = pipeline / name
    path.unlink() if damage is None else path.write_text(damage)
    with pytest.raises(ExportError, match=re.escape(Path(name).name) + "|" + name.split("/")[0]):
        build(pipeline)


def test_another_sampler_may_be_chosen_for_an_unknown_scheduler(pipeline: Path) -> None:
    scheduler = pipeline / "scheduler" / "scheduler_config.json"
    rewrite(scheduler, _class_name="UniPCMultistepScheduler", solver_order=2)
    sampling = build(pipeline, sampler="dpmpp_2m").sampling
    assert sampling is not None
    assert sampling.schedule.sampler == "dpmpp_2m"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"height": 30}, "height 30 does not fit"),
        ({"width": 2}, "width 2 does not fit"),
        ({"steps": 0}, "steps"),
        ({"steps": 2000}, "steps"),
    ],
)
def test_options_that_do_not_fit_are_named(
    pipeline: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        build(pipeline, **options)
