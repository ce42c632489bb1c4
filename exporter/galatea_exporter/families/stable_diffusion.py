"""Stable Diffusion 1 and 2, and what was tuned from them: folders of diffusers' pipelines.

Rombach et al. 2022 (arXiv:2112.10752), in the layout of ``StableDiffusionPipeline`` of
huggingface/diffusers: a text encoder of CLIP, a UNet in latents and the decoder of an autoencoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from galatea.errors import ExportError, InvalidInput
from galatea_exporter.assembly import by_diffusion
from galatea_exporter.checkpoint import Checkpoint, State
from galatea_exporter.family import Family, Options, register
from galatea_exporter.folders import read_config
from galatea_exporter.layers.clip_text import ClipText, read_text
from galatea_exporter.layers.diffusers import (
    ENCODING,
    Decoder,
    load_decoder,
    load_unet,
    make,
)
from galatea_exporter.layers.latents import Rescaled
from galatea_exporter.sampler.schedules import Schedule
from galatea_exporter.scheduler_config import read_schedule
from galatea_exporter.stages import StagedGenerator
from galatea_exporter.tokenizer import byte_vocabulary

INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
Configs = Mapping[str, dict[str, Any]]  # of the networks, by their folder

PARTS = {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}
UNUSED = {"safety_checker", "feature_extractor", "image_encoder"}  # of a pipeline, for other ends


@dataclass(frozen=True)
class StableDiffusionOptions(Options):
    """Adds what a request may leave open, and the size, which one network has for many.

    Attributes:
        height, width: of an image; None is what the pipeline was trained for.
        steps, guidance: what a request gets that does not say.
        sampler: the same; None is the one of the pipeline's scheduler.
    """

    rounding: Literal["truncate", "nearest"] = "nearest"
    height: int | None = None
    width: int | None = None
    steps: int = 50
    guidance: float = 7.5
    sampler: Literal["ddpm", "ddim", "plms", "euler", "dpmpp_2m"] | None = None


TOLERANCE = 5e-4
TOLERANCE_REASON = "a decoder to 512 × 512 pixels was 1.1e-4 off; a level is 7.8e-3"


@register
class StableDiffusion(Family):
    """Sizes, activations and the schedule are read from the configurations beside the weights."""

    name = "stable_diffusion"
    title = "Stable Diffusion, a folder of diffusers"
    source = "arXiv:2112.10752; huggingface/diffusers, CompVis/stable-diffusion"
    aliases = ("stable_diffusion_diffusers", "diffusers")
    files = ("unet/", "vae/", "text_encoder/", "tokenizer/", "scheduler/", INDEX)
    options = StableDiffusionOptions

    def recognises(self, state: State) -> bool:
        return "unet.conv_in.weight" in state and "vae.decoder.conv_in.weight" in state

    def build(self, state: State, options: StableDiffusionOptions, path: Path) -> StagedGenerator:
        others = _check_parts(read_config(path / INDEX), path)
        schedule = _schedule(read_config(path / SCHEDULER), options)
        text, ignored = read_text(Checkpoint(path, "", state), self.name)
        decoder = load_decoder(_part(state, "vae"), path / "vae", self.name)
        network = load_unet(_part(state, "unet"), path / "unet", self.name)
        # From here on as diffusers reads them, with what the files leave open.
        vae, unet = decoder.config, network.config
        channels, latents = _check_fit(unet, vae, text.width, path)
        size, latent = _sizes(unet, vae, options)
        return by_diffusion(
            network,
            schedule=schedule,
            shape=(latents, *latent),
            decoder=_rescaled(decoder, path),
            size=size,
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
            steps=options.steps,
            guidance=options.guidance,
            text=text,
            tolerance=TOLERANCE,
            tolerance_reason=TOLERANCE_REASON,
            ignored=(
                *[f"{name}: not the generator" for name in others],
                *[
                    f"vae.{key}: only for encoding"
                    for key in _part(state, "vae")
                    if key.startswith(ENCODING)
                ],
                *ignored,
            ),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        return random_pipeline(PUBLISHED if published else SMALL)

    def save(self, state: State, folder: Path) -> Path:
        """As the base says; the configurations are those of :meth:`example`."""
        embedding = state.get("text_encoder.embeddings.token_embedding.weight")
        small = embedding is None or len(embedding) == SMALL["text_encoder"]["vocab_size"]
        return write_pipeline(state, SMALL if small else PUBLISHED, folder)


def random_pipeline(configs: Configs) -> dict[str, Tensor]:
    """Random weights of networks with these configurations, the folder's name before each key."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = {
            "unet": make("UNet2DConditionModel", configs["unet"], Path("unet")),
            "vae": make("AutoencoderKL", configs["vae"], Path("vae")),
            "text_encoder": ClipText(configs["text_encoder"]),
        }
    return {
        f"{part}.{key}": tensor
        for part, network in networks.items()
        for key, tensor in network.state_dict().items()
    }


