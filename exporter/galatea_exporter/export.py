"""The whole way from a checkpoint to a release."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import onnxruntime

import galatea
from galatea.card import Metric, ModelCard, Parity, from_plain
from galatea.errors import InvalidInput
from galatea.repository import Release
from galatea_exporter import release as releasing
from galatea_exporter.checkpoint import Checkpoint, read_checkpoint
from galatea_exporter.family import Family, Options, find_family, parse_options
from galatea_exporter.graph import digest, export_stage, serialise, without_probes
from galatea_exporter.parity import Difference, compare
from galatea_exporter.stages import Stage, StagedGenerator
from galatea_exporter.triton_config import (
    DEFAULT_VARIANT,
    VARIANTS,
    ensemble_config,
    stage_config,
    to_text,
)

__all__ = ["Exported", "Facts", "export"]

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")  # a dot separates the public name from a stage

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Facts:
    """What a person knows about a model and no checkpoint tells: the table of ``card.toml``.

    ``options`` holds family options that belong to this model.
    """

    title: str = ""
    description: str = ""
    modality: str = ""
    organ: str = ""
    generates: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    year: int | None = None
    catalogue_id: str = ""
    training_dataset: str = ""
    licence: str = ""
    doi: str = ""
    citation: str = ""
    source: str = ""
    metrics: tuple[Metric, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Facts:
        """Reads ``card.toml``.

        Raises:
            InvalidInput: no such file, not TOML, or a key that a card does not have.
        """
        try:
            return from_plain(cls, tomllib.loads(path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
            raise InvalidInput(
                f"{path}: {getattr(error, 'strerror', None) or error}",
                "see docs/exporting.md for the keys of a card",
            ) from error


@dataclass(frozen=True)
class Exported:
    """What an export did.

    Attributes:
        release: the release, in the repository unless it was a dry run.
        card: its model card.
        ignored: what the checkpoint held that inference does not use, with reasons.
        written: False for a dry run, and when the same release was there already.
    """

    release: Release
    card: ModelCard
    ignored: tuple[str, ...]
    written: bool


def export(
    family: str,
    checkpoint: Path,
    *,
    name: str,
    repository: Path,
    facts: Facts | None = None,
    settings: Mapping[str, str] | None = None,
    version: int | None = None,
    max_batch: int | None = None,
    dry_run: bool = False,
    progress: Progress = lambda step: None,
) -> Exported:
    """Exports a checkpoint into a model repository.

    Args:
        family: name or alias of a family.
        checkpoint: the file, or the folder of a family with several; nothing in it is executed.
        name: public name of the model in Triton.
        repository: folder of the model repository, made if it is not there.
        facts: what the card says beyond the checkpoint.
        settings: family options as texts; they win over those in `facts`.
        version: default is the next one, or the newest where it holds the very same bytes.
        max_batch: largest batch of a request; default is the generator's.
        dry_run: do everything but write.
        progress: called with a sentence at each step.

    Raises:
        InvalidInput: a name, option or fact that is not valid.
        ExportError: the checkpoint is unsafe, damaged or of another family, or parity failed.
        RepositoryError: `version` is released with other content.
        MachineError: the repository cannot be written.
    """
    _check_arguments(name, version, max_batch)
    facts = facts or Facts()
    chosen = find_family(family)
    given = {**_texts(facts.options), **(settings or {})}
    parse_options(chosen.options, given)  # a mistake is told before a long read
    progress(f"reading {checkpoint}")
    source = read_checkpoint(checkpoint, chosen.files, chosen.modules)
    options = parse_options(chosen.options, {**_texts(chosen.arguments(source)), **given})
    generator = chosen.load(source, options)
    max_batch = max_batch or generator.max_batch
    graphs, parity = _graphs(generator, max_batch, progress)
    card = _card(name, chosen, options, facts, source, generator, graphs, parity)
    # Exporting the same thing again is no new version: the newest one is tried first.
    newest = releasing.newest(repository, name)
    for number in [version] if version else [newest, newest + 1] if newest else [1]:
        card = replace(card, version=number)
        files, models = _files(card, generator.stages, graphs, max_batch)
        release = releasing.draft(repository, models, number, files)
        if releasing.is_there(release):
            break
    written = False
    if not dry_run:
        progress(f"writing {name} version {card.version}")
        written = releasing.write(release, files)
    return Exported(release, card, generator.ignored, written)


def _check_arguments(name: str, version: int | None, max_batch: int | None) -> None:
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is no model name",
            "use lower-case letters, digits, '-' and '_', at most 63, starting with no sign",
        )
    if version is not None and version < 1:
        raise InvalidInput(f"version {version} is no version", "versions start at 1")
    if max_batch is not None and max_batch < 1:
        raise InvalidInput(f"a batch of {max_batch} is no batch", "give 1 or more")


def _graphs(
    generator: StagedGenerator, max_batch: int, progress: Progress
) -> tuple[dict[str, bytes], Parity]:
    """The released graph of each stage, and how far it is from PyTorch."""
    batches = tuple(sorted({batch for batch in (1, 2, 3, max_batch) if batch <= max_batch}))
    graphs, total = {}, Difference()
    for stage in generator.stages:
        progress(f"exporting stage {stage.name} to ONNX")
        model = export_stage(stage)
        progress(
            f"comparing stage {stage.name} with PyTorch at batch {', '.join(map(str, batches))}"
        )
        total += compare(stage, serialise(model), batches, generator.tolerance)
        graphs[stage.name] = serialise(without_probes(model, stage))
    parity = Parity(
        max_abs=float(f"{total.max_abs:.3g}"),
        tolerance=generator.tolerance,
        max_levels=total.max_levels,
        share_differing=float(f"{total.share_differing:.3g}"),
        batches=batches,
        runtime=f"onnxruntime {onnxruntime.__version__} CPU",
        tolerance_reason=generator.tolerance_reason,
    )
    return graphs, parity


def _card(
    name: str,
    family: Family,
    options: Options,
    facts: Facts,
    source: Checkpoint,
    generator: StagedGenerator,
    graphs: Mapping[str, bytes],
    parity: Parity,
) -> ModelCard:
    told = {entry.name: getattr(facts, entry.name) for entry in fields(Facts)}
    del told["options"]
    return ModelCard(
        name=name,
        version=0,  # set when the version is known
        family=family.name,
        task=generator.task,
        inputs=generator.inputs,
        outputs=generator.outputs,
        configuration=asdict(options),
        value_range=generator.value_range,
        preparation=generator.preparation,
        noise="v1" if any(entry.name == "seed" for entry in generator.inputs) else "",
        checkpoint_sha256=source.sha256,
        parity=parity,
        graphs={stage: digest(graph) for stage, graph in graphs.items()},
        exporter=f"galatea {galatea.__version__}",
        **told,
    )


def _files(
    card: ModelCard, stages: tuple[Stage, ...], graphs: Mapping[str, bytes], max_batch: int
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Path below the repository → content, and the names of the Triton models.

    Several stages are joined by an ensemble with the public name; a single one has it itself.
    """
    alone = len(stages) == 1
    named = [(card.name if alone else f"{card.name}.{stage.name}", stage) for stage in stages]
    files: dict[str, bytes] = {}
    for model, stage in named:
        folder = f"{model}/{card.version}"
        files[f"{folder}/model.onnx"] = graphs[stage.name]
        for variant in VARIANTS:
            text = to_text(
                stage_config(
                    model, stage,
                    version=card.version, max_batch=max_batch, variant=variant,
                    graph_sha256=card.graphs[stage.name],
                    card=card if alone else None,
                )
            )  # fmt: skip
            files[f"{folder}/configs/{variant}.pbtxt"] = text
            if variant == DEFAULT_VARIANT:
                files[f"{folder}/config.pbtxt"] = text
    if alone:
        return files, (card.name,)
    config = to_text(ensemble_config(card, named, max_batch))
    files[f"{card.name}/{card.version}/config.pbtxt"] = config
    return files, (*[model for model, _ in named], card.name)


def _texts(options: Mapping[str, Any]) -> dict[str, str]:
    """Options of ``card.toml`` as the texts that ``--set`` takes."""
    return {
        key: ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for key, value in options.items()
    }
