"""Files to keep of an image: as galatea sample writes them, its mask, and DICOM."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from galatea.datasets.formats._dicom import Dicom
from galatea.datasets.formats._format import Shard
from galatea.errors import InvalidInput
from galatea.extras import needs_extra
from galatea.samples import Samples
from galatea.ui._tile import Tile

__all__ = ["written"]

KINDS = ("image", "mask", "dicom")


def written(samples: Samples, tile: Tile, kind: str) -> tuple[str, bytes]:
    """Name and content of a file.

    Args:
        samples: the image, alone.
        kind: "image", "mask" or "dicom".

    Raises:
        InvalidInput: no such kind, or the image has no such file.
        MachineError: an extra is missing.
    """
    if kind not in KINDS:
        raise InvalidInput(f"no file {kind!r} of an image", f"choose one of: {', '.join(KINDS)}")
    if kind == "dicom":
        return _dicom(samples, tile)
    with tempfile.TemporaryDirectory(prefix="galatea-ui-") as folder:
        (path,) = samples.save(folder)
        if kind == "mask":
            masks = [file for file in Path(folder).rglob("*-mask.*") if file.suffix != ".json"]
            if not masks:
                raise InvalidInput(f"{tile.card.name} makes no masks", "take the image")
            path = masks[0]
        return path.name, path.read_bytes()


def _dicom(samples: Samples, tile: Tile) -> tuple[str, bytes]:
    with needs_extra("dicom"):
        import highdicom  # noqa: F401  # missing, it is named before any work is done
    if not len(samples.seeds):
        raise InvalidInput(
            "DICOM files are of images that one seed makes", "take the file of the image"
        )
    Dicom().check(tile.card)
    seed = int(samples.seeds[0])
    # Two downloads of one image are one object.
    job = hashlib.sha256(tile.file("dicom").encode()).hexdigest()
    files = Dicom().files(Shard(0, 0, samples, job))
    content = next(file.content for file in files if not file.path.endswith("-mask.dcm"))
    return f"{tile.card.name}-v{tile.card.version}-{seed:012d}.dcm", bytes(content)