def write_pipeline(state: State, configs: Configs, folder: Path) -> Path:
    """Writes a pipeline as diffusers lays it out, with a tokenizer of bytes, into `folder`."""
    for part, config in configs.items():
        weights = {key: tensor.contiguous() for key, tensor in _part(state, part).items()}
        _write(folder / part / "config.json", config)
        save_file(weights, folder / part / "model.safetensors")
    _write(folder / SCHEDULER, SCHEDULE)
    _write(folder / INDEX, {"_class_name": "StableDiffusionPipeline"})
    _write(folder / "tokenizer" / "vocab.json", byte_vocabulary("xr"))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\nx r\n", "utf-8")
    return folder


def _part(state: State, name: str) -> dict[str, Tensor]:
    """The tensors of one folder, without its name."""
    start = f"{name}."
    return {key.removeprefix(start): state[key] for key in state if key.startswith(start)}


def _write(path: Path, plain: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain), "utf-8")


def _check_parts(index: Mapping[str, Any], path: Path) -> list[str]:
    """Parts of the pipeline that are left out.

    Raises:
        ExportError: it has parts that take part in the sampling and are not known.
    """
    there = {
        name for name, kind in index.items() if isinstance(kind, list) and kind and kind[0]
    }  # the others are settings
    unknown = sorted(there - PARTS - UNUSED)
    if unknown:
        raise ExportError(
            f"{path}: the {index.get('_class_name')} has {', '.join(unknown)}, "
            "which is not supported",
            "export a pipeline of Stable Diffusion 1 or 2",
        )
    return sorted(there & UNUSED)


def _schedule(config: Mapping[str, Any], options: StableDiffusionOptions) -> Schedule:
    """The schedule of the training; latents are not clipped unless the file says so.

    Raises:
        ExportError: no sampler runs it.
    """
    schedule = read_schedule(config, options.sampler)
    return replace(schedule, clip_sample=False) if schedule.clip_sample is None else schedule


def _rescaled(decoder: Decoder, path: Path) -> Rescaled:
    """The decoder, for latents of the scale that the network makes.

    Raises:
        ExportError: the scale is not one number.
    """
    scale, shift = decoder.config["scaling_factor"], decoder.config["shift_factor"] or 0.0
    told = isinstance(scale, int | float) and isinstance(shift, int | float) and scale > 0
    if not told or decoder.config["latents_mean"] is not None:
        raise ExportError(
            f"{path / 'vae'}: its latents are scaled by more than scaling_factor and shift_factor",
            "export a pipeline of Stable Diffusion 1 or 2",
        )
    return Rescaled(decoder, scale, shift)


def _check_fit(
    unet: Mapping[str, Any], vae: Mapping[str, Any], width: int, path: Path
) -> tuple[int, int]:
    """Channels of an image and of a latent.

    Raises:
        ExportError: the parts don't fit together.
    """
    channels, latents = vae["out_channels"], vae["latent_channels"]
    if (unet["in_channels"], unet["out_channels"]) != (latents, latents):
        raise ExportError(
            f"{path}: the network takes {unet['in_channels']} channels and returns "
            f"{unet['out_channels']}, a latent has {latents}",
            "export a pipeline that makes images from texts alone, not from pictures",
        )
    if unet["cross_attention_dim"] != width:
        raise ExportError(
            f"{path}: the network takes contexts of width {unet['cross_attention_dim']}, the text "
            f"encoder gives {width}",
            "take all parts from one pipeline",
        )
    return channels, latents


def _sizes(
    unet: Mapping[str, Any], vae: Mapping[str, Any], options: StableDiffusionOptions
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of an image and of its latent.

    Raises:
        InvalidInput: they are not known, or don't fit the networks.
    """
    factor = 1 << (len(vae["block_out_channels"]) - 1)
    multiple = factor << (len(unet["block_out_channels"]) - 1)
    trained = unet["sample_size"]
    sides = [trained] * 2 if trained is None or isinstance(trained, int) else trained
    size = []
    for name, side in zip(("height", "width"), sides, strict=True):
        chosen = getattr(options, name) or (None if side is None else side * factor)
        if chosen is None or chosen < multiple or chosen % multiple:
            raise InvalidInput(
                f"the {name} {'is not told' if chosen is None else f'{chosen} does not fit'}",
                f"set {name} to a multiple of {multiple}",
            )
        size.append(chosen)
    height, width = size
    return (height, width), (height // factor, width // factor)


SCHEDULE = {
    "_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "beta_end": 0.012, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip

# Stable Diffusion 1, and the same with small numbers.
PUBLISHED: Configs = {
    "unet": {"sample_size": 64, "cross_attention_dim": 768},
    "vae": {
        "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "text_encoder": {
        "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 77,
        "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    },
}  # fmt: skip
SMALL: Configs = {
    "unet": {
        "sample_size": 16, "cross_attention_dim": 16, "block_out_channels": [16, 32],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "layers_per_block": 1,
        "up_block_types": ["UpBlock2D"] * 2, "attention_head_dim": 2,
        "norm_num_groups": 8,
    },
    "vae": {
        "block_out_channels": [8, 16], "layers_per_block": 1, "latent_channels": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 4,
    },
    "text_encoder": PUBLISHED["text_encoder"]
    | {
        "vocab_size": 520, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
}  # fmt: skip
