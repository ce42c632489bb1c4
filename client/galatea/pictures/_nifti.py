"""Slices of a NIfTI volume, lying as DICOM shows them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from galatea.errors import InvalidInput
from galatea.extras import needs_extra
from galatea.pictures._files import File
from galatea.pictures._picture import Picture, stretch

AXES = ("sagittal", "coronal", "axial")  # slices across the first, second and third axis of RAS+


def read(file: File, axis: str = "axial", slices: slice | None = None) -> Iterator[Picture]:
    """Slices of a NIfTI file along an anatomical axis, of one volume after the other.

    The volume is brought to RAS+ by its affine, and slices count from 0 at the patient's left,
    back or feet. A slice has the patient's right or front at its left, and front or head at its
    top, as DICOM shows it. Levels go from the header's ``cal_min`` to ``cal_max`` or, where it does
    not say, over the whole volume, so that its slices stay comparable; uint8 voxels are levels.

    Args:
        axis: one of :data:`AXES`.
        slices: which slices; default is all.

    Raises:
        InvalidInput: there is no such slice.
        MachineError: nibabel is not installed.
    """
    with needs_extra("nifti"):
        import nibabel
    # nibabel ships types without those of this function.
    image = nibabel.as_closest_canonical(nibabel.load(file.path))  # type: ignore[no-untyped-call] # nibabel's own
    header = image.header
    stack = np.asanyarray(image.dataobj)
    if stack.dtype.kind not in "buif":
        raise InvalidInput(
            f"{file.path}: {stack.dtype} voxels are no intensities", "convert the volume to numbers"
        )
    stack = stack.reshape(*stack.shape[:3], *[1] * (3 - stack.ndim), -1)  # [x, y, z, volume]
    across = AXES.index(axis)
    chosen = range(stack.shape[across])[slices or slice(None)]
    if not chosen:
        raise InvalidInput(
            f"{file.path}: none of its {stack.shape[across]} {axis} slices is chosen",
            f"choose from 0 to {stack.shape[across] - 1}",
        )
    window = (float(header["cal_min"]), float(header["cal_max"]))
    for t in range(stack.shape[3]):
        volume = stack[..., t]
        told = window[0] < window[1]
        low, high = window if told else (float(volume.min()), float(volume.max()))
        for k in chosen:
            plane = np.take(volume, k, across)[::-1, ::-1].T
            moment = f"-t{t:03d}" if stack.shape[3] > 1 else ""
            name = f"{file.name}{moment}-{axis}-{k:03d}"
            levels = stretch(plane, low, high) if told or plane.dtype != np.uint8 else None
            yield Picture(name, np.ascontiguousarray(plane), levels)
