"""From weights to an extractor in a model repository."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor, nn

import galatea
from galatea._pbtxt import config_text
from galatea.card import Input, ModelCard, Output, ValueRange
from galatea.errors import ExportError, InvalidInput
from galatea_exporter import release as releasing
from galatea_exporter.checkpoint import read_checkpoint
from galatea_exporter.compiling import compile_stages
from galatea_exporter.export import Exported, Facts, check_name
from galatea_exporter.extractors.archs import Loaded, find_arch
from galatea_exporter.extractors.resize import RULES, Resize, Rule
from galatea_exporter.release import Content
from galatea_exporter.stages import Axis, Stage, StagedGenerator, TensorSpec
from galatea_exporter.triton_config import DEFAULT_VARIANT, VARIANTS, stage_config

__all__ = ["import_extractor"]

STAGE = "features"
SMALLEST, USUAL = (
    16,
    256,
)  # pixels of a side: the least that is taken, and what engines are made for
MAX_BATCH = 16
LEVELS = ValueRange(0, 255, "nearest")


class ExtractorNetwork(nn.Module):
    """image uint8 [N, H, W, 3] → the outputs of a network, resized on the way."""

    def __init__(self, loaded: Loaded, rule: Rule) -> None:
        super().__init__()
        self.resize, self.network = Resize(loaded.size, rule), loaded.network

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        made: Tensor | tuple[Tensor, ...] = self.network(self.resize(image))
        return made


def import_extractor(
    weights: Path,
    *,
    arch: str,
    sha256: str,
    name: str,
    repository: Path,
    resize: str = "",
    facts: Facts | None = None,
    max_batch: int = MAX_BATCH,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Exports the weights of a feature extractor into a model repository.

    The served model takes ``image`` UINT8 [H, W, 3] of any size and gives ``features`` FP32 [d]
    and, where the network has them, ``logits``.

    Args:
        weights: a state dict; nothing in it is executed.
        arch: one of :data:`galatea_exporter.extractors.archs.ARCHS`.
        sha256: of the file, in hexadecimal: figures are comparable where the weights are the same.
        name: public name of the model in Triton.
        resize: "tf1" or "clean", see :class:`galatea_exporter.extractors.resize.Resize`; by
            default that of the architecture's published figures.
        facts: what the card says beyond that.

    Raises:
        InvalidInput: an argument is not valid.
        ExportError: the file is another one, does not fit the architecture, or its graph does not
            compute what it does.
        RepositoryError, MachineError: the repository cannot be written.
    """
    chosen = find_arch(arch)
    rule = resize or chosen.resize
    _check(name, rule, max_batch)
    progress(f"reading {weights}")
    source = read_checkpoint(weights)
    if source.sha256 != sha256.lower():
        raise ExportError(
            f"{weights}: has the sha256 {source.sha256}, not {sha256.lower()}",
            "download it again, or give the checksum that its publisher tells",
        )
    loaded = chosen.load(source.state(("state_dict", "model"))[0], weights)
    stage = _stage(loaded, "clean" if rule == "clean" else "tf1")
    told = facts or Facts(title=chosen.title)
    card = ModelCard(
        name=name,
        version=0,  # set when the version is known
        family=arch,
        task="extractor",
        inputs=(
            Input("image", "UINT8", "the picture to describe, channels last",
                  shape=stage.inputs[0].dims, channels=("red", "green", "blue")),
        ),
        outputs=tuple(Output(name, "FP32", (size,), ()) for name, size in loaded.outputs.items()),
        configuration={
            "resize": rule, "size": loaded.size, "normalisation": loaded.normalisation,
        },
        checkpoint_sha256=source.sha256,
        exporter=f"galatea {galatea.__version__}",
        **{
            entry.name: getattr(told, entry.name)
            for entry in fields(Facts)
            if entry.name not in ("options", "source")
        },
        source=told.source or chosen.source,
    )  # fmt: skip
    with TemporaryDirectory(prefix="galatea-extractor-") as scratch:
        compiled = compile_stages(
            _alone(stage, card), max_batch=max_batch, fp16=False, scratch=Path(scratch),
            progress=progress,
        )  # fmt: skip
        card = replace(card, parity=compiled.parity, graphs=compiled.digests())

        def make(number: int) -> tuple[dict[str, Content], tuple[str, ...]]:
            numbered = replace(card, version=number)
            return _files(numbered, stage, compiled.files[STAGE], max_batch), (name,)

        release, files = releasing.following(repository, name, make)
        card = replace(card, version=release.version)
        written = False
        if not dry_run:
            progress(f"writing {name} version {card.version}")
            written = releasing.write(release, files)
    return Exported(release, card, (), written)


def _check(name: str, rule: str, max_batch: int) -> None:
    check_name(name)
    if rule not in RULES:
        raise InvalidInput(f"no resizing {rule!r}", f"choose one of: {', '.join(RULES)}")
    if max_batch < 1:
        raise InvalidInput(f"a batch of {max_batch} is no batch", "give 1 or more")


def _stage(loaded: Loaded, rule: Rule) -> Stage:
    size = (Axis("height", 1, SMALLEST, USUAL), Axis("width", 1, SMALLEST, USUAL))
    return Stage(
        STAGE,
        ExtractorNetwork(loaded, rule).eval(),
        (TensorSpec("image", "uint8", (*size, 3), (0, 255)),),
        tuple(TensorSpec(name, "float32", (size,)) for name, size in loaded.outputs.items()),
    )


def _alone(stage: Stage, card: ModelCard) -> StagedGenerator:
    """The stage as the exporter compiles it."""
    return StagedGenerator((stage,), card.task, card.inputs, card.outputs, LEVELS)


def _files(
    card: ModelCard, stage: Stage, graph: dict[str, Content], max_batch: int
) -> dict[str, Content]:
    """Path below the repository → content."""
    folder = f"{card.name}/{card.version}"
    texts = {
        variant: config_text(
            stage_config(
                card.name, stage, version=card.version, max_batch=max_batch, variant=variant,
                graph_sha256=card.graphs[STAGE], card=card,
            )
        )
        for variant in VARIANTS
    }  # fmt: skip
    files: dict[str, Content] = {f"{folder}/{name}": content for name, content in graph.items()}
    files |= {f"{folder}/configs/{variant}.pbtxt": text for variant, text in texts.items()}
    return {**files, f"{folder}/config.pbtxt": texts[DEFAULT_VARIANT]}
