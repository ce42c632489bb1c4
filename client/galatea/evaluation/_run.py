"""The whole way from images to a report."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import galatea
from galatea.client import Client
from galatea.errors import InvalidInput
from galatea.evaluation._features import Cache, Extractor, Features
from galatea.evaluation._frechet import Floats, frechet_distance
from galatea.evaluation._inception import SPLITS, inception_score
from galatea.evaluation._intensity import Intensity
from galatea.evaluation._kernel import kernel_distance
from galatea.evaluation._memorisation import judge
from galatea.evaluation._neighbours import NEIGHBOURS, prdc
from galatea.evaluation._report import Figure, Memorisation, Report, Row
from galatea.evaluation._sampling import floor, half_sample_errors
from galatea.evaluation._sources import Source

__all__ = ["Evaluation", "Progress", "evaluate"]

REPEATS = 10  # halves that an error is made of
FLOORS = 3  # splits that a floor is made of
LEAST = 20  # images of each kind that a row needs, and four times the neighbours

MANIFOLD = ("precision", "recall", "density", "coverage")

Progress = Callable[[str, int], None]  # what is being done, and images that are newly done


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A report, and what its pictures are drawn from.

    Attributes:
        sources: real, synthetic and, where given, training and held-out images.
        distances: for each judgement of memorisation the distances to the training images of the
            synthetic and of the held-out ones.
        places: of each image name its index, for synthetic and training images.
    """

    report: Report
    sources: dict[str, Source]
    intensity: Intensity
    distances: tuple[tuple[Floats, Floats], ...]
    places: dict[str, dict[str, int]]


def evaluate(
    client: Client,
    synthetic: Source,
    real: Source,
    *,
    extractors: Sequence[str],
    intensities: Sequence[Intensity | str],
    train: Source | None = None,
    heldout: Source | None = None,
    neighbours: int = NEIGHBOURS,
    repeats: int = REPEATS,
    seed: int = 0,
    cache: Cache | None = None,
    command: str = "",
    progress: Progress = lambda step, images: None,
) -> Evaluation:
    """Compares synthetic images with real ones, by every extractor and rule for intensities.

    Args:
        client: of the server with the extractors.
        extractors: names of served models.
        intensities: rules, see :class:`Intensity`.
        train, heldout: images that the generator was trained on, and such as it was not; with
            both, each synthetic image is judged for memorisation.
        neighbours: of precision, recall, density and coverage.
        repeats: halves that errors are made of.
        seed: of all that is drawn: equal evaluations give equal reports.
        cache: of features.
        command: what makes the report again, for the report.

    Raises:
        InvalidInput: too few images, training images without held-out ones, or an image that
            cannot be read or does not suit a rule.
        ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError, MachineError: see
            :mod:`galatea.errors`.
    """
    _check(extractors, intensities, train, heldout, neighbours, repeats)
    rules = [r if isinstance(r, Intensity) else Intensity.parse(r) for r in intensities]
    served = [Extractor(client, name) for name in extractors]
    given = {"real": real, "synthetic": synthetic, "training": train, "held-out": heldout}
    sources = {kind: source for kind, source in given.items() if source is not None}
    least = max(LEAST, 4 * neighbours)
    rows: list[Row] = []
    verdicts: list[Memorisation] = []
    distances: list[tuple[Floats, Floats]] = []
    places: dict[str, dict[str, int]] = {}
    for extractor in served:
        for rule in rules:
            found = {
                kind: _features(extractor, source, rule, cache or Cache(None), kind, progress)
                for kind, source in sources.items()
            }
            name = extractor.card.name
            progress(f"{name}, {rule}: figures", 0)
            for label, pair in _parts(found["real"], found["synthetic"], least):
                rows.append(_row(name, str(rule), label, *pair, neighbours, repeats, seed))
            if "training" in found:
                verdict, *apart = judge(
                    found["synthetic"], found["training"], found["held-out"],
                    extractor=name, intensity=str(rule),
                )  # fmt: skip
                verdicts.append(verdict)
                distances.append((apart[0], apart[1]))
            places = {
                kind: {name: i for i, name in enumerate(features.names)}
                for kind, features in found.items()
            }
    report = Report(
        title=synthetic.title,
        galatea=galatea.__version__,
        command=command,
        real=real.facts(),
        synthetic=synthetic.facts(),
        train=train.facts() if train else None,
        heldout=heldout.facts() if heldout else None,
        extractors=tuple(extractor.facts() for extractor in served),
        settings={
            "neighbours": neighbours, "repeats": repeats, "floors": FLOORS, "seed": seed,
            "inception_score_splits": SPLITS,
        },
        rows=tuple(rows),
        memorisation=tuple(verdicts),
    )  # fmt: skip
    return Evaluation(report, sources, rules[0], tuple(distances), places)


