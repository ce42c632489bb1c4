"""README.md of a publication: the model card for people, with the front matter of model hubs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from galatea.card import Input, ModelCard, Output
from galatea_exporter.publishing import evaluations
from galatea_exporter.publishing.gate import Verdict
from galatea_exporter.publishing.golden import SEEDS
from galatea_exporter.publishing.publication import CHECK, SAMPLES

__all__ = ["readme"]

PIPELINES = {
    "unconditional": "unconditional-image-generation",
    "class-conditional": "unconditional-image-generation",
    "image-to-image": "image-to-image",
    "text-to-image": "text-to-image",
}

# SPDX licences that the Hugging Face Hub knows, by their names in lower case; others are "other".
HUB_LICENCES = {
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "bsl-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "ecl-2.0", "epl-1.0", "epl-2.0",
    "eupl-1.1", "eupl-1.2", "isc", "mit", "mpl-2.0", "ms-pl", "ncsa", "ofl-1.1", "osl-3.0",
    "postgresql", "unlicense", "wtfpl", "zlib",
}  # fmt: skip


def readme(verdict: Verdict) -> str:
    """The text, which says of everything that was not assessed that it was not."""
    card = verdict.card
    sections = [
        (f"# {card.title}", [card.description]),
        ("", [f"![samples of seeds {SEEDS[0]} … {SEEDS[-1]}]({SAMPLES})"]),
        ("## Intended use", [card.intended_use]),
        ("## Limitations", [card.limitations]),
        ("## Facts", _table(_facts(card))),
        ("## Inputs and outputs", _table(_wire(card))),
        ("## Evaluation", list(_evaluation(verdict))),
        ("## Checks", list(_checks(verdict))),
        ("## Use", _use(card)),
        ("## Citation", [card.citation] if card.citation else []),
    ]
    body = "\n\n".join(
        "\n\n".join([head, "\n".join(lines)]) if head else "\n".join(lines)
        for head, lines in sections
        if lines
    )
    return f"{_front_matter(card)}\n{body}\n"


def _front_matter(card: ModelCard) -> str:
    known = card.licence.lower()
    facts: dict[str, Any] = {"license": known if known in HUB_LICENCES else "other"}
    if facts["license"] == "other":
        facts["license_name"] = known
    facts |= {
        "library_name": "galatea",
        "pipeline_tag": PIPELINES[card.task],
        "tags": ["medical", "synthetic-data", "onnx", "triton", card.family, *card.tags],
    }
    # JSON is YAML.
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items())
    return "\n".join(("---", *lines, "---", ""))


def _facts(card: ModelCard) -> Iterator[tuple[str, ...]]:
    yield "fact", "value"
    parity = card.parity
    rows = {
        "model": f"{card.name} version {card.version}",
        "family": f"{card.family} ({card.task})",
        "modality": card.modality,
        "organ": card.organ,
        "generates": ", ".join(card.generates),
        "training data": card.training_dataset,
        "licence": card.licence,
        "DOI": card.doi,
        "source": card.source,
        "checkpoint": f"sha256:{card.checkpoint_sha256}",
        "parity with PyTorch": ""
        if parity is None
        else f"{parity.max_abs:.2g} in float, {parity.max_levels} uint8 levels ({parity.runtime})",
        "exporter": card.exporter,
    }
    yield from ((key, value) for key, value in rows.items() if value)


def _wire(card: ModelCard) -> Iterator[tuple[str, ...]]:
    yield "tensor", "type", "meaning"
    tensors: tuple[Input | Output, ...] = (*card.inputs, *card.outputs)
    for entry in tensors:
        shape = ", ".join("?" if size < 0 else str(size) for size in entry.shape)
        kind = "input" if isinstance(entry, Input) else "output"
        yield f"{kind} `{entry.name}`", f"{entry.dtype} [{shape}]", _meaning(entry)


def _meaning(entry: Input | Output) -> str:
    if isinstance(entry, Output):
        return ", ".join(entry.channels)
    told = [entry.description, ", ".join(f"{i} {name}" for i, name in enumerate(entry.labels))]
    return ": ".join(part for part in told if part)


def _evaluation(verdict: Verdict) -> Iterator[str]:
    report = verdict.report
    if report is None:
        yield "Quality: not assessed."
    else:
        yield f"By galatea {report.galatea}; figures hold for these extractors and rules alone."
        yield ""
        yield from _table(_rows(verdict))
    yield ""
    yield f"Memorisation of training images: {evaluations.memorisation(report)}."
    metrics = verdict.card.metrics
    if metrics:
        yield ""
        yield "Figures of the card:"
        yield ""
        rows = [(m.name, f"{m.value:.4g}", m.extractor, str(m.n or ""), m.source) for m in metrics]
        yield from _table([("figure", "value", "extractor", "n", "source"), *rows])


def _rows(verdict: Verdict) -> Iterator[tuple[str, ...]]:
    yield "extractor", "intensities", "class", "figure", "value", "error", "real against real", "n"
    assert verdict.report is not None
    for row in verdict.report.rows:
        for figure in row.figures:
            yield (
                row.extractor, row.intensity, row.label or "all", figure.name,
                f"{figure.value:.4g}", _number(figure.error), _number(figure.floor),
                f"{row.n_real} / {row.n_synthetic}",
            )  # fmt: skip


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _checks(verdict: Verdict) -> Iterator[str]:
    golden = verdict.golden
    yield f"All checks of `galatea publish` passed; [{CHECK}]({CHECK}) has them with the figures."
    if golden is not None:
        memory = "" if golden.memory is None else f", {golden.memory / 1e6:.0f} MB of memory"
        yield (
            f"Measured on one CPU: {golden.seconds:.3g} s a sample at batch 1{memory}; "
            f"{verdict.release.size / 1e6:.1f} MB on the disk."
        )


def _use(card: ModelCard) -> list[str]:
    sample = f"galatea sample {card.name} -n 8 --seed 0 -o made"
    if card.source_picture is not None:
        sample = f"galatea translate {card.name} pictures/ -o made"
    elif card.task == "text-to-image":
        sample += " --prompt 'what it shows'"
    pull = "galatea repo pull PLACE  # where this lies"
    return ["```", "pip install 'galatea[serve]'", pull, "galatea serve", sample, "```"]


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    head, *rest = rows
    lines = [head, tuple("---" for _ in head), *rest]
    return [f"| {' | '.join(' '.join(cell.split()) for cell in line)} |" for line in lines]
