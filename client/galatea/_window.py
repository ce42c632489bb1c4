"""How many requests of one stream are on their way at once."""

from __future__ import annotations

import statistics
from collections import deque

__all__ = ["Window"]

FEWEST = 2  # one is computed while the other travels
MOST = 16  # for each endpoint
BYTES = 64 << 20  # of answers that may be held at once
QUEUE = 1.0, 3.0  # requests that should wait at the server: at least, at most


class Window:
    """A bound that adapts to the server, as TCP Vegas does (Brakmo & Peterson 1995).

    Of requests that take `seconds` where the fastest took `fastest`, the share 1 − fastest /
    seconds of the window waits in some queue. Few waiting requests keep the server busy; more only
    wait longer.

    Args:
        endpoints: among which requests are divided.
        reply: bytes of an answer; None where that is not known before.

    Attributes:
        size: requests that may be on their way.
    """

    def __init__(self, endpoints: int, reply: int | None) -> None:
        fitting = 4 * FEWEST if not reply else BYTES // reply
        self._endpoints = endpoints
        self._most = max(FEWEST, min(MOST * endpoints, fitting))
        self._fastest = float("inf")
        self._recent: deque[float] = deque(maxlen=64)
        self.size = min(self._most, 2 * FEWEST * endpoints)

    def answered(self, seconds: float, *, full: bool) -> None:
        """Takes in how long a request took; `full`: as many as allowed were on their way."""
        self._recent.append(seconds)
        self._fastest = min(self._fastest, seconds)
        waiting = self.size * (1 - self._fastest / seconds) / self._endpoints
        if waiting < QUEUE[0] and full:
            self.size = min(self._most, self.size + 1)
        elif waiting > QUEUE[1]:
            self.size = max(FEWEST, self.size - 1)

    def failed(self) -> None:
        """Halves the window: a server is in trouble, or gone."""
        self.size = max(FEWEST, self.size // 2)

    def usual(self) -> float | None:
        """Seconds that a request usually takes (median of the last); None while few are known."""
        return statistics.median(self._recent) if len(self._recent) >= 8 else None
