"""The usual generators, assembled from a network: from a seed, or from a picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import nn

from galatea.card import Input, Preparation
from galatea_exporter.noise_graph import noise_stage
from galatea_exporter.pixels import Picture, Pixels, Source
from galatea_exporter.stages import Axis, Stage, StagedGenerator, TensorSpec

SEED_INPUT = Input("seed", "INT64", "one seed, one image; any 64-bit integer")
BATCH_PIXELS = 2**23  # 8 images of 1024 × 1024: wide layers take gigabytes at that size


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


def control(condition: Input) -> TensorSpec:
    """The tensor of a public input with one value for each sample."""
    dtype: Literal["float32", "int64"] = "float32" if condition.dtype == "FP32" else "int64"
    low = condition.minimum if condition.minimum is not None else 0
    high = condition.maximum if condition.maximum is not None else low + 1
    if condition.labels:
        low, high = 0, len(condition.labels) - 1
    return TensorSpec(condition.name, dtype, (1,), (low, high))
