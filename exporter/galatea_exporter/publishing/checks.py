"""What a release must be before others get it: the table of checks of ``galatea publish``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from galatea.card import ModelCard, Parity
from galatea.evaluation import Report
from galatea.repository import MANIFEST, Release, sha256_of
from galatea_exporter.compiling import Compiled
from galatea_exporter.parity import MAX_LEVELS, difference, most_share
from galatea_exporter.publishing import contents, evaluations, graphs, licences, privacy
from galatea_exporter.publishing.golden import Golden

__all__ = ["CHECKS", "Candidate", "Check", "Limits", "Problem"]

SAID = (
    *("title", "description", "intended_use", "limitations", "modality", "organ"),
    *("training_dataset", "source"),
)
TEXTS = (".pbtxt", ".json", ".py")


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, and how to mend it."""

    what: str
    mend: str


@dataclass(frozen=True)
class Limits:
    """What a release may cost: bytes on the disk, seconds and bytes of memory on this CPU."""

    size: int = 10 * 10**9
    seconds: float = 120.0
    memory: int = 16 * 10**9


@dataclass(frozen=True, eq=False)
class Candidate:
    """A release that wants to be published.

    Attributes:
        report: its evaluation, where there is one.
        golden: its golden samples; None where they could not be made, and `failure` says why.
    """

    release: Release
    card: ModelCard
    limits: Limits
    report: Report | None = None
    golden: Golden | None = None
    failure: str = ""

    @cached_property
    def graphs(self) -> dict[str, Path]:
        """The ONNX files by their path in the release."""
        return {
            file: self.release.root / file for file in self.release.files if file.endswith(".onnx")
        }


@dataclass(frozen=True)
class Check:
    """A rule: its name, what it asks for, and what finds the problems."""

    name: str
    asks: str
    find: Callable[[Candidate], Iterator[Problem]]


def _card(candidate: Candidate) -> Iterator[Problem]:
    for name in SAID:
        if not getattr(candidate.card, name).strip():
            yield Problem(f"the card has no {name}", f"write {name} in card.toml, and export again")


def _licence(candidate: Candidate) -> Iterator[Problem]:
    if why := licences.objection(candidate.card.licence):
        yield Problem(
            why, "name the licence in card.toml by its SPDX identifier, or do not publish"
        )


def _digests(candidate: Candidate) -> Iterator[Problem]:
    root = candidate.release.root
    for file, (size, sha256) in candidate.release.files.items():
        path = root / file
        inside = (part for part in (path, *path.parents) if root in part.parents)
        if any(part.is_symlink() for part in inside):
            yield Problem(f"{file}: is a link", "put the file itself there")
        elif not path.is_file():
            yield Problem(f"{file}: is missing", "export the model again, or restore the file")
        elif path.stat().st_size != size or sha256_of(path) != sha256:
            yield Problem(
                f"{file}: was changed after the release",
                "export the model again, or restore the file",
            )


def _files(candidate: Candidate) -> Iterator[Problem]:
    for file, reason in contents.code(candidate.release):
        yield Problem(f"{file}: {reason}", "export the model again with this galatea")


def _graphs(candidate: Candidate) -> Iterator[Problem]:
    for file, path in candidate.graphs.items():
        for fault in graphs.faults(path) if path.is_file() else ():
            yield Problem(f"{file}: {fault}", "export the model again")


def _parity(candidate: Candidate) -> Iterator[Problem]:
    card, release = candidate.card, candidate.release
    mend = "export the model again"
    figures: dict[str, Parity | None] = {"parity": card.parity}
    if card.steps is not None:
        figures["parity_sampling"] = card.parity_sampling
    if any(stage.endswith(".fp16") for stage in card.graphs):
        figures["parity_fp16"] = card.parity_fp16
    for name, parity in figures.items():
        if parity is None:
            yield Problem(f"the card has no {name}", mend)
        elif not parity.max_abs <= parity.tolerance:
            yield Problem(f"{name}: {parity.max_abs:.3g} is beyond {parity.tolerance:.3g}", mend)
        elif name != "parity_fp16" and parity.max_levels > MAX_LEVELS:
            yield Problem(f"{name}: {parity.max_levels} uint8 levels", mend)
        elif name == "parity" and not parity.share_differing <= most_share(parity.tolerance):
            yield Problem(f"{name}: {parity.share_differing:.2%} of the uint8 values differ", mend)
    stages: dict[str, dict[str, bytes | Path]] = {}
    lone = next(iter(card.graphs), "")
    for file, path in candidate.graphs.items():
        model, _, name = file.split("/")
        stage = model.removeprefix(f"{release.name}.") if model != release.name else lone
        for part in (name, f"{name}.data"):
            beside = path.with_name(part)
            if beside.is_file():
                stages.setdefault(stage, {})[part] = beside
    empty = Parity(0, 0, 0, 0, (), "")
    for stage, digest in Compiled(stages, empty).digests().items():
        if card.graphs.get(stage) != digest:
            yield Problem(f"the graph of {stage} is not the one that was compared", mend)
    for stage in sorted({*card.graphs} - {*Compiled(stages, empty).digests()}):
        yield Problem(f"the card tells of a graph of {stage}, which is not there", mend)


