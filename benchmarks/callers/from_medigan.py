"""A user of medigan, in an environment with medigan and without galatea.

It runs in a folder with ``config/global.json`` and ``models/``, where medigan keeps what it has
downloaded.
"""

from __future__ import annotations

import sys
from typing import Any

from medigan.generators import (  # type: ignore[import-not-found]  # only in that environment
    Generators,
)

from callers import answer


def main() -> None:
    """Argument: the model's id."""
    [model] = sys.argv[1:]
    generators: Any = Generators()

    def make(n: int, folder: str | None) -> None:
        generators.generate(
            model_id=model,
            num_samples=n,
            output_path=folder,
            save_images=folder is not None,
            install_dependencies=False,
        )

    answer(make)


if __name__ == "__main__":
    main()
