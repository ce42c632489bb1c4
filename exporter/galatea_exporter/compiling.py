"""From the stages of a generator to the graphs that are released, each compared with PyTorch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from galatea.card import Parity
from galatea_exporter import half
from galatea_exporter.graph import (
    export_stage,
    open_session,
    serialise,
    weights_of,
    without_probes,
)
from galatea_exporter.parity import Difference, compare
from galatea_exporter.release import Content, sha256
from galatea_exporter.sampling_parity import AMPLIFIED, STEPS, compare_sampling
from galatea_exporter.stages import Stage, StagedGenerator

__all__ = ["GRAPH", "GRAPH_FP16", "Compiled", "compile_stages"]

GRAPH, GRAPH_FP16 = "model.onnx", "model.fp16.onnx"
FEW = 2  # largest batch of comparisons in float16, which the CPU computes slowly


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
        fp16: also make graphs in float16 of the stages that are worth it.
        scratch: a folder for weights that are too large for a graph.

    Raises:
        ExportError: a stage cannot be exported, or is too far from PyTorch.
    """
    files: dict[str, dict[str, Content]] = {}
    sessions: dict[str, Any] = {}
    batches = tuple(sorted({batch for batch in (1, 2, 3, max_batch) if batch <= max_batch}))
    total, sampled = Difference(), None
    for stage in generator.stages:
        progress(f"exporting stage {stage.name} to ONNX")
        files[stage.name], session = _compiled(stage, scratch / stage.name / GRAPH)
        told = ", ".join(map(str, batches))
        progress(f"comparing stage {stage.name} with PyTorch at batch {told}")
        total += compare(stage, session, batches, generator.tolerance)
        sessions[stage.name] = session
    if generator.sampling is not None:
        progress(f"comparing {STEPS} steps of sampling with PyTorch")
        sampled = _parity(
            compare_sampling(generator, sessions), (1,), AMPLIFIED * generator.tolerance,
            f"{STEPS} steps, which add up what the graphs differ in",
        )  # fmt: skip
    parity = _parity(total, batches, generator.tolerance, generator.tolerance_reason)
    sessions.clear()
    halves = [stage for stage in generator.stages if stage.half and fp16]
    few = tuple(batch for batch in batches if batch <= FEW)
    apart = Difference()
    for stage in halves:
        progress(f"exporting stage {stage.name} in float16")
        made, session = _compiled(half.in_half(stage), scratch / stage.name / GRAPH_FP16)
        progress(f"comparing stage {stage.name} in float16 with PyTorch")
        apart += compare(stage, session, few, half.TOLERANCE)
        files[stage.name] |= made
    parity_fp16 = _parity(apart, few, half.TOLERANCE, "float16") if halves else None
    return Compiled(files, parity, sampled, parity_fp16)


def _compiled(stage: Stage, path: Path) -> tuple[dict[str, Content], Any]:
    """The files of a graph, and a session of the graph with its probes."""
    path.parent.mkdir(exist_ok=True)
    model = export_stage(stage, path)
    session = open_session(serialise(model), path)
    files: dict[str, Content] = {path.name: serialise(without_probes(model, stage))}
    weights = weights_of(path)
    if weights.exists():
        files[weights.name] = weights
    return files, session


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
