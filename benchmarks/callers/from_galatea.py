"""A user of galatea: images of a served model, streamed into files as ``galatea sample`` does."""

from __future__ import annotations

import sys

from callers import answer
from galatea import Client


def main() -> None:
    """Arguments: host:port, the model's name, the first seed."""
    url, name, first = sys.argv[1:]
    seed = int(first)
    with Client(url) as client:

        def make(n: int, folder: str | None) -> None:
            nonlocal seed
            for batch in client.stream(name, n, seed=seed):
                if folder is not None:
                    batch.save(folder)
            seed += n

        answer(make)


if __name__ == "__main__":
    main()
