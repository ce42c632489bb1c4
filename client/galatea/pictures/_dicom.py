"""Pictures of a DICOM file: real-world values, and levels by its window."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from galatea.extras import needs_extra
from galatea.pictures._files import File
from galatea.pictures._picture import Picture, stretch

if TYPE_CHECKING:
    from pydicom import Dataset


def read(file: File) -> Iterator[Picture]:
    """Every frame of a DICOM file; none where a file found in a folder has no pixels.

    Rescale slope and intercept (or the modality's table) are applied, MONOCHROME1 is turned round
    so that more is brighter, YBR and palettes become RGB. ``levels`` follow the VOI table or the
    first window, where there is one.

    Raises:
        MachineError: pydicom is not installed.
    """
    with needs_extra("dicom"):
        from pydicom import dcmread
        from pydicom.pixels.utils import iter_pixels
    dataset = dcmread(file.path)
    if "Rows" not in dataset and not file.named:
        return  # a report or a plan among the images
    frames = int(dataset.get("NumberOfFrames") or 1)
    for k, pixels in enumerate(iter_pixels(dataset)):
        name = file.name if frames == 1 else f"{file.name}-{k + 1:04d}"
        yield _picture(name, pixels, _facts(dataset, k))


def _facts(dataset: Dataset, frame: int) -> Dataset:
    """What is said of one frame, wherever an enhanced multi-frame image says it."""
    groups = [*dataset.get("SharedFunctionalGroupsSequence", [])]
    groups += [*dataset.get("PerFrameFunctionalGroupsSequence", [])][frame : frame + 1]
    if not groups:
        return dataset
    facts = copy.copy(dataset)
    for group in groups:
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in [*group.get(name, [])][:1]:
                facts.update(item)
    return facts


def _picture(name: str, pixels: NDArray[Any], facts: Dataset) -> Picture:
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

    kind = facts.get("PhotometricInterpretation", "")
    if kind == "PALETTE COLOR":
        coloured = apply_color_lut(pixels, facts)
        bits = facts.RedPaletteColorLookupTableDescriptor[2]
        return Picture(name, stretch(coloured, 0, 2**bits - 1))
    if pixels.ndim == 3:
        return Picture(name, pixels)
    values = apply_modality_lut(pixels, facts)
    seen = _window(values, facts)
    if kind == "MONOCHROME1":
        values = values.max() + values.min() - values
        seen = None if seen is None else np.invert(seen)
    return Picture(name, values, seen)


def _window(values: NDArray[Any], facts: Dataset) -> NDArray[np.uint8] | None:
    from pydicom.pixels.processing import apply_windowing

    if facts.get("VOILUTSequence"):
        return _table(values, facts)
    if facts.get("WindowCenter") is None or facts.get("WindowWidth") is None:
        return None
    # The window's own ends, whatever its function: what it makes of values far outside.
    ends = np.array([-1e30, 1e30])
    seen = apply_windowing(np.concatenate([values.ravel().astype(np.float64), ends]), facts)
    return stretch(seen[:-2].reshape(values.shape), float(seen[-2]), float(seen[-1]))


def _table(values: NDArray[Any], facts: Dataset) -> NDArray[np.uint8]:
    """By the VOI table; pydicom's own function wraps round where its entries have 8 bits."""
    item = facts.VOILUTSequence[0]
    _, first, bits = item.LUTDescriptor
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, "<u2" if facts.original_encoding[1] else ">u2")
    index = (values.astype(np.int64) - first).clip(0, len(data) - 1)
    return stretch(np.asarray(data)[index], 0, 2**bits - 1)
