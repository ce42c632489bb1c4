"""NIfTI: a volume for each sample, of one slice where the sample is an image."""

from __future__ import annotations

from collections.abc import Iterator

from galatea import _nifti
from galatea.datasets.formats._format import File, Format, Shard


class Nifti(Format):
    """``SHARD/KEY.nii.gz``, ``SHARD/KEY-mask.nii.gz`` and, with provenance, ``SHARD/KEY.json``.

    Voxels are [X, Y, Z] of volumes and [W, H, 1] of images, with the channels behind where there
    are several, in the type of the image.
    """

    name = "nifti"
    title = "NIfTI volumes; of images, with one slice"
    extra = "nifti"
    module = "nibabel"
    packages = ("nibabel",)
    volumes = True

    def files(self, shard: Shard) -> Iterator[File]:
        samples = shard.samples
        spacing = samples.card.image.spacing
        for i in range(len(shard)):
            path = f"{shard.stem()}/{shard.key(i)}"
            facts = samples.provenance(i)
            if samples.masks is not None:
                mask = _nifti.encode(samples.masks[i], spacing, facts)
                yield File(f"{path}-mask.nii.gz", mask)
            yield File(f"{path}.json", shard.sidecar(i))
            yield File(f"{path}.nii.gz", _nifti.encode(samples.images[i], spacing, facts))
