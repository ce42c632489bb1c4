"""What engine is built of a release, and the configurations that serve it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from galatea._pbtxt import config_text
from galatea.errors import InvalidInput, RepositoryError
from galatea.local_variants import FOLDER, LocalVariant, add
from galatea.repository import Release
from galatea.tensorrt_engines import Engine, Gpu, engines_of
from galatea_server.configurations import CUDA, configurations, heavy

__all__ = ["Recipe", "recipe", "release_engine"]

REST = CUDA  # variant of the stages that get no engine
PROFILED = "tensorrt"  # variant that tells the shapes an engine must take
PLATFORM = "tensorrt_plan"


@dataclass(frozen=True)
class Recipe:
    """An engine to build.

    Attributes:
        model: the Triton model that gets it: the heaviest stage.
        graph: its ONNX file.
        profile: input → (smallest, best, largest shape), the batch included.
        fp16: whether the engine may compute in float16.
        max_batch: largest batch of the stage.
    """

    release: Release
    model: str
    graph: Path
    profile: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
    fp16: bool
    max_batch: int

    def file(self, gpu: str, tensorrt: str) -> str:
        """Path of the engine below the repository: Triton wants it beside the graph.

        Args:
            gpu: compute capability, "9.0".
            tensorrt: version, "10.4.0".
        """
        precision = "-fp16" if self.fp16 else ""
        name = f"model{precision}.sm{gpu.replace('.', '')}-trt{tensorrt}.plan"
        return f"{self.model}/{self.release.version}/{name}"

    def engine(self, gpu: Gpu, tensorrt: str) -> Engine:
        """What is noted of the engine."""
        file = self.file(gpu.compute_capability, tensorrt)
        return Engine(file, gpu.compute_capability, tensorrt, gpu.name)

    def configs(self, engines: Sequence[Engine], *, cuda_graphs: bool = False) -> dict[str, Any]:
        """The ModelConfig of each Triton model where the stage runs one of `engines`.

        Triton takes the engine of its GPU's compute capability. No file is named for others, so
        that it refuses the model there.

        Args:
            cuda_graphs: capture CUDA graphs of a single sample and of a whole batch.
        """
        configs = configurations(self.release, REST)
        config = configs[self.model]
        config.backend, config.platform = "tensorrt", PLATFORM
        config.ClearField("default_model_filename")
        config.ClearField("optimization")
        config.parameters.pop("intra_op_thread_count", None)
        for engine in engines:
            name = engine.file.rpartition("/")[2]
            config.cc_model_filenames[engine.compute_capability] = name
        del config.instance_group[:]
        config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_GPU, profile=["0"])
        if cuda_graphs:
            config.optimization.cuda.graphs = True
            for batch in sorted({1, self.max_batch}):
                spec = config.optimization.cuda.graph_spec.add(batch_size=batch)
                for name, (_, best, _) in self.profile.items():
                    spec.input[name].dim.extend(best[1:])
        return configs


def recipe(release: Release, *, fp16: bool = False) -> Recipe:
    """What is built for a release.

    Raises:
        InvalidInput: the release has no stage for a GPU.
        RepositoryError: its configurations cannot be read, or tell no shapes.
    """
    stages = heavy(release)
    if not stages:
        raise InvalidInput(
            f"{release.name} has no stage that a GPU would compute",
            "build engines of generators with a network",
        )
    model = max(stages, key=lambda stage: _weight(release, stage))
    config = configurations(release, PROFILED)[model]
    return Recipe(
        release=release,
        model=model,
        graph=release.root / model / str(release.version) / "model.onnx",
        profile=_profile(config, model),
        fp16=fp16,
        max_batch=config.max_batch_size,
    )


def release_engine(
    made: Recipe, engine: Engine, plan: bytes, variant: str, *, cuda_graphs: bool = False
) -> LocalVariant:
    """Adds an engine to the release, beside those of the variant for other GPUs.

    Args:
        plan: the serialised engine; it was compared with the graph.
        variant: its name, for ``galatea serve --model-config``.

    Raises:
        MachineError: the repository cannot be written.
    """
    release = made.release
    before = next((entry for entry in release.local() if entry.variant == variant), None)
    others = [
        other
        for other in (engines_of(before) if before else ())
        if other.compute_capability != engine.compute_capability
        and other.file == made.file(other.compute_capability, other.tensorrt)
    ]
    engines = sorted((*others, engine), key=lambda entry: entry.compute_capability)
    contents = {
        f"{model}/{release.version}/{FOLDER}/{variant}.pbtxt": config_text(config)
        for model, config in made.configs(engines, cuda_graphs=cuda_graphs).items()
    }
    kept = {other.file: before.files[other.file] for other in others if before}
    facts = {
        "made_by": "galatea engine build",
        "stage": made.model,
        "fp16": made.fp16,
        "engines": [entry.to_dict() for entry in engines],
    }
    return add(
        release.root, release.name, release.version, variant, {engine.file: plan, **contents},
        facts, active=release.active, kept=kept,
    )  # fmt: skip


def _weight(release: Release, model: str) -> int:
    """Bytes of a stage's graph with its weights."""
    folder = f"{model}/{release.version}/model.onnx"
    return sum(size for file, (size, _) in release.files.items() if file.startswith(folder))


def _profile(
    config: Any, model: str
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """The optimisation profile that a release's configuration has for TensorRT."""
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    for accelerator in accelerators:
        if accelerator.name == "tensorrt":
            low, best, high = (
                _shapes(accelerator.parameters[f"trt_profile_{which}_shapes"])
                for which in ("min", "opt", "max")
            )
            return {name: (low[name], best[name], high[name]) for name in low}
    raise RepositoryError(
        f"{model}: its variant {PROFILED!r} tells no shapes for TensorRT", "export the model again"
    )


def _shapes(text: str) -> dict[str, tuple[int, ...]]:
    """``latent:8x100,label:8x1`` as shapes by name."""
    pairs = (entry.rpartition(":") for entry in text.split(","))
    return {name: tuple(map(int, shape.split("x"))) for name, _, shape in pairs}
