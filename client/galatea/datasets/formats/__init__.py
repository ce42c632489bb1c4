"""The formats of data sets.

A :class:`Format` turns a :class:`Shard`, some consecutive samples in memory, into the files of it.
None of them knows where files go. Images and masks are kept to the pixel, or refused.
"""

from __future__ import annotations

import importlib

from galatea.datasets.formats._dicom import Dicom
from galatea.datasets.formats._format import File, Format, Shard
from galatea.datasets.formats._nifti import Nifti
from galatea.datasets.formats._numpy import Npz
from galatea.datasets.formats._parquet import Parquet
from galatea.datasets.formats._png import Png
from galatea.datasets.formats._webdataset import WebDataset
from galatea.errors import InvalidInput
from galatea.extras import needs_extra

__all__ = ["FORMATS", "File", "Format", "Shard", "find_format"]

FORMATS: dict[str, Format] = {
    form.name: form for form in (Png(), Npz(), WebDataset(), Parquet(), Dicom(), Nifti())
}


def find_format(name: str) -> Format:
    """The format of this name, with all that it needs installed.

    Raises:
        InvalidInput: there is none; says what there is.
        MachineError: its extra is not installed; says which.
    """
    if name not in FORMATS:
        raise InvalidInput(f"no format {name!r}", f"choose one of: {', '.join(FORMATS)}")
    found = FORMATS[name]
    if found.module:
        with needs_extra(found.extra):
            importlib.import_module(found.module)
    return found
