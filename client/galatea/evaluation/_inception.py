"""The Inception score, of extractors that have logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.errors import InvalidInput

__all__ = ["SPLITS", "inception_score"]

SPLITS = 10


def inception_score(logits: NDArray[Any], splits: int = SPLITS) -> tuple[float, float]:
    """Mean and spread over splits of the score of Salimans et al. 2016 (arXiv:1606.03498).

    Args:
        logits: [n, classes], in the order in which the images were made.
        splits: runs of consecutive images; the spread is that of their scores.

    Raises:
        InvalidInput: fewer images than splits.
    """
    n = len(logits)
    if n < splits:
        raise InvalidInput(
            f"{n} images are too few for the Inception score", f"give at least {splits}"
        )
    values = np.asarray(logits, np.float64)
    values = values - values.max(1, keepdims=True)
    logs = values - np.log(np.exp(values).sum(1, keepdims=True))
    shares = np.exp(logs)
    scores = []
    for i in range(splits):
        part = slice(i * n // splits, (i + 1) * n // splits)
        mean = np.log(shares[part].mean(0, keepdims=True))
        scores.append(np.exp((shares[part] * (logs[part] - mean)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))
