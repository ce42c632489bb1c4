"""What is published: the files of a release, and what stands beside them.

::

    check.json                           what the gate found; written last, so with it all is there
    README.md                            the model card, as model hubs show it
    samples.png                          the eight golden samples
    model.sig                            signature of all others, where there is one
    <name>/<version>/manifest.json       size and sha256 of every file below
    <name>/<version>/config.pbtxt
    <name>.<stage>/<version>/model.onnx  …
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from galatea.errors import RepositoryError
from galatea.repository import MANIFEST

__all__ = ["CHECK", "README", "SAMPLES", "SCHEMA", "SIGNATURE", "Label"]

SCHEMA = 1
CHECK, README, SAMPLES = "check.json", "README.md", "samples.png"
SIGNATURE = "model.sig"


@dataclass(frozen=True)
class Label:
    """What a publication says that it is: the head of its ``check.json``.

    Attributes:
        sha256: of the release's manifest.
    """

    name: str
    version: int
    sha256: str

    @property
    def manifest(self) -> str:
        """Path of the release's manifest."""
        return f"{self.name}/{self.version}/{MANIFEST}"

    @classmethod
    def read(cls, place: str, content: bytes) -> Label:
        """Reads ``check.json``.

        Raises:
            RepositoryError: it is none, or of a release that did not pass.
        """
        try:
            document: Any = json.loads(content)
            if document["schema"] != SCHEMA or not document["passed"]:
                raise ValueError(f"schema {document['schema']}, passed: {document['passed']}")
            label = cls(str(document["name"]), int(document["version"]), document["manifest"])
            if "/" in label.name or label.name in ("", ".", ".."):
                raise ValueError(f"{label.name!r} is no name")
        except (ValueError, KeyError, TypeError) as error:
            raise RepositoryError(
                f"{place}: {CHECK} is not that of a publication ({error})",
                "publish the release again with galatea publish",
            ) from error
        return label
