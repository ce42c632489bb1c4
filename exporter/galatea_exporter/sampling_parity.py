"""Parity of a diffusion generator as a whole: from noise to image, in PyTorch and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from galatea_exporter.graph import example_inputs
from galatea_exporter.parity import Difference, difference, judge
from galatea_exporter.sampler.jobs import Sample
from galatea_exporter.sampler.noise import noise_of
from galatea_exporter.sampler.samplers import Settings, start
from galatea_exporter.stages import Sampling, Stage, StagedGenerator

STEPS = 4  # enough for every sampler to have left its start
# Each step divides what the graphs differ in by the little that is left of the image at first.
AMPLIFIED = 10.0

Array = NDArray[Any]
Call = Callable[[Stage, Mapping[str, Array]], dict[str, Array]]


def compare_sampling(generator: StagedGenerator, sessions: Mapping[str, Any]) -> Difference:
    """Samples once in PyTorch and once in ONNX Runtime, with few steps.

    Args:
        generator: of diffusion.
        sessions: onnxruntime.InferenceSession of each stage with its probes.

    Raises:
        ExportError: a figure is beyond its bound; it is named.
    """
    assert generator.sampling is not None
    made, expected = (
        sample(generator, generator.sampling, call)
        for call in (partial(in_onnx, sessions), in_torch)
    )
    total = Difference()
    for name, want in expected.items():
        apart = difference(name, want, made[name])
        bound = AMPLIFIED * generator.tolerance
        judge(apart, bound, f"sampling with {STEPS} steps, {name}")
        total += apart
    return total


def sample(generator: StagedGenerator, sampling: Sampling, call: Call) -> dict[str, Array]:
    """Outputs and probes of the decoder for one sample."""
    stages = {stage.name: stage for stage in generator.stages}
    unet, decoder = stages["unet"], stages[sampling.decoder]
    conditions, unconditional = _contexts(stages, sampling, call)
    noise = partial(noise_of, 0, sampling.shape)
    settings = Settings(STEPS, sampling.schedule.sampler)
    run = start(settings, sampling.schedule, sampling.shape, noise)
    one = Sample(run, conditions, unconditional, sampling.guidance)
    while not run.finished:
        x, t = run.row()
        predictions = [
            call(unet, _batch({"x": x, "t": np.array([t], np.float32), **context}))["prediction"][0]
            for context in one.contexts()
        ]
        run.advance(one.combined(predictions))
    return call(decoder, _batch({"sample": run.sample}))


def in_torch(stage: Stage, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs and probes of a stage in PyTorch, by name."""
    with torch.no_grad():
        made = stage.module(*(torch.from_numpy(feed[spec.name]) for spec in stage.inputs))
    arrays = [tensor.numpy() for tensor in (made if isinstance(made, tuple) else (made,))]
    return dict(zip(_names(stage), arrays, strict=True))


def in_onnx(
    sessions: Mapping[str, Any], stage: Stage, feed: Mapping[str, Array]
) -> dict[str, Array]:
    """The same in ONNX Runtime."""
    made = sessions[stage.name].run(_names(stage), dict(feed))
    return dict(zip(_names(stage), made, strict=True))


def _contexts(
    stages: Mapping[str, Stage], sampling: Sampling, call: Call
) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """Conditions of the examples, and those of the row without guidance."""
    unet = stages["unet"]
    examples = dict(
        zip(
            (spec.name for spec in unet.inputs),
            (tensor.numpy() for tensor in example_inputs(unet, 1)),
            strict=True,
        )
    )
    told = {name: examples[name][0] for name in sampling.conditions}
    base = None
    if sampling.unconditional is not None:
        base = {
            name: np.full_like(told[name], value) for name, value in sampling.unconditional.items()
        }
    if "text" in stages:
        prompt, negative = (
            call(stages["text"], {"tokens": example_inputs(stages["text"], 1, seed)[0].numpy()})
            for seed in (1, 2)
        )
        base = {**told, **(base or {}), "context": negative["context"][0]}
        told["context"] = prompt["context"][0]
    return told, base


def _batch(feed: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array[None] for name, array in feed.items()}


def _names(stage: Stage) -> list[str]:
    return [spec.name for spec in (*stage.outputs, *stage.probes)]
