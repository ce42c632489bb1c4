"""The usual generators, assembled from a network: from a latent, a picture, or by diffusion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from torch import nn

from galatea.card import Input, Preparation, Task
from galatea.errors import InvalidInput
from galatea_exporter.noise_graph import noise_stage
from galatea_exporter.pixels import Picture, Pixels, Source
from galatea_exporter.sampler.schedules import SAMPLERS, Schedule
from galatea_exporter.stages import Axis, Sampling, Stage, StagedGenerator, TensorSpec

SEED_INPUT = Input("seed", "INT64", "one seed, one image; any 64-bit integer")
BATCH_PIXELS = 2**23  # 8 images of 1024 × 1024: wide layers take gigabytes at that size
DIFFUSION_PIXELS = 2**20  # 4 of 512 × 512, whose attention and decoder take gigabytes a row
MAX_GUIDANCE = 50.0  # far beyond what any model was tuned for


def from_latent(
    network: nn.Module,
    *,
    latent: int,
    image: tuple[int, int, int],
    channels: tuple[str, ...],
    pixels: Pixels,
    noise: int = 0,
    conditions: tuple[Input, ...] = (),
    mapping: Stage | None = None,
    probes: tuple[TensorSpec, ...] = (),
    ignored: tuple[str, ...] = (),
) -> StagedGenerator:
    """seed → latent → (mapping) → network → image.

    Args:
        network: ``network(latent float32 [N, latent], noise float32 [N, noise], *conditions
            [N, 1])`` → float32 [N, C, H, W], or a tuple of that and the tensors of `probes`;
            without `noise`, that argument is left out. With a `mapping` the network takes the
            mapping's outputs in place of the latent and its conditions.
        latent: length of the latent.
        image: (C, H, W) of the network's output.
        channels: what each of the C channels means.
        pixels: how they become what is served.
        noise: values of the noise that the network takes beside its latent.
        conditions: public inputs besides the seed, each of one value.
        mapping: a stage between noise and synthesis.
        probes: what the network returns beside the picture.
        ignored: see :class:`StagedGenerator`.
    """
    first = noise_stage(latent, noise)
    outputs, specs = pixels.outputs(channels, image[1:])
    # What the mapping takes is its own affair; the network gets what it makes and all the rest.
    made = (*first.outputs, *map(control, conditions))
    taken = {spec.name for spec in mapping.inputs} if mapping else set()
    inputs = (
        *(mapping.outputs if mapping else ()),
        *(spec for spec in made if spec.name not in taken),
    )
    synthesis = Stage(
        "synthesis",
        Picture(network, len(channels), pixels).eval(),
        inputs,
        specs,
        (TensorSpec("floats", "float32", image), *probes),
    )
    return StagedGenerator(
        stages=(first, *([mapping] if mapping else []), synthesis),
        task="class-conditional" if any(c.name == "label" for c in conditions) else "unconditional",
        inputs=(SEED_INPUT, *conditions),
        outputs=outputs,
        value_range=pixels.value_range,
        ignored=ignored,
        max_batch=min(32, max(1, BATCH_PIXELS // (image[1] * image[2]))),
    )


def from_source(
    network: nn.Module,
    *,
    source: tuple[str, ...],
    size: tuple[int | Axis, int | Axis],
    span: tuple[float, float],
    preparation: Preparation,
    channels: tuple[str, ...],
    pixels: Pixels,
    conditions: tuple[Input, ...] = (),
    probes: tuple[TensorSpec, ...] = (),
    ignored: tuple[str, ...] = (),
) -> StagedGenerator:
    """picture → network → picture of the same size.

    Args:
        network: ``network(source float32 [N, C, H, W], *conditions [N, 1])`` → float32
            [N, C', H, W], or a tuple of that and the tensors of `probes`.
        source: what each of the C channels of the source means.
        size: height and width, numbers or free axes.
        span: what the network takes for the darkest and the brightest value of a source.
        preparation: what the client does to a picture; it decides whether the source is uint8.
        channels: what each of the C' channels means.
        pixels: how they become what is served.
        conditions: public inputs besides the source, each of one value.
        probes: what the network returns beside the picture.
        ignored: see :class:`StagedGenerator`.
    """
    levels = preparation.scale == "levels"
    spec = TensorSpec(
        "source", "uint8" if levels else "float32", (*size, len(source)), (0, 255 if levels else 1)
    )
    outputs, specs = pixels.outputs(channels, size)
    # A free axis keeps its place but not its bounds in what a network makes of it.
    floats = TensorSpec("floats", "float32", (len(channels), *size))
    stage = Stage(
        "translation",
        Picture(Source(network, *span, levels=levels), len(channels), pixels).eval(),
        (spec, *map(control, conditions)),
        specs,
        (floats, *probes),
    )
    public = Input(
        "source",
        "UINT8" if levels else "FP32",
        "the picture to translate, channels last",
        shape=spec.dims,
        channels=source,
    )
    return StagedGenerator(
        stages=(stage,),
        task="image-to-image",
        inputs=(public, *conditions),
        outputs=outputs,
        value_range=pixels.value_range,
        preparation=replace(
            preparation,
            multiple=max([1, *(axis.multiple for axis in spec.axes.values())]),
            minimum=max([1, *(axis.smallest for axis in spec.axes.values())]),
        ),
        ignored=ignored,
        max_batch=8,
    )


@dataclass(frozen=True)
class Text:
    """How a prompt becomes what a network takes as ``context``.

    Attributes:
        encoder: ``encoder(tokens int64 [N, length])`` → float32 [N, length, width].
        length, width: of a context.
        words: number of tokens that there are.
        tokenizer: JSON of the package ``tokenizers``; it pads and truncates to `length`.
    """

    encoder: nn.Module
    length: int
    width: int
    words: int
    tokenizer: str


def by_diffusion(
    network: nn.Module,
    *,
    schedule: Schedule,
    shape: tuple[int, ...],
    decoder: nn.Module | None,
    size: tuple[int, ...],
    channels: tuple[str, ...],
    pixels: Pixels,
    steps: int,
    guidance: float = 1.0,
    conditions: tuple[Input, ...] = (),
    unconditional: dict[str, float] | None = None,
    text: Text | None = None,
    spacing: tuple[float, ...] = (),
    ignored: tuple[str, ...] = (),
    tolerance: float = 1e-4,
    tolerance_reason: str = "",
) -> StagedGenerator:
    """seed → noise → network, many times → (decoder) → image.

    Args:
        network: ``network(x float32 [N, C, …], t float32 [N, 1], *conditions [N, 1])`` → float32
            [N, C, …], or [N, 2C, …] where the schedule's variance is learned. With a `text`, the
            last argument is its context float32 [N, length, width].
        schedule: of the training, with the sampler that the model came with.
        shape: of a sample, [C, …].
        decoder: ``decoder(sample float32 [N, C, …])`` → float32 [N, channels, *size]; None where
            the samples are the pixels.
        size: height and width, or the three sizes of a volume.
        channels: what each channel of an image means.
        pixels: how they become what is served.
        steps, guidance: what a request gets that does not say.
        conditions: public inputs besides the seed and the prompt, each of one value.
        unconditional: see :class:`Sampling`.
        text: of a generator that takes prompts.
        spacing: of a volume, the size of a voxel in mm along each axis.
        ignored, tolerance, tolerance_reason: see :class:`StagedGenerator`.

    Raises:
        InvalidInput: steps that the sampler can't take, or a guidance that requests could not ask
            for.
    """
    try:
        schedule.timesteps(schedule.sampler, steps)
    except ValueError as error:
        raise InvalidInput(str(error), "set the options steps and sampler") from error
    if not 0 <= guidance <= MAX_GUIDANCE:
        raise InvalidInput(
            f"a guidance of {guidance:g}", f"set guidance to a number from 0 to {MAX_GUIDANCE:g}"
        )
    outputs, specs = pixels.outputs(channels, size, spacing)
    factor = 2 if schedule.variance == "learned_range" else 1
    told = TensorSpec("t", "float32", (1,), (0, schedule.train_steps - 1))
    taken = [TensorSpec("x", "float32", shape), told, *map(control, conditions)]
    stages = []
    if text is not None:
        tokens = TensorSpec("tokens", "int64", (text.length,), (0, text.words - 1))
        context = TensorSpec("context", "float32", (text.length, text.width))
        stages.append(Stage("text", text.encoder.eval(), (tokens,), (context,)))
        taken.append(context)
    prediction = TensorSpec("prediction", "float32", (factor * shape[0], *shape[1:]))
    stages.append(
        Stage("unet", network.eval(), tuple(taken), (prediction,), batched=False, half=True)
    )
    name = "pixels" if decoder is None else "vae"
    picture = Picture(decoder or nn.Identity(), len(channels), pixels).eval()
    sample = TensorSpec("sample", "float32", shape)
    floats = TensorSpec("floats", "float32", (len(channels), *size))
    stages.append(
        Stage(name, picture, (sample,), specs, (floats,), accelerated=decoder is not None)
    )
    guided = text is not None or unconditional is not None
    task: Task = "class-conditional" if any(c.name == "label" for c in conditions) else (
        "unconditional"
    )  # fmt: skip
    return StagedGenerator(
        stages=tuple(stages),
        task="text-to-image" if text is not None else task,
        inputs=(
            SEED_INPUT,
            *(PROMPTS if text is not None else ()),
            *conditions,
            *_controls(schedule, steps, guidance if guided else None),
        ),
        outputs=outputs,
        value_range=pixels.value_range,
        sampling=Sampling(
            schedule,
            shape,
            name,
            tuple(condition.name for condition in conditions),
            unconditional,
            steps,
            guidance,
            "" if text is None else text.tokenizer,
        ),
        ignored=ignored,
        max_batch=min(16, max(1, DIFFUSION_PIXELS // prod(size))),
        tolerance=tolerance,
        tolerance_reason=tolerance_reason,
    )


PROMPTS = (
    Input("prompt", "BYTES", "what the image shall show"),
    Input("negative_prompt", "BYTES", "what it shall not show", default=""),
)


def _controls(schedule: Schedule, steps: int, guidance: float | None) -> Iterator[Input]:
    """What a request may choose of the sampling."""
    samplers = []
    for name in SAMPLERS:
        with suppress(ValueError):
            schedule.check(name)
            samplers.append(name)
    yield Input(
        "steps", "INT32", "denoising steps; more take longer",
        default=steps, minimum=1, maximum=schedule.train_steps,
    )  # fmt: skip
    yield Input(
        "sampler", "BYTES", "how a step is taken",
        choices=tuple(samplers), default=schedule.sampler,
    )  # fmt: skip
    yield Input(
        "eta", "FP32", "with ddim: the share of ddpm's noise that is added in each step",
        default=0.0, minimum=0.0, maximum=1.0,
    )  # fmt: skip
    if guidance is not None:
        yield Input(
            "guidance", "FP32", "how far the image follows the condition; 1 is no guidance",
            default=guidance, minimum=0.0, maximum=MAX_GUIDANCE,
        )  # fmt: skip


def control(condition: Input) -> TensorSpec:
    """The tensor of a public input with one value for each sample."""
    dtype: Literal["float32", "int64"] = "float32" if condition.dtype == "FP32" else "int64"
    low = condition.minimum if condition.minimum is not None else 0
    high = condition.maximum if condition.maximum is not None else low + 1
    if condition.labels:
        low, high = 0, len(condition.labels) - 1
    return TensorSpec(condition.name, dtype, (1,), (low, high))
