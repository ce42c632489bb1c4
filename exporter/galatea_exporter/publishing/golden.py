"""What a release makes of eight seeds, computed by its own graphs in this process.

An ensemble and a single graph are called as Triton calls them, by the names in their
``config.pbtxt``; a diffusion generator goes through the sampler that is in its release.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from galatea._pbtxt import read_config
from galatea.card import Input, ModelCard
from galatea.errors import InvalidInput, RepositoryError
from galatea.repository import Release
from galatea_exporter.publishing.diffusion import Diffusion

__all__ = ["SEEDS", "Golden", "compute"]

SEEDS = tuple(range(8))
SIDE = 64  # pixels of a picture whose size is free, at least
WIDTHS = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32, "UINT8": np.uint8}

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True, eq=False)
class Golden:
    """Eight samples, one by one and all at once.

    Attributes:
        inputs: what was asked for, by name, [8, …].
        alone, together: outputs by name, [8, …], at batch 1 and at batch `batch`.
        batch: 8, or the largest that the model takes.
        seconds: median time of one sample at batch 1.
        memory: bytes that making them took at the most beyond those of this process before; None
            where the system does not tell.
    """

    inputs: dict[str, Array]
    alone: dict[str, Array]
    together: dict[str, Array]
    batch: int
    seconds: float
    memory: int | None


def compute(
    release: Release, card: ModelCard, *, steps: int | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Golden:  # fmt: skip
    """Makes the golden samples of a release.

    Args:
        steps: of a diffusion model; default is what its card says.

    Raises:
        InvalidInput: `steps` is for another model, or not one that this one takes.
        RepositoryError: a graph cannot be loaded or fails.
    """
    if steps is not None and card.steps is None:
        raise InvalidInput(f"{card.name} takes no steps", "leave out --steps")
    try:
        with _peak() as peak:
            config = _configuration(release, release.name)
            run = _runner(release, config)
            batch = min(len(SEEDS), max(1, config.max_batch_size))
            inputs = golden_inputs(card, len(SEEDS))
            if steps is not None:
                inputs["steps"] = np.full((len(SEEDS), 1), steps, np.int32)
            progress(f"making {len(SEEDS)} golden samples one by one")
            alone, seconds = _made(run, inputs, 1)
            progress(f"making {len(SEEDS)} golden samples at batch {batch}")
            together, _ = _made(run, inputs, batch)
    except InvalidInput:
        raise
    except Exception as error:  # ONNX Runtime and the sampler have errors of many kinds
        raise RepositoryError(
            f"{release.name} version {release.version} does not run: {error}",
            "run galatea repo verify, then export the model again",
        ) from error
    return Golden(inputs, alone, together, batch, seconds, peak())


def golden_inputs(card: ModelCard, n: int) -> dict[str, Array]:
    """Inputs of `n` golden samples: classes and choices in turn, else defaults or whole ranges."""
    return {
        entry.name: np.stack([_value(entry, card, i, n) for i in range(n)]) for entry in card.inputs
    }


def _value(entry: Input, card: ModelCard, i: int, n: int) -> Array:
    if entry.name == "source":
        return _picture(entry, card, i)
    if entry.dtype == "BYTES":
        chosen = entry.choices[i % len(entry.choices)] if entry.choices else card.modality
        text = chosen if entry.default is None else str(entry.default)
        return np.array([text.encode()], np.object_)
    kind = WIDTHS[entry.dtype]
    if entry.name == "seed":
        return np.array([SEEDS[i]], kind)
    if entry.labels:
        return np.array([i % len(entry.labels)], kind)
    if entry.default is not None:
        return np.array([entry.default], kind)
    low, high = entry.minimum or 0, entry.maximum or 0
    return np.array([low + (high - low) * i / max(1, n - 1)], kind)


def _picture(entry: Input, card: ModelCard, i: int) -> Array:
    """A picture of coarse noise, as the model's preparation would hand it over."""
    way = card.preparation
    sides = list(way.size) if way and way.size else [0, 0]
    multiple, least = (way.multiple, max(way.minimum, SIDE)) if way else (1, SIDE)
    free = -(-least // multiple) * multiple
    shape = [
        size if size > 0 else (sides[k] if k < 2 and sides[k] else free)
        for k, size in enumerate(entry.shape)
    ]
    random = np.random.default_rng(SEEDS[i])
    coarse = random.integers(0, 256, [-(-size // 8) for size in shape[:-1]] + shape[-1:])
    for axis, size in enumerate(shape[:-1]):
        coarse = coarse.repeat(8, axis).take(range(size), axis)
    if entry.dtype == "UINT8":
        return coarse.astype(np.uint8)
    scaled: Array = (coarse / 255).astype(np.float32)
    return scaled


def _runner(release: Release, config: Any) -> Run:
    if config.backend == "python":
        return Diffusion(release, config).run
    if config.platform == "ensemble":
        return _Chain(release, config).run
    return _Graph(_graph_of(release, config.name, config)).run


class _Graph:
    """One ONNX graph."""

    def __init__(self, path: Path) -> None:
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(path, providers=providers)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(self._outputs, self._session.run(None, dict(feed)), strict=True))


class _Chain:
    """The steps of an ensemble, each with the names of its inputs and outputs in the ensemble."""

    def __init__(self, release: Release, config: Any) -> None:
        self._outputs = [output.name for output in config.output]
        self._steps = [
            (_Graph(_graph_of(release, step.model_name)), dict(step.input_map),
             dict(step.output_map))
            for step in config.ensemble_scheduling.step
        ]  # fmt: skip

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        known = dict(feed)
        for graph, inputs, outputs in self._steps:
            made = graph.run({name: known[place] for name, place in inputs.items()})
            known |= {place: made[name] for name, place in outputs.items()}
        return {name: known[name] for name in self._outputs}


def _configuration(release: Release, model: str) -> Any:
    path = release.root / model / str(release.version) / "config.pbtxt"
    try:
        return read_config(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _graph_of(release: Release, model: str, config: Any = None) -> Path:
    config = _configuration(release, model) if config is None else config
    file: str = config.default_model_filename
    return release.root / model / str(release.version) / file


def _made(run: Run, inputs: Mapping[str, Array], batch: int) -> tuple[dict[str, Array], float]:
    """Outputs of all samples in batches, and the median time of a batch."""
    parts, seconds = [], []
    for start in range(0, len(SEEDS), batch):
        began = time.perf_counter()
        parts.append(run({name: array[start : start + batch] for name, array in inputs.items()}))
        seconds.append(time.perf_counter() - began)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return joined, statistics.median(seconds)


@contextmanager
def _peak() -> Iterator[Callable[[], int | None]]:
    """Yields what tells, after the block, by how much the process grew in it at the most."""
    found: int | None = None
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _status("VmRSS")
    except OSError:
        before = None
    yield lambda: found
    if before is not None:
        found = max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))
