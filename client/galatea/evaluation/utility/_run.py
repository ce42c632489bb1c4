"""The whole way from real and synthetic cases to a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

import galatea
from galatea.errors import InvalidInput
from galatea.evaluation._features import Cache, Extractor, Features
from galatea.evaluation._frechet import Floats
from galatea.evaluation._memorisation import judge
from galatea.evaluation._report import Memorisation
from galatea.evaluation._sources import Source
from galatea.evaluation.utility._cases import Cases
from galatea.evaluation.utility._classify import LogisticRegression, numbered
from galatea.evaluation.utility._design import MEASURES, Design
from galatea.evaluation.utility._report import Result, Utility
from galatea.evaluation.utility._runner import Runner
from galatea.evaluation.utility._scores import Scores
from galatea.evaluation.utility._segment import MonaiSegmentation
from galatea.evaluation.utility._split import ARMS, Indices, Training, split, trainings
from galatea.evaluation.utility._stacks import common_channels, stack

__all__ = ["study"]

Progress = Callable[[str, int], None]  # what is being done, and what is newly done of it
Arm = tuple[str, float | None]


class Learner(Protocol):
    """What is trained."""

    def facts(self) -> dict[str, Any]:
        """What it is, as plain JSON types."""

    def __call__(self, training: Training) -> Floats:
        """Trains anew, and gives the outcome of each tested image, 0 … 1, [n]."""


def study(
    design: Design,
    synthetic: Cases,
    real: Cases,
    *,
    extractor: Extractor | None = None,
    train: Source | None = None,
    heldout: Source | None = None,
    cache: Cache | None = None,
    command: str = "",
    progress: Progress = lambda step, done: None,
) -> Utility:
    """Trains with real images, synthetic ones and both, and tests with real patients held out.

    Args:
        extractor: of features to classify by and to judge memorisation by.
        train, heldout: images that the generator was trained on, and such as it was not; with
            both, the synthetic images are judged for memorisation.
        cache: of features.
        command: what makes the report again, for the report.

    Raises:
        InvalidInput: images do not suit the task, or are too few; or something is missing.
        ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError, MachineError: see
            :mod:`galatea.errors`.
    """
    _check(design, extractor, train, heldout)
    patients = split(real, design.holdout, design.seed)
    features = _Extraction(extractor, design, cache or Cache(None), progress)
    learner, groups = _learner(design, synthetic, real, patients.test_images, features)
    seen: dict[Arm, list[Training]] = defaultdict(list)
    outcomes: dict[Arm, list[Floats]] = defaultdict(list)
    fractions = sorted(set(design.fractions))
    for training in trainings(
        real, patients, design.arms, fractions, design.repeats, design.seed
    ):  # fmt: skip
        arm = (training.arm, training.fraction)
        progress("trainings", 0)
        seen[arm].append(training)
        outcomes[arm].append(learner(training))
        progress("trainings", 1)
    tested = [real.cases[i].patient for i in patients.test_images]
    scores = Scores(tested, groups, design.repeats, design.seed)
    found = {arm: np.stack(each) for arm, each in outcomes.items()}
    verdict = _verdict(features, synthetic, train, heldout)
    return Utility(
        title=synthetic.title,
        galatea=galatea.__version__,
        command=command,
        task=design.task,
        measure=MEASURES[design.task],
        learner=learner.facts(),
        real=real.facts(),
        synthetic=synthetic.facts(),
        train=train.facts() if train else None,
        heldout=heldout.facts() if heldout else None,
        settings={**design.facts(), "extractor": extractor.facts() if extractor else None},
        train_patients=patients.train,
        test_patients=patients.test,
        n_test=len(tested),
        results=tuple(
            _result(arm, seen[arm], found, scores, fractions[-1], len(synthetic))
            for arm in sorted(found, key=lambda arm: (ARMS.index(arm[0]), arm[1] or 0))
        ),
        memorisation=verdict,
    )


class _Extraction:
    """Features of whole sources by one extractor and one rule for intensities."""

    def __init__(
        self, extractor: Extractor | None, design: Design, cache: Cache, progress: Progress
    ) -> None:
        self._extractor, self.rule = extractor, design.intensity
        self._cache, self._progress = cache, progress

    @property
    def name(self) -> str:
        assert self._extractor is not None
        return self._extractor.card.name

    def __call__(self, source: Source, kind: str) -> Features:
        assert self._extractor is not None
        key = self._extractor.key(source, self.rule)
        kept = self._cache.get(key)
        if kept is not None:
            return kept
        step = f"features of {kind} images"
        made = self._extractor.extract(
            source, self.rule, lambda images: self._progress(step, images)
        )
        self._cache.put(key, made)
        return made


def _check(
    design: Design, extractor: Extractor | None, train: Source | None, heldout: Source | None
) -> None:
    if (train is None) != (heldout is None):
        raise InvalidInput(
            "memorisation cannot be judged without both training and held-out images: how near a "
            "new image comes is not known",
            "give --train and --heldout, or neither",
        )
    needs = "to classify by features" if design.task == "classify" and not design.runner else ""
    needs = "to judge memorisation" if train is not None else needs
    if needs and extractor is None:
        raise InvalidInput(f"{needs} an extractor of features is needed", "give --extractor NAME")


def _learner(
    design: Design, synthetic: Cases, real: Cases, test: Indices, features: _Extraction
) -> tuple[Learner, Indices]:
    """What is trained, and the group of each tested image, int64 [n]."""
    groups = np.zeros(len(test), np.int64)
    if design.task == "classify":
        labels = real.labels()
        classes = tuple(sorted(set(labels)))
        if len(classes) < 2:
            raise InvalidInput(
                f"{real.title}: all images are of the class {classes[0]!r}", "give two classes"
            )
        numbers = numbered(labels, classes, real.title)
        made = numbered(synthetic.labels(), classes, synthetic.title)
        groups = numbers[test]
    else:
        real.masks()
        synthetic.masks()
    if design.runner is not None:
        return Runner(
            design.runner, real, synthetic,
            task=design.task, intensity=design.intensity, test=test,
        ), groups  # fmt: skip
    if design.task == "classify":
        return LogisticRegression(
            features(real, "real").features, numbers,
            features(synthetic, "synthetic").features, made,
            classes=classes, test=test,
        ), groups  # fmt: skip
    first = synthetic.cases[0].picture.pixels
    size = design.size or (first.shape[0], first.shape[1])
    stacks = common_channels(
        stack(real, design.intensity, size), stack(synthetic, design.intensity, size)
    )
    return MonaiSegmentation(
        *stacks, test=test,
        network=design.network, steps=design.steps, batch_size=design.batch_size,
    ), groups  # fmt: skip


def _verdict(
    features: _Extraction, synthetic: Cases, train: Source | None, heldout: Source | None
) -> Memorisation | None:
    if train is None or heldout is None:
        return None
    verdict, *_ = judge(
        features(synthetic, "synthetic"), features(train, "training"),
        features(heldout, "held-out"), extractor=features.name, intensity=str(features.rule),
    )  # fmt: skip
    return verdict


def _result(
    arm: Arm,
    seen: list[Training],
    found: dict[Arm, Floats],
    scores: Scores,
    largest: float,
    n_synthetic: int,
) -> Result:
    whole, same = ("real", largest), ("real", arm[1])
    return Result(
        arm=arm[0],
        fraction=arm[1],
        patients=seen[0].patients,
        n_real=float(np.mean([len(training.real) for training in seen])),
        n_synthetic=n_synthetic if seen[0].synthetic else 0,
        repeats=tuple(float(value) for value in scores.each(found[arm])),
        score=scores.score(found[arm]),
        of_all_real=None if arm == whole else scores.ratio(found[arm], found[whole]),
        of_same_real=None
        if arm == same or same not in found
        else scores.ratio(found[arm], found[same]),
    )