def _check(
    extractors: Sequence[str],
    intensities: Sequence[Any],
    train: Source | None,
    heldout: Source | None,
    neighbours: int,
    repeats: int,
) -> None:
    if not extractors or not intensities:
        raise InvalidInput(
            "no extractor or no rule for intensities is given", "name at least one of each"
        )
    if (train is None) != (heldout is None):
        raise InvalidInput(
            "memorisation cannot be judged without both training and held-out images: how near a "
            "new image comes is not known",
            "give --train and --heldout, or neither",
        )
    if neighbours < 1 or repeats < 2:
        raise InvalidInput(
            f"{neighbours} neighbours and {repeats} repeats tell nothing",
            "give at least 1 neighbour and 2 repeats",
        )


def _features(
    extractor: Extractor,
    source: Source,
    rule: Intensity,
    cache: Cache,
    kind: str,
    progress: Progress,
) -> Features:
    key = extractor.key(source, rule)
    kept = cache.get(key)
    if kept is not None:
        return kept
    step = f"{extractor.card.name}, {rule}: {kind} images"
    made = extractor.extract(source, rule, lambda images: progress(step, images))
    cache.put(key, made)
    return made


def _parts(
    real: Features, synthetic: Features, least: int
) -> Iterator[tuple[str, tuple[Features, Features]]]:
    """All images, then each class of both kinds that has images enough."""
    if min(len(real), len(synthetic)) < least:
        raise InvalidInput(
            f"{len(real)} real and {len(synthetic)} synthetic images are too few",
            f"give at least {least} of each",
        )
    yield "", (real, synthetic)
    for label in sorted({*real.labels} & {*synthetic.labels} - {""}):
        pair = real.of(label), synthetic.of(label)
        if min(map(len, pair)) >= least:
            yield label, pair


def _row(
    extractor: str,
    intensity: str,
    label: str,
    real: Features,
    synthetic: Features,
    neighbours: int,
    repeats: int,
    seed: int,
) -> Row:
    first, second = real.features, synthetic.features
    statistic = functools.partial(_figures, neighbours=neighbours)
    distance = kernel_distance(first, second)
    values = statistic(first, second)
    errors = half_sample_errors(statistic, first, second, repeats, np.random.default_rng(seed))
    n, alike, apart = floor(
        functools.partial(_with_kernel, neighbours=neighbours),
        first, second, FLOORS, np.random.default_rng([seed, 1]),
    )  # fmt: skip
    figures = [
        Figure("KID", distance.value, False, distance.error, float(alike[0]), float(apart[0])),
        *(
            Figure(name, float(value), name != "FD", float(error), float(low), float(at))
            for name, value, error, low, at in zip(
                ("FD", *MANIFOLD), values, errors, alike[1:], apart[1:], strict=True
            )
        ),
    ]
    if synthetic.logits is not None:
        mean, spread = inception_score(synthetic.logits)
        figures.append(Figure("IS", mean, True, spread))
    return Row(extractor, intensity, label, len(real), len(synthetic), n, tuple(figures))


def _figures(first: NDArray[Any], second: NDArray[Any], neighbours: int) -> Floats:
    """FD, precision, recall, density and coverage."""
    manifold = prdc(first, second, neighbours)
    distance = frechet_distance(first, second)
    return np.array([distance, *(getattr(manifold, name) for name in MANIFOLD)])


def _with_kernel(first: NDArray[Any], second: NDArray[Any], neighbours: int) -> Floats:
    """KID, then what :func:`_figures` gives."""
    return np.array([kernel_distance(first, second).value, *_figures(first, second, neighbours)])
