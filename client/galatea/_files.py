"""Writing files whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

__all__ = ["is_leftover", "write_atomically"]

Content = bytes | bytearray | memoryview


def write_atomically(path: Path, data: Content, *, durable: bool = True) -> None:
    """Writes a file so that `path` is either what it was or the whole new content.

    Args:
        durable: also wait until the disk holds it, so that a power cut cannot leave it empty.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_leftover(name: str) -> bool:
    """Whether :func:`write_atomically` leaves a file of this name when its process is killed."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}", name) is not None
