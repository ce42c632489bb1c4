"""NIfTI: a volume of one slice for each image."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.datasets.formats._format import File, Format, Shard

# Columns go to the patient's left and rows to the back (LPS), as DICOM shows an axial slice; NIfTI
# counts to the right and front. A pixel has the size 1, in a unit that nobody knows.
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
DESCRIPTION = 79  # bytes of the header's text


class Nifti(Format):
    """``SHARD/KEY.nii.gz``, ``SHARD/KEY-mask.nii.gz`` and, with provenance, ``SHARD/KEY.json``.

    Voxels are [W, H, 1], of several channels [W, H, 1, C], in the type of the image.
    """

    name = "nifti"
    title = "NIfTI volumes of one slice"
    extra = "nifti"
    module = "nibabel"
    packages = ("nibabel",)

    def files(self, shard: Shard) -> Iterator[File]:
        samples = shard.samples
        card = samples.card
        for i in range(len(shard)):
            path = f"{shard.stem()}/{shard.key(i)}"
            told = f"synthetic; seed {samples.seeds[i]}; {card.name} v{card.version}"
            if samples.masks is not None:
                yield File(f"{path}-mask.nii.gz", _volume(samples.masks[i], told))
            yield File(f"{path}.json", shard.sidecar(i))
            yield File(f"{path}.nii.gz", _volume(samples.images[i], told))


def _volume(pixels: NDArray[Any], told: str) -> memoryview:
    """A file of the pixels [H, W, C]."""
    import nibabel

    voxels = pixels.transpose(1, 0, 2)
    voxels = voxels if voxels.shape[2] == 1 else voxels[:, :, None]
    image = nibabel.Nifti1Image(voxels, AFFINE)  # type: ignore[no-untyped-call] # nibabel's own
    image.header["descrip"] = told.encode("ascii", "replace")[:DESCRIPTION]
    buffer = io.BytesIO()
    # Without a name and a time, so that only the pixels and zlib decide the bytes.
    with gzip.GzipFile("", "wb", compresslevel=1, fileobj=buffer, mtime=0) as file:
        file.write(image.to_bytes())
    return buffer.getbuffer()
