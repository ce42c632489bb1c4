"""Pictures that people have dropped on the page, to be translated."""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
from collections import OrderedDict
from pathlib import Path

from galatea import pictures
from galatea.errors import GalateaError, InvalidInput
from galatea.pictures import Picture

__all__ = ["LARGEST", "Sources"]

LARGEST = 64 << 20  # bytes of a file
KEPT = 16  # pictures


class Sources:
    """The last pictures, each by a digest of its file."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Picture] = OrderedDict()

    async def add(self, name: str, content: bytes) -> str:
        """Reads the first picture of a file; returns the digest it is known by.

        Raises:
            InvalidInput: it is too large, or no picture can be read from it.
            MachineError: a package that reads this kind of file is not installed.
        """
        if not content or len(content) > LARGEST:
            raise InvalidInput(
                f"{name} has {len(content)} bytes", f"give a file of 1 to {LARGEST} bytes"
            )
        safe = re.sub(r"[^\w.-]", "_", name).lstrip(".")[-100:] or "picture"
        digest = hashlib.sha256(f"{safe}\n".encode() + content).hexdigest()[:32]
        self._kept[digest] = await asyncio.to_thread(_read, safe, content)
        self._kept.move_to_end(digest)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return digest

    async def picture(self, digest: str) -> Picture:
        """The picture.

        Raises:
            InvalidInput: it is not there any more.
        """
        if digest not in self._kept:
            raise InvalidInput(
                "the picture to translate is not there any more", "drop its file again"
            )
        return self._kept[digest]


def _read(name: str, content: bytes) -> Picture:
    with tempfile.TemporaryDirectory(prefix="galatea-ui-") as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            found = next(iter(pictures.read([path])), None)
        except GalateaError as error:
            problem = error.problem.replace(f"{folder}/", "")
            raise type(error)(problem, error.remedy) from error
    if found is None:
        raise InvalidInput(
            f"{name} holds no picture", "give PNG, JPEG, TIFF, NumPy, DICOM or NIfTI"
        )
    return found
