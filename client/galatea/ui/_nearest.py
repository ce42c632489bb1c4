"""The pairs of an evaluation: synthetic images and the training images nearest to them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from galatea.card import ModelCard
from galatea.errors import GalateaError, InvalidInput
from galatea.evaluation import Intensity, Memorisation, Pair, Report, open_source
from galatea.ui import _settings
from galatea.ui._html import Html, page, tag
from galatea.ui._look import source
from galatea.ui._query import address
from galatea.ui._tile import Tile

__all__ = ["Evaluated", "load", "nearest_page", "of"]

SHOWN = 64  # pairs of a judgement, the closest


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A report with judgements of memorisation, of images of seeds of a served model."""

    report: Report
    _pictures: dict[int, asyncio.Task[dict[str, bytes]]] = field(default_factory=dict)

    def pairs(self, verdict: int) -> Sequence[Pair]:
        """Those that are shown."""
        return self.report.memorisation[verdict].pairs[:SHOWN]

    def tile(self, pair: Pair, card: ModelCard) -> Tile:
        """The synthetic image of a pair.

        Raises:
            InvalidInput: the model does not allow the conditions of the report any more.
        """
        seed = int(pair.synthetic.removeprefix("seed "))
        facts = self.report.synthetic
        given = {k: v for k, v in facts["conditions"].items() if v not in (None, "balanced")}
        _settings.check(card, given)
        return Tile(card, (seed,), _settings.of_place(card, given, seed - facts["seeds"][0]))

    async def picture(self, verdict: int, pair: int) -> bytes:
        """The PNG file of the training image of a pair, as the extractor took it.

        Raises:
            InvalidInput: no such pair, or the image is not on this machine.
        """
        if not verdict < len(self.report.memorisation) or not pair < len(self.pairs(verdict)):
            raise InvalidInput("the report has no such pair", "begin at /")
        task = self._pictures.get(verdict)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(self._read, verdict))
            self._pictures[verdict] = task
        name = self.pairs(verdict)[pair].training
        found = (await asyncio.shield(task)).get(name)
        if found is None:
            raise InvalidInput(
                f"{name} of the training images is not there",
                "start galatea ui where the paths of the report lead to them",
            )
        return found

    def _read(self, verdict: int) -> dict[str, bytes]:
        """All training images of a judgement's pairs, those that can be read."""
        facts = self.report.train or {}
        judged = self.report.memorisation[verdict]
        rule = Intensity.parse(judged.intensity)
        wanted = {pair.training for pair in self.pairs(verdict)}
        found: dict[str, bytes] = {}
        try:
            for item in open_source(facts.get("path", ""), facts.get("axis", "axial")).items():
                if item.picture.name in wanted:
                    found[item.picture.name] = source(
                        np.ascontiguousarray(rule.apply(item.picture))
                    )
                if len(found) == len(wanted):
                    break
        except GalateaError:
            return found  # what is missing is told where it is asked for
        return found


def load(paths: Iterable[Path]) -> list[Evaluated]:
    """Reads reports.

    Raises:
        InvalidInput: one cannot be read, or judges no images of seeds for memorisation.
    """
    found = []
    for path in paths:
        report = Report.read(path)
        seeds = report.synthetic.get("kind") == "model" and all(
            re.fullmatch(r"seed -?\d+", pair.synthetic)
            for judged in report.memorisation
            for pair in judged.pairs
        )
        if not report.memorisation or not seeds:
            raise InvalidInput(
                f"{path}: the report has no nearest images of a served model's seeds",
                "run: galatea evaluate run NAME … --train PATH --heldout PATH",
            )
        found.append(Evaluated(report))
    return found


def of(card: ModelCard, reports: Sequence[Evaluated]) -> int | None:
    """Place of the report of a model with these very weights; None where there is none."""
    weights = f"sha256:{card.checkpoint_sha256}"
    for k, evaluated in enumerate(reports):
        facts = evaluated.report.synthetic
        if (facts.get("model"), facts.get("weights")) == (card.name, weights):
            return k
    return None


def nearest_page(card: ModelCard, evaluated: Evaluated, place: int, version: str) -> str:
    """HTML of all pairs.

    Args:
        place: of the report among those that were loaded.
        version: of the style and the script.
    """
    here = f"/models/{card.name}/{card.version}"
    parts = [
        part
        for k, judged in enumerate(evaluated.report.memorisation)
        for part in _judgement(card, evaluated, judged, place, k)
    ]
    return page(
        f"{card.name}: nearest – galatea",
        tag("h1", card.title or card.name),
        tag("p", tag("a", "← the model", href=here)),
        tag("p", "Synthetic images of the report, each beside the training image nearest to it."),
        *parts,
        version=version,
    )


def _judgement(
    card: ModelCard, evaluated: Evaluated, judged: Memorisation, place: int, k: int
) -> Iterable[Html]:
    yield tag("h2", f"By {judged.extractor}, {judged.intensity}")
    found = f"{judged.memorised} of {judged.n_synthetic} images are memorised"
    held = f"held-out images begin at {judged.nearest_heldout:.4g}"
    bad = "problem" if judged.memorised else None
    yield tag("p", f"{found}: nearer than {judged.threshold:.4g}, where {held}.", class_=bad)
    figures = []
    for i, pair in enumerate(evaluated.pairs(k)):
        tile = evaluated.tile(pair, card)
        real = address(("nearest", place, k, i), [])
        words = f"distance {pair.distance:.4g}" + (", memorised" if pair.memorised else "")
        figures += [
            tag(
                "figure",
                tag("img", src=tile.address(), alt=f"synthetic image, {pair.synthetic}"),
                tag("figcaption", tag("span", pair.synthetic), words),
            ),
            tag(
                "figure",
                tag("img", src=real, alt=f"training image {pair.training}", loading="lazy"),
                tag("figcaption", tag("span", pair.training), "training image"),
            ),
        ]
    yield tag("div", *figures, class_="pairs")
