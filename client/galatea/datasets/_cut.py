"""From the batches of a stream to runs of other lengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.samples import Samples

__all__ = ["cut", "neighbours"]


def cut(batches: Iterable[Samples], lengths: Iterable[int]) -> Iterator[Samples]:
    """Cuts a stream of sampled batches into runs of the given lengths, in order.

    Every sample is copied once, to its place. No more is held than one run and one batch.
    """
    waiting = iter(batches)
    batch, taken = None, 0
    for length in lengths:
        run: dict[str, NDArray[Any]] = {}
        filled = 0
        while filled < length:
            if batch is None or taken == len(batch):
                batch, taken = next(waiting), 0
            some = min(length - filled, len(batch) - taken)
            for name, array in _arrays(batch).items():
                if name not in run:
                    # An array of texts is as wide as its own longest one.
                    dtype = object if array.dtype.kind == "U" else array.dtype
                    run[name] = np.empty((length, *array.shape[1:]), dtype)
                run[name][filled : filled + some] = array[taken : taken + some]
            filled, taken = filled + some, taken + some
        assert batch is not None
        yield replace(
            batch,
            images=run["images"],
            masks=run.get("masks"),
            seeds=run["seeds"],
            conditions={name: run[f"condition {name}"] for name in batch.conditions},
        )


def neighbours(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Rising numbers in runs without a gap."""
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        yield [number for _, number in run]


def _arrays(batch: Samples) -> dict[str, NDArray[Any]]:
    """Everything that has a value for each sample."""
    arrays = {"images": batch.images, "seeds": batch.seeds}
    if batch.masks is not None:
        arrays["masks"] = batch.masks
    return arrays | {f"condition {name}": values for name, values in batch.conditions.items()}
