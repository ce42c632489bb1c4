"""Draws from a seed that are the same for ever, on every platform and in every language.

Draw v1, as docs/wire.md tells it: the first 8 bytes, big-endian, of the SHA-256 of the ASCII text
``galatea draw v1:<name>:<seed>``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import count

__all__ = ["fractions", "real", "whole", "word"]


def word(seed: int, name: str) -> int:
    """A number from 0 to 2**64 - 1."""
    text = f"galatea draw v1:{name}:{seed}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def whole(seed: int, name: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return low + word(seed, name) % (high - low + 1)


def real(seed: int, name: str, low: float, high: float) -> float:
    """A number from `low` to `high`, in steps of the 2**53rd part of the range."""
    return low + (word(seed, name) >> 11) * 2.0**-53 * (high - low)


def fractions(seed: int, name: str) -> Iterator[float]:
    """As many numbers from 0 to 1, 1 excluded, as are taken."""
    return (real(seed, f"{name} {k}", 0.0, 1.0) for k in count())
