"""What the engine is compared with: a loop around ONNX Runtime, and diffusers in PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from galatea_exporter.checkpoint import read_checkpoint
from galatea_exporter.families import stable_diffusion as family
from galatea_exporter.family import find_family
from galatea_exporter.sampler.jobs import Sample
from galatea_exporter.sampler.noise import noise_of
from galatea_exporter.sampler.samplers import Settings, start
from galatea_exporter.stages import StagedGenerator

PROMPT = "chest x-ray with pleural effusion"
DIFFUSERS = "diffusers, eager PyTorch"

Make = Callable[[int, int, int], NDArray[np.uint8]]  # first seed, images, steps → images

MEDIUM: family.Configs = {
    "unet": {
        "sample_size": 32, "cross_attention_dim": 64, "block_out_channels": [64, 128, 192],
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1, "attention_head_dim": 4,
    },
    "vae": {
        "block_out_channels": [32, 64, 64], "layers_per_block": 1, "latent_channels": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
        "sample_size": 128,
    },
    "text_encoder": family.SMALL["text_encoder"] | {"hidden_size": 64},
}  # fmt: skip


def checkpoint(configs: family.Configs, folder: Path) -> Path:
    """A pipeline with random weights."""
    return family.write_pipeline(family.random_pipeline(configs), configs, folder)


class BareLoop:
    """ONNX Runtime sessions on the released graphs and the loop around them, in this process.

    Args:
        repository, name: where the graphs are.
        checkpoint: that they were exported from.
    """

    def __init__(self, repository: Path, name: str, checkpoint: Path, guidance: float) -> None:
        self._generator = load(checkpoint)
        self._guidance = guidance
        self._text, self._unet, self._vae = (
            onnxruntime.InferenceSession(
                repository / f"{name}.{stage}" / "1" / "model.onnx",
                providers=["CPUExecutionProvider"],
            )
            for stage in ("text", "unet", "vae")
        )
        tokens = tokenised(self._generator)
        self._contexts = self._text.run(None, {"tokens": tokens})[0]

    def __call__(self, seed: int, n: int, steps: int) -> NDArray[np.uint8]:
        sampling = self._generator.sampling
        assert sampling is not None
        told, base = ({"context": context} for context in self._contexts)
        samples = [
            Sample(
                start(Settings(steps), sampling.schedule, sampling.shape,
                      partial(noise_of, seed + i, sampling.shape)),
                told, base, self._guidance,
            )
            for i in range(n)
        ]  # fmt: skip
        while not samples[0].run.finished:
            rows = [(*s.run.row(), context) for s in samples for context in s.contexts()]
            feed = {
                "x": np.stack([x for x, _, _ in rows]),
                "t": np.array([[t] for _, t, _ in rows], np.float32),
                "context": np.stack([context["context"] for _, _, context in rows]),
            }
            predictions = iter(self._unet.run(None, feed)[0])
            for sample in samples:
                sample.run.advance(sample.combined([next(predictions) for _ in sample.contexts()]))
        latents = np.stack([sample.run.sample for sample in samples])
        images: NDArray[np.uint8] = self._vae.run(None, {"sample": latents})[0]
        return images


class Diffusers:
    """diffusers' network, scheduler and decoder in eager PyTorch, as its pipeline calls them.

    Args:
        checkpoint: a folder of a pipeline.
    """

    def __init__(self, checkpoint: Path, guidance: float) -> None:
        generator = load(checkpoint)
        text, network, decoder = (stage.module for stage in generator.stages)
        self._unet = network.get_submodule("unet")
        self._vae: Any = decoder.get_submodule("network.network.autoencoder")
        self._shape = generator.sampling.shape if generator.sampling else ()
        self._guidance = guidance
        self.parameters = sum(tensor.numel() for tensor in self._unet.parameters())
        config = json.loads((checkpoint / family.SCHEDULER).read_text()) | {"clip_sample": False}
        del config["_class_name"], config["skip_prk_steps"]
        self._scheduler_class: Any = diffusers.DDIMScheduler
        self._schedule = config
        with torch.inference_mode():
            self._contexts = text(torch.from_numpy(tokenised(generator)))

    @torch.inference_mode()
    def __call__(self, seed: int, n: int, steps: int) -> NDArray[np.uint8]:
        told, base = (context.expand(n, -1, -1) for context in self._contexts[:, None])
        contexts = torch.cat([base, told])
        latents = torch.from_numpy(np.stack([noise_of(seed + i, self._shape) for i in range(n)]))
        scheduler = self._scheduler_class.from_config(self._schedule)
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            both = torch.cat([latents] * 2)
            predicted = self._unet(both, t, encoder_hidden_states=contexts, return_dict=False)[0]
            without, within = predicted.chunk(2)
            guided = without + self._guidance * (within - without)
            latents = scheduler.step(guided, t, latents, return_dict=False)[0]
        scaled = latents / self._vae.config.scaling_factor
        image = self._vae.decode(scaled, return_dict=False)[0]
        image = (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        made: NDArray[np.uint8] = (image * 255).round().to(torch.uint8).numpy()
        return made


def load(checkpoint: Path) -> StagedGenerator:
    """The generator of a checkpoint, sampled by DDIM."""
    stable = find_family("stable_diffusion")
    options = stable.options(sampler="ddim")  # type: ignore[call-arg] # the family's own
    return stable.load(read_checkpoint(checkpoint, stable.files), options)


def tokenised(generator: StagedGenerator) -> NDArray[np.int64]:
    """Tokens of the prompt and of the empty one, int64 [2, length]."""
    assert generator.sampling is not None
    tokenizer = Tokenizer.from_str(generator.sampling.tokenizer)
    return np.array([entry.ids for entry in tokenizer.encode_batch([PROMPT, ""])], np.int64)