def _golden(candidate: Candidate) -> Iterator[Problem]:
    golden = candidate.golden
    if golden is None:
        yield Problem(candidate.failure, "mend that first")
        return
    card = candidate.card
    tolerance = card.parity.tolerance if card.parity else 0.0
    for name, alone in golden.alone.items():
        apart = difference(name, alone, golden.together[name])
        far = not apart.max_abs <= tolerance or apart.max_levels > MAX_LEVELS
        if far or apart.share_differing > most_share(tolerance):
            yield Problem(
                f"{name}: batch {golden.batch} differs from batch 1 by {apart.max_abs:.3g}, "
                f"{apart.max_levels} levels, on {apart.share_differing:.2%} of the levels",
                "find the operator that mixes samples, such as a norm over the batch",
            )


def _images(candidate: Candidate) -> Iterator[Problem]:
    if candidate.golden is None:
        return
    mend = "look at the value range in the card, and at the checkpoint"
    for output in candidate.card.outputs:
        made = candidate.golden.alone[output.name]
        shape = made.shape[1:]
        fits = len(shape) == len(output.shape) and all(
            want in (-1, got) for want, got in zip(output.shape, shape, strict=False)
        )
        kind = {"UINT8": "uint8", "UINT16": "uint16", "FP32": "float32"}[output.dtype]
        if not fits or made.dtype.name != kind:
            yield Problem(
                f"{output.name} is {made.dtype}{list(shape)}, the card says "
                f"{kind}{list(output.shape)}",
                "export the model again",
            )
        if not np.isfinite(made).all():
            yield Problem(f"{output.name} has values that are not finite", mend)
        if output.name != "image":
            continue  # a mask may well be empty
        constant = [i for i, image in enumerate(made) if image.min() == image.max()]
        if constant:
            yield Problem(f"the image of golden seed {constant[0]} has one value everywhere", mend)
        if len({image.tobytes() for image in made}) < len(made):
            yield Problem("two of the golden images are the same", mend)


def _evaluation(candidate: Candidate) -> Iterator[Problem]:
    if not evaluations.can_be_evaluated(candidate.card):
        return
    name = candidate.card.name
    if candidate.report is None:
        yield Problem(
            "there is no evaluation",
            f"run galatea evaluate run {name} …, and name what it wrote with --evaluation",
        )
    elif not evaluations.is_of(candidate.report, candidate.card):
        yield Problem(
            f"the evaluation is of {candidate.report.title}, not of these graphs and weights",
            f"run galatea evaluate run {name} … on this release",
        )


def _memorisation(candidate: Candidate) -> Iterator[Problem]:
    for verdict in candidate.report.memorisation if candidate.report else ():
        if verdict.memorised:
            yield Problem(
                f"{verdict.memorised} of {verdict.n_synthetic} images are copies of training "
                f"images, by {verdict.extractor}",
                "do not publish these weights; train with more data or less capacity",
            )


def _budgets(candidate: Candidate) -> Iterator[Problem]:
    limits, golden = candidate.limits, candidate.golden
    size = candidate.release.size
    if size > limits.size:
        yield Problem(
            f"its files have {size / 1e6:.0f} MB, allowed are {limits.size / 1e6:.0f}",
            "allow more with --max-size",
        )
    if golden is not None and golden.seconds > limits.seconds:
        yield Problem(
            f"a sample takes {golden.seconds:.1f} s, allowed are {limits.seconds:g}",
            "allow more with --max-seconds, or take fewer --steps",
        )
    if golden is not None and golden.memory is not None and golden.memory > limits.memory:
        yield Problem(
            f"it takes {golden.memory / 1e6:.0f} MB of memory, allowed are "
            f"{limits.memory / 1e6:.0f}",
            "allow more with --max-memory",
        )


def _privacy(candidate: Candidate) -> Iterator[Problem]:
    root, release = candidate.release.root, candidate.release
    texts = {
        file: (root / file).read_text("utf-8", "replace")
        for file in (*release.files, f"{release.name}/{release.version}/{MANIFEST}")
        if file.endswith(TEXTS) and (root / file).is_file()
    }
    for file, path in candidate.graphs.items():
        if path.is_file():
            texts[file] = graphs.texts(path)
    for file, text in texts.items():
        for kind, beginning in privacy.traces(text):
            yield Problem(
                f"{file}: has {kind}: {beginning!r}",
                "take it out of card.toml or of the checkpoint's metadata, and export again",
            )


CHECKS = (
    Check("card", f"the card says {', '.join(SAID)}", _card),
    Check("licence", "an SPDX licence that lets others redistribute a converted model", _licence),
    Check("digests", "every file is as it was released, and none is a link", _digests),
    Check("files", "nothing is unpickled, and no code but galatea's own sampler", _files),
    Check("graphs", "ONNX of an IR and opset that Triton reads, with ONNX's operators", _graphs),
    Check("parity", "these very graphs were compared with PyTorch, within tolerance", _parity),
    Check("golden", "eight seeds give the same at batch 1 and at batch 8", _golden),
    Check("images", "they are finite, not of one value, all different, as the card says", _images),
    Check("evaluation", "there is an evaluation of these graphs and weights", _evaluation),
    Check("memorisation", "no image was found to be a copy; or the card says: not assessed",
          _memorisation),
    Check("budgets", "size, time and memory are within their limits", _budgets),
    Check("privacy", "no text has traces of patients, people or keys", _privacy),
)  # fmt: skip
