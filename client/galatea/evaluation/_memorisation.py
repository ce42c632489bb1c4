"""Images that a generator has memorised: nearer to its training data than new patients ever are.

Scores of a whole set are blind to them: with a tenth of near copies among the images, such a score
went from 67.7 to 61.8. So each image is judged by itself, and only where images that were kept out
of the training say how near an innocent one comes.
"""

from __future__ import annotations

import numpy as np

from galatea.errors import InvalidInput
from galatea.evaluation._features import Features
from galatea.evaluation._frechet import Floats
from galatea.evaluation._neighbours import nearest
from galatea.evaluation._report import Memorisation, Pair

__all__ = ["FACTOR", "QUANTILE", "judge"]

QUANTILE = 0.001  # of the distances of held-out images
FACTOR = 0.8  # of that quantile, below which an image counts as memorised
CLOSEST = 12  # pairs that are named, or as many as there are memorised ones up to MOST
MOST = 1000


def judge(
    synthetic: Features, train: Features, heldout: Features, *, extractor: str, intensity: str
) -> tuple[Memorisation, Floats, Floats]:
    """Judges each synthetic image by its distance to the training image nearest to it.

    Returns:
        The judgement, and the distances to the training images of all synthetic, [n], and of all
        held-out ones, [m].

    Raises:
        InvalidInput: held-out images are in the training data.
    """
    _, innocent = nearest(heldout.features, train.features)
    same = np.flatnonzero(innocent <= _rounding(train))
    if len(same):
        raise InvalidInput(
            f"{len(same)} of {len(heldout)} held-out images are in the training data, the first is "
            f"{heldout.names[same[0]]}",
            "hold out images that the generator was not trained on",
        )
    index, distance = nearest(synthetic.features, train.features)
    edge = float(np.quantile(innocent, QUANTILE))
    threshold = FACTOR * edge
    order = np.argsort(distance, kind="stable")
    memorised = int((distance < threshold).sum())
    pairs = tuple(
        Pair(
            synthetic.names[i],
            train.names[index[i]],
            float(distance[i]),
            float(distance[i]) / edge,
            bool(distance[i] < threshold),
        )
        for i in order[: max(CLOSEST, min(memorised, MOST))]
    )
    verdict = Memorisation(
        extractor, intensity, len(train), len(heldout), len(synthetic), edge, threshold, memorised,
        pairs,
    )  # fmt: skip
    return verdict, distance, innocent


def _rounding(features: Features) -> float:
    """The distance that the same image may have to itself: floats of 32 bits are not exact."""
    return 1e-4 * float(np.sqrt((features.features.astype(np.float64) ** 2).sum(1).mean()))
