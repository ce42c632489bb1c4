"""Optional packages: which extra brings them, and what to say when one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from galatea.errors import MachineError

__all__ = ["needs_extra"]


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turns an import that fails inside the block into the pip line that mends it.

    Raises:
        MachineError: a package outside galatea could not be found.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0].startswith("galatea"):
            raise
        raise MachineError(
            f"this command needs the package {error.name!r}, which is not installed",
            f"run: pip install 'galatea[{extra}]'",
        ) from error
