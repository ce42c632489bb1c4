"""The whole way from a checkpoint to a release."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import galatea
from galatea._pbtxt import config_text
from galatea.card import Metric, ModelCard, from_plain
from galatea.errors import InvalidInput
from galatea.repository import Release
from galatea_exporter import release as releasing
from galatea_exporter.checkpoint import Checkpoint, read_checkpoint
from galatea_exporter.compiling import GRAPH_FP16, Compiled, compile_stages
from galatea_exporter.family import Family, Options, find_family, parse_options
from galatea_exporter.release import Content
from galatea_exporter.sampler import engine_files
from galatea_exporter.stages import StagedGenerator
from galatea_exporter.triton_config import (
    DEFAULT_VARIANT,
    VARIANTS,
    ensemble_config,
    sampler_config,
    stage_config,
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
    intended_use: str = ""
    limitations: str = ""
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
    fp16: bool = False,
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
        fp16: also make graphs in float16 of what makes images, for the variant ``cuda-fp16``.
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
    rows = max(max_batch, 2) if generator.sampling and generator.sampling.guided else max_batch
    with TemporaryDirectory(prefix="galatea-export-") as scratch:
        graphs = compile_stages(
            generator, max_batch=rows, fp16=fp16, scratch=Path(scratch), progress=progress
        )
        card = _card(name, chosen, options, facts, source, generator, graphs)

        def make(number: int) -> tuple[dict[str, Content], tuple[str, ...]]:
            return _files(replace(card, version=number), generator, graphs, max_batch, rows)

        release, files = releasing.following(repository, name, make, version)
        card = replace(card, version=release.version)
        written = False
        if not dry_run:
            progress(f"writing {name} version {card.version}")
            written = releasing.write(release, files)
    return Exported(release, card, generator.ignored, written)


def check_name(name: str) -> None:
    """Whether a model may be called so.

    Raises:
        InvalidInput: it may not.
    """
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is no model name",
            "use lower-case letters, digits, '-' and '_', at most 63, starting with no sign",
        )


def _check_arguments(name: str, version: int | None, max_batch: int | None) -> None:
    check_name(name)
    if version is not None and version < 1:
        raise InvalidInput(f"version {version} is no version", "versions start at 1")
    if max_batch is not None and max_batch < 1:
        raise InvalidInput(f"a batch of {max_batch} is no batch", "give 1 or more")


def _card(
    name: str,
    family: Family,
    options: Options,
    facts: Facts,
    source: Checkpoint,
    generator: StagedGenerator,
    graphs: Compiled,
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
        parity=graphs.parity,
        parity_sampling=graphs.parity_sampling,
        parity_fp16=graphs.parity_fp16,
        graphs=graphs.digests(),
        exporter=f"galatea {galatea.__version__}",
        **told,
    )


def _files(
    card: ModelCard, generator: StagedGenerator, graphs: Compiled, max_batch: int, rows: int
) -> tuple[dict[str, Content], tuple[str, ...]]:
    """Path below the repository → content, and the names of the Triton models.

    Several stages are joined by a model with the public name: an ensemble, or the engine of a
    diffusion generator. A single one has that name itself. `max_batch` is that of a request, `rows`
    that of a stage.
    """
    alone = len(generator.stages) == 1
    named = [
        (card.name if alone else f"{card.name}.{stage.name}", stage) for stage in generator.stages
    ]
    files: dict[str, Content] = {}
    for model, stage in named:
        made = graphs.files[stage.name]
        files |= {f"{model}/{card.version}/{name}": content for name, content in made.items()}
        configs = {
            variant: stage_config(
                model, stage,
                version=card.version, max_batch=rows, variant=variant,
                graph_sha256=card.graphs[stage.name],
                graph_fp16=GRAPH_FP16 if GRAPH_FP16 in made else None,
                card=card if alone else None,
            )
            for variant in VARIANTS
        }  # fmt: skip
        files |= _configurations(f"{model}/{card.version}", configs)
    models = [model for model, _ in named]
    if generator.sampling is not None:
        for stream in (True, False):
            configs = {
                variant: sampler_config(
                    card,
                    generator.sampling,
                    max_batch=max_batch,
                    rows=rows,
                    variant=variant,
                    stream=stream,
                )
                for variant in VARIANTS
            }
            models.append(configs[DEFAULT_VARIANT].name)
            folder = f"{models[-1]}/{card.version}"
            files |= _configurations(folder, configs)
            engine = engine_files(generator.sampling)
            files |= {f"{folder}/{name}": content for name, content in engine.items()}
    elif not alone:
        models.append(card.name)
        config = config_text(ensemble_config(card, named, max_batch))
        files[f"{card.name}/{card.version}/config.pbtxt"] = config
    return files, tuple(models)


def _configurations(folder: str, configs: Mapping[str, Any]) -> dict[str, Content]:
    """The configurations of a model's version folder, by variant, and the one by default."""
    texts = {variant: config_text(config) for variant, config in configs.items()}
    files: dict[str, Content] = {
        f"{folder}/configs/{variant}.pbtxt": text for variant, text in texts.items()
    }
    return {**files, f"{folder}/config.pbtxt": texts[DEFAULT_VARIANT]}


def _texts(options: Mapping[str, Any]) -> dict[str, str]:
    """Options of ``card.toml`` as the texts that ``--set`` takes."""
    return {
        key: ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for key, value in options.items()
    }
