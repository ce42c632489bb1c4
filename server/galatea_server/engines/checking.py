"""Inputs of a stage as they come in production, and what its ONNX graph makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.card import Input, ModelCard
from galatea.errors import ExportError
from galatea_server.configurations import CPU, configurations
from galatea_server.engines.recipe import Recipe
from galatea_server.sameness import difference

__all__ = ["check", "inputs", "reference"]

Arrays = dict[str, NDArray[Any]]

SMALL_BATCHES = (1, 2)


def inputs(recipe: Recipe, seed: int = 0) -> Iterator[Arrays]:
    """Inputs of the stage with 1, 2 and as many samples as it takes.

    Behind stages of an ensemble they are what those make of seeds and conditions; elsewhere
    pictures and values by chance, of the shapes that the engine is best at.
    """
    largest = max(1, recipe.max_batch)
    for batch in sorted({*(size for size in SMALL_BATCHES if size <= largest), largest}):
        yield _chained(recipe, batch, seed) or _drawn(recipe, batch, seed)


def reference(recipe: Recipe, feeds: Iterable[Arrays]) -> Iterator[Arrays]:
    """The outputs of the ONNX graph on the CPU for each of the inputs."""
    session = _session(recipe.graph)
    names = [entry.name for entry in session.get_outputs()]
    for feed in feeds:
        yield dict(zip(names, session.run(names, feed), strict=True))


def check(
    card: ModelCard, recipe: Recipe, wanted: Iterable[Arrays], made: Iterable[Arrays]
) -> None:
    """Compares an engine's outputs with those of the graph.

    Raises:
        ExportError: they are further apart than the quality bar allows of another processor, or in
            float16 than the card's figure.
    """
    variant = "tensorrt-fp16" if recipe.fp16 else "tensorrt"
    for before, after in zip(wanted, made, strict=True):
        reason = difference(card, CPU, variant, before, after)
        if reason:
            batch = len(next(iter(before.values())))
            raise ExportError(
                f"the engine of {recipe.model} is not its graph, at batch {batch}: {reason}",
                "nothing was released; serve it with --model-config cuda"
                + (", or build it without --fp16" if recipe.fp16 else ""),
            )


def _chained(recipe: Recipe, batch: int, seed: int) -> Arrays:
    """What the ensemble's stages before this one make; nothing where there is no ensemble."""
    configs = configurations(recipe.release, CPU)
    public = configs[recipe.release.name]
    if public.platform != "ensemble":
        return {}
    card = recipe.release.card()
    known = {entry.name: _condition(entry, batch, seed) for entry in card.inputs}
    for step in public.ensemble_scheduling.step:
        feed = {inner: known[outer] for inner, outer in step.input_map.items()}
        if step.model_name == recipe.model:
            return feed
        graph = recipe.release.root / step.model_name / str(recipe.release.version) / "model.onnx"
        session = _session(graph)
        names = list(step.output_map)
        made = dict(zip(names, session.run(names, feed), strict=True))
        known |= {outer: made[inner] for inner, outer in step.output_map.items()}
    return {}


def _condition(entry: Input, batch: int, seed: int) -> NDArray[Any]:
    """Values of a public input, [batch, 1]: other seeds, and all that the card allows in turn."""
    rows = np.arange(batch).reshape(batch, 1)
    if entry.name == "seed":
        return (seed + rows).astype(np.int64)
    if entry.labels:
        return (rows % len(entry.labels)).astype(np.int64)
    low, high = entry.minimum or 0, entry.maximum if entry.maximum is not None else 1
    values = low + (high - low) * rows / max(1, batch - 1)
    return values.astype(np.float32 if entry.dtype == "FP32" else np.int64)


def _drawn(recipe: Recipe, batch: int, seed: int) -> Arrays:
    generator = np.random.default_rng(seed)
    feed: Arrays = {}
    for entry in _session(recipe.graph).get_inputs():
        shape = (batch, *recipe.profile[entry.name][1][1:])
        if entry.type == "tensor(uint8)":
            feed[entry.name] = generator.integers(0, 256, shape, np.uint8)
        elif entry.type == "tensor(int64)":
            feed[entry.name] = np.zeros(shape, np.int64)
        else:
            feed[entry.name] = generator.standard_normal(shape, np.float32)
    return feed


def _session(graph: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
