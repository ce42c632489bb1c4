"""Which files of the paths given are pictures, and what they are called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from galatea.errors import InvalidInput

__all__ = ["File", "find", "is_dicom", "stem"]

PILLOW = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
NUMPY = (".npy", ".npz")
NIFTI = (".nii", ".nii.gz")
DICOM = (".dcm", ".dicom", ".ima")
SUFFIXES = (*PILLOW, *NUMPY, *NIFTI, *DICOM)


@dataclass(frozen=True)
class File:
    """A file with pictures.

    Attributes:
        name: its path below the folder that was given, without the suffix.
        named: given by itself, and not found in a folder.
    """

    name: str
    path: Path
    named: bool

    @property
    def single(self) -> bool:
        """Whether such a file usually holds one picture, and not a volume or a stack."""
        return not self.path.name.lower().endswith((*NUMPY, *NIFTI))


def find(paths: Iterable[str | os.PathLike[str]]) -> list[File]:
    """The files with pictures among `paths`, in their order; folders recursively and sorted.

    What is hidden or no picture is passed over in a folder. DICOM files are known by their suffix
    or, without one, by their content.

    Raises:
        InvalidInput: a path is not there, is no picture, or is a folder without any; or two files
            would be called the same.
    """
    found: list[File] = []
    for path in map(Path, paths):
        files = list(_in_folder(path)) if path.is_dir() else [_single(path)]
        if not files:
            raise InvalidInput(f"{path}: no pictures in this folder", _known())
        found += files
    same = Counter(file.name for file in found)
    # Files that differ in their suffix alone keep it in the name.
    found = [
        File(f"{file.name}{file.path.suffix}", file.path, file.named)
        if same[file.name] > 1
        else file
        for file in found
    ]
    name, times = Counter(file.name for file in found).most_common(1)[0] if found else ("", 0)
    if times > 1:
        raise InvalidInput(
            f"{times} pictures would be called {name!r}",
            "give the folder that they are below, or translate them one after the other",
        )
    return found


def stem(path: Path) -> str:
    """The name of a file without its suffix, ``.nii.gz`` included."""
    name = path.name
    suffix = next((end for end in (*NIFTI[::-1], *SUFFIXES) if name.lower().endswith(end)), "")
    return name[: len(name) - len(suffix)] or name


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its suffix or, without one, by its first bytes."""
    if path.suffix.lower() in DICOM:
        return True
    if path.suffix.strip(".").isalpha():
        return False
    # Without a suffix, or with one like that of an instance number or UID.
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _single(path: Path) -> File:
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file or folder", "check the path")
    if not _is_picture(path):
        raise InvalidInput(f"{path}: no picture by its name and content", _known())
    return File(stem(path), path, named=True)


def _in_folder(folder: Path) -> Iterator[File]:
    paths: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # DICOMDIR is the list of the others.
        shown = (n for n in names if not n.startswith(".") and n.upper() != "DICOMDIR")
        paths += (Path(root, name) for name in shown)
    for path in sorted(paths):
        if _is_picture(path):
            below = path.relative_to(folder).with_name(stem(path))
            yield File(below.as_posix(), path, named=False)


def _is_picture(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) or is_dicom(path)


def _known() -> str:
    return f"pictures are {', '.join(SUFFIXES)}, and DICOM files without a suffix"
