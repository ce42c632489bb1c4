"""From the stages of a generator to the graphs that are released, each compared with PyTorch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnxruntime

from galatea.card import Parity
from galatea_exporter.float16 import in_half, rehearsal
from galatea_exporter.float16_parity import SEEDS, compare_half, tolerance_of
from galatea_exporter.graph import (
    export_stage,
    open_session,
    serialise,
    stored,
    weights_of,
    without_probes,
)
from galatea_exporter.parity import Difference, compare
from galatea_exporter.release import Content, sha256
from galatea_exporter.sampling_parity import AMPLIFIED, STEPS, compare_sampling
from galatea_exporter.stages import Stage, StagedGenerator

__all__ = ["GRAPH", "GRAPH_FP16", "Compiled", "compile_stages"]

GRAPH, GRAPH_FP16 = "model.onnx", "model.fp16.onnx"
REHEARSAL = "rehearsal.onnx"


@dataclass(frozen=True)
class Compiled:
    """The graphs of a generator.

    Attributes:
        files: by stage, the content of each file of its version folder.
        parity, parity_sampling, parity_fp16: how far they are from PyTorch, as of the card.
    """

    files: dict[str, dict[str, Content]]
    parity: Parity
    parity_sampling: Parity | None = None
    parity_fp16: Parity | None = None

    def digests(self) -> dict[str, str]:
        """By stage, and by ``<stage>.fp16``, the sha256 of a graph with its weights."""
        found = {}
        for stage, files in self.files.items():
            for name, suffix in ((GRAPH, ""), (GRAPH_FP16, ".fp16")):
                parts = [sha256(files[file]) for file in (name, f"{name}.data") if file in files]
                if parts:
                    found[stage + suffix] = parts[0] if len(parts) == 1 else _joined(parts)
        return found


def compile_stages(
    generator: StagedGenerator,
    *,
    max_batch: int,
    fp16: bool,
    scratch: Path,
    progress: Callable[[str], None],
) -> Compiled:
    """The released graph of each stage.

    Args:
        max_batch: the largest batch to compare.
        fp16: also make graphs in float16 of the stages that make images or are called once a step.
        scratch: a folder for weights that are too large for a graph.

    Raises:
        ExportError: a stage cannot be exported, or is too far from PyTorch, in float16 too where
            that is asked for.
    """
    files: dict[str, dict[str, Content]] = {}
    sessions: dict[str, Any] = {}
    batches = tuple(sorted({batch for batch in (1, 2, 3, max_batch) if batch <= max_batch}))
    total, sampled, halved = Difference(), None, None
    models = {}
    for stage in generator.stages:
        progress(f"exporting stage {stage.name} to ONNX")
        path = scratch / stage.name / GRAPH
        path.parent.mkdir()
        model = export_stage(stage, path)
        files[stage.name], session = _released(model, stage, path)
        told = ", ".join(map(str, batches))
        progress(f"comparing stage {stage.name} with PyTorch at batch {told}")
        total += compare(stage, session, batches, generator.tolerance)
        sessions[stage.name] = session
        if fp16 and stage.halved:
            models[stage] = model
    if generator.sampling is not None:
        progress(f"comparing {STEPS} steps of sampling with PyTorch")
        sampled = _parity(
            compare_sampling(generator, sessions), (1,), AMPLIFIED * generator.tolerance,
            f"{STEPS} steps, which add up what the graphs differ in",
        )  # fmt: skip
    parity = _parity(total, batches, generator.tolerance, generator.tolerance_reason)
    sessions.clear()
    if models:
        # A step of diffusion takes gigabytes for a row.
        seeds = 1 if generator.sampling else min(SEEDS, max_batch)
        made, halved = _in_half(generator, models, seeds, scratch, progress)
        for name, further in made.items():
            files[name] |= further
    return Compiled(files, parity, sampled, halved)


def _released(model: Any, stage: Stage, path: Path) -> tuple[dict[str, Content], Any]:
    """The files of a graph, and a session of the graph with its probes."""
    session = open_session(serialise(model), path)
    files: dict[str, Content] = {path.name: serialise(without_probes(model, stage))}
    weights = weights_of(path)
    if weights.exists():
        files[weights.name] = weights
    return files, session


def _in_half(
    generator: StagedGenerator,
    models: Mapping[Stage, Any],
    batch: int,
    scratch: Path,
    progress: Callable[[str], None],
) -> tuple[dict[str, dict[str, Content]], Parity | None]:
    """The files of the graphs in float16, by stage, and how far they are from PyTorch.

    Args:
        models: the graphs in float32.
        batch: images that are compared.
    """
    files: dict[str, dict[str, Content]] = {}
    halves: dict[str, Any] = {}
    sessions: dict[str, Any] = {}
    for stage, model in models.items():
        progress(f"converting stage {stage.name} to float16")
        folder = scratch / stage.name
        half = in_half(model, folder)
        if half is not None:
            path = folder / GRAPH_FP16
            files[stage.name], sessions[stage.name] = _released(stored(half, path), stage, path)
            halves[stage.name] = half
    if not files:
        return {}, None
    progress(f"comparing float16 with PyTorch at batch {batch}")
    apart = compare_half(generator, sessions, 1)
    for name, half in halves.items():
        path = scratch / name / REHEARSAL
        sessions[name] = open_session(serialise(stored(rehearsal(half), path)), path)
    apart += compare_half(generator, sessions, batch)
    tolerance = max(tolerance_of(stage, generator.value_range) for stage in models)
    figures = _parity(apart.values, (batch,), round(tolerance, 4), "float16")
    psnr = None if apart.psnr is None else round(apart.psnr, 1)
    return files, replace(figures, psnr=psnr, runtime=f"{figures.runtime}, rounded to float16")


def _parity(
    difference: Difference, batches: Sequence[int], tolerance: float, reason: str
) -> Parity:
    return Parity(
        max_abs=float(f"{difference.max_abs:.3g}"),
        tolerance=tolerance,
        max_levels=difference.max_levels,
        share_differing=float(f"{difference.share_differing:.3g}"),
        batches=tuple(batches),
        runtime=f"onnxruntime {onnxruntime.__version__} CPU",
        tolerance_reason=reason,
    )


def _joined(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
