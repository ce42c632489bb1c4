"""Whether another configuration makes the images that the released one makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.card import ModelCard

__all__ = ["difference"]

# What images in float32 may differ by on another processor, whose libraries have other kernels:
# uint8 levels, and the share of values that differ.
LEVELS, SHARE = 1, 1e-3


def difference(
    card: ModelCard,
    baseline: str,
    variant: str,
    before: Mapping[str, NDArray[Any]],
    after: Mapping[str, NDArray[Any]],
) -> str:
    """Why the images are not the same, in words; nothing where they are.

    Equal bytes, where both variants compute in float32 on the same processor; otherwise as far
    apart as the quality bar allows of another processor, or the card's figure of float16.

    Args:
        baseline, variant: names of the variants that made `before` and `after`.
    """
    fp16 = variant.endswith("fp16") != baseline.endswith("fp16")
    if not fp16 and _engine(variant) == _engine(baseline):
        for name, images in before.items():
            most, differing = _apart(images, after[name])
            if differing:
                return f"{name} has other bytes: {differing:.2%} of values, by {most:g} at most"
        return ""
    if fp16 and card.parity_fp16 is None:
        return "the card has no figure of float16 to hold it to"
    levels, share, tolerance = LEVELS, SHARE, card.parity.tolerance if card.parity else 0.0
    if fp16 and card.parity_fp16 is not None:
        figure = card.parity_fp16
        levels, share, tolerance = figure.max_levels, figure.share_differing, figure.tolerance
    for name, images in before.items():
        most, differing = _apart(images, after[name])
        if images.dtype.kind == "f":
            if most > tolerance:
                return f"{name} differs by {most:g}, and {tolerance:g} is allowed"
        elif most > levels or differing > share:
            return (
                f"{name} differs by {most:g} levels in {differing:.2%} of values, and {levels} in "
                f"{share:.2%} are allowed"
            )
    return ""


def _engine(variant: str) -> str:
    """What computes a variant: cpu, cuda or tensorrt."""
    return variant.partition("-")[0]


def _apart(before: NDArray[Any], after: NDArray[Any]) -> tuple[float, float]:
    """The largest difference, and the share of values that differ."""
    if before.shape != after.shape:
        return float("inf"), 1.0
    apart = np.abs(before.astype(np.float64) - after.astype(np.float64))
    return float(apart.max(initial=0.0)), float((apart > 0).mean())
