"""Logistic regression on the features of a served extractor."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.errors import InvalidInput
from galatea.evaluation._frechet import Floats
from galatea.evaluation.utility._split import Indices, Training
from galatea.extras import needs_extra

__all__ = ["LogisticRegression", "numbered"]

log = logging.getLogger(__name__)

ITERATIONS = 2000


class LogisticRegression:
    """Scikit-learn's, on standardised features and with a weight of 1 for the L2 penalty.

    It is fitted until it converges, and has no chance of its own.

    Args:
        real, synthetic: features, float32 [n, d] and [m, d].
        labels, synthetic_labels: numbers of the classes, int64 [n] and [m].
        classes: their names.
        test: indices of the real images to test with.
    """

    def __init__(
        self,
        real: NDArray[np.float32],
        labels: NDArray[np.int64],
        synthetic: NDArray[np.float32],
        synthetic_labels: NDArray[np.int64],
        *,
        classes: tuple[str, ...],
        test: Indices,
    ) -> None:
        self._real, self._labels = real, labels
        self._synthetic, self._synthetic_labels = synthetic, synthetic_labels
        self._classes, self._test = classes, test

    def facts(self) -> dict[str, Any]:
        """What it is, as plain JSON types."""
        return {"learner": "logistic regression on standardised features", "penalty": "L2, C = 1"}

    def __call__(self, training: Training) -> Floats:
        """Of each tested image whether it is classified rightly: 0 or 1, [n].

        Raises:
            InvalidInput: there is no image of some class to train with.
            MachineError: the extra is missing.
        """
        with needs_extra("utility"):
            from sklearn import linear_model
            from sklearn.exceptions import ConvergenceWarning
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
        features, labels = self._real[training.real], self._labels[training.real]
        if training.synthetic:
            features = np.concatenate([features, self._synthetic])
            labels = np.concatenate([labels, self._synthetic_labels])
        missing = sorted({*range(len(self._classes))} - {*labels.tolist()})
        if missing:
            raise InvalidInput(
                f"{_name(training)} has no image of the class {self._classes[missing[0]]!r}",
                "give a larger fraction, or more images",
            )
        model = linear_model.LogisticRegression(max_iter=ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            pipeline = make_pipeline(StandardScaler(), model).fit(features, labels)
        if int(model.n_iter_.max()) >= ITERATIONS:
            log.warning("the regression of %s has not converged", _name(training))
        right: Floats = (
            pipeline.predict(self._real[self._test]) == self._labels[self._test]
        ).astype(np.float64)
        return right


def numbered(labels: list[str], classes: tuple[str, ...], title: str) -> NDArray[np.int64]:
    """Names of classes as their numbers, int64 [n].

    Raises:
        InvalidInput: there is another one; it is named.
    """
    other = sorted({*labels} - {*classes})
    if other:
        raise InvalidInput(
            f"{title}: the class {other[0]!r} is none of the real images'",
            f"name classes alike on both sides: {', '.join(classes)}",
        )
    return np.array([classes.index(label) for label in labels], np.int64)


def _name(training: Training) -> str:
    part = "" if training.fraction is None else f" with a fraction of {training.fraction:g}"
    return f"the arm {training.arm!r}{part}"
