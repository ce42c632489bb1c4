"""NIfTI: files of volumes, and of images as volumes of one slice."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.extras import needs_extra

__all__ = ["encode"]

# Columns of an image go to the patient's left and rows to the back (LPS), as DICOM shows an axial
# slice; NIfTI counts to the right and front. A pixel has the size 1, in a unit that nobody knows.
SLICE = np.diag([-1.0, -1.0, 1.0, 1.0])
DESCRIPTION = 79  # bytes of the header's text


def encode(pixels: NDArray[Any], spacing: Sequence[float], facts: Mapping[str, str]) -> memoryview:
    """A compressed file whose bytes only the arguments, nibabel and zlib decide.

    Args:
        pixels: a volume [X, Y, Z, C], whose axes go to the patient's right, front and head, or an
            image [H, W, C]. Several channels become the fourth axis.
        spacing: of a volume, the size of a voxel in mm along each axis; () where nobody knows.
        facts: the provenance, of which the header's ``descrip`` tells seed and model.

    Raises:
        MachineError: nibabel is not installed.
    """
    with needs_extra("nifti"):
        import nibabel

    if pixels.ndim == 4:
        voxels, affine = pixels, np.diag([*(spacing or (1.0, 1.0, 1.0)), 1.0])
    else:
        voxels, affine = pixels.transpose(1, 0, 2)[:, :, None], SLICE
    voxels = voxels[..., 0] if voxels.shape[3] == 1 else voxels
    image = nibabel.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call] # nibabel's own
    image.header["descrip"] = _told(facts).encode("ascii", "replace")[:DESCRIPTION]
    if spacing:
        image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call] # nibabel's own
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=1, fileobj=buffer, mtime=0) as file:
        file.write(image.to_bytes())
    return buffer.getbuffer()


def _told(facts: Mapping[str, str]) -> str:
    """The least that a volume should tell, wherever it is copied to."""
    seed = facts.get("galatea:seed")
    told = ["synthetic", *([f"seed {seed}"] if seed else [])]
    return "; ".join([*told, f"{facts['galatea:model']} v{facts['galatea:version']}"])
