"""From paths, arrays and Pillow images to pictures, one after the other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.errors import GalateaError, InvalidInput
from galatea.pictures import _dicom, _nifti
from galatea.pictures._files import NIFTI, NUMPY, File, find, is_dicom
from galatea.pictures._picture import Picture, as_picture, from_pillow

__all__ = ["join_channels", "pictures", "read", "read_files"]

MOST_CHANNELS = 5  # a last axis of at most this length is that of the channels
UNSAFE = re.compile(r"[^\w.-]")


def read(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    axis: str = "axial",
    slices: slice | None = None,
) -> Iterator[Picture]:
    """Reads the pictures of files and folders, one file at a time.

    Folders are read recursively and in the order of their names. A file of several pictures (pages
    of a TIFF, frames of a DICOM file, slices of a volume, an array [n, H, W] or [n, H, W, C]) gives
    all of them. Of a three-dimensional array, a last axis of at most 5 holds the channels.

    Args:
        axis: for NIfTI: "axial", "coronal" or "sagittal".
        slices: for NIfTI: which slices along that axis; default is all.

    Raises:
        InvalidInput: a path is not there, or is no picture that can be read; it is named.
        MachineError: an extra is missing; says which.
    """
    files = find([paths] if isinstance(paths, str | os.PathLike) else paths)
    return read_files(files, axis=axis, slices=slices)


def read_files(
    files: Iterable[File], *, axis: str = "axial", slices: slice | None = None
) -> Iterator[Picture]:
    """Reads the pictures of files that :func:`find` has found; see :func:`read`."""
    if axis not in _nifti.AXES:
        raise InvalidInput(f"no axis {axis!r}", f"choose one of: {', '.join(_nifti.AXES)}")
    return (picture for file in files for picture in _read(file, axis, slices))


def pictures(items: Any) -> Iterator[Picture]:
    """Whatever holds pictures, as pictures.

    Args:
        items: an array [n, H, W] or [n, H, W, C], a path, or an iterable of pictures, arrays,
            Pillow images and paths.

    Raises:
        InvalidInput: it is none of these, or a file cannot be read.
        MachineError: an extra is missing; says which.
    """
    if isinstance(items, str | os.PathLike):
        return read(items)
    if isinstance(items, np.ndarray) and items.ndim not in (3, 4):
        raise InvalidInput(
            f"an array of shape {list(items.shape)} holds no pictures",
            "give [n, H, W] or [n, H, W, C]; one picture is array[None]",
        )
    if not isinstance(items, Iterable):
        raise InvalidInput(f"{items!r:.60} holds no pictures", "give a list of pictures or paths")
    return _each(items)


def join_channels(channels: Mapping[str, Iterable[Picture]]) -> Iterator[Picture]:
    """Pictures of one channel each, joined to pictures of several channels.

    Args:
        channels: for each channel, in the order of the model, its pictures; they belong together in
            their order, and the first one gives the name.

    Raises:
        InvalidInput: different numbers or sizes of pictures, or one with several channels.
    """
    ended = object()
    readers = {channel: iter(source) for channel, source in channels.items()}
    while True:
        row = {channel: next(reader, ended) for channel, reader in readers.items()}
        over = [channel for channel, picture in row.items() if picture is ended]
        if over:
            if len(over) < len(row):
                raise InvalidInput(
                    f"the channel {over[0]!r} has fewer pictures than the others",
                    "give the same number of pictures for every channel, in the same order",
                )
            return
        yield _joined({channel: _grey(channel, row[channel]) for channel in row})


def _joined(row: dict[str, Picture]) -> Picture:
    first, *others = row.values()
    for channel, other in zip([*row][1:], others, strict=True):
        if other.pixels.shape[:2] != first.pixels.shape[:2]:
            raise InvalidInput(
                f"{first.name} is {first.pixels.shape[:2]} and {other.name} of the channel "
                f"{channel!r} {other.pixels.shape[:2]}",
                "give channels that lie pixel on pixel",
            )
    pixels = np.stack([picture.pixels for picture in row.values()], -1)
    return Picture(
        first.name, pixels, np.stack([picture.to_levels() for picture in row.values()], -1)
    )


def _grey(channel: str, picture: Any) -> Picture:
    """A picture without an axis of channels."""
    pixels = picture.pixels
    if pixels.ndim == 2:
        return Picture(picture.name, pixels, picture.levels)
    if pixels.shape[2] != 1 and (pixels[:, :, :1] != pixels).any():
        raise InvalidInput(
            f"{picture.name} has {pixels.shape[2]} channels and is to be one, {channel!r}",
            "give grey pictures",
        )
    return Picture(picture.name, pixels[:, :, 0])


def _each(items: Iterable[Any]) -> Iterator[Picture]:
    taken: set[str] = set()
    for i, item in enumerate(items):
        if not isinstance(item, str | os.PathLike):
            yield as_picture(item, f"{i:06d}")
            continue
        for picture in read(item):
            # The same file may be there more than once, to be translated in several ways.
            again = (f"{picture.name}-{k}" for k in count(2))
            name = next(n for n in chain([picture.name], again) if n not in taken)
            taken.add(name)
            yield replace(picture, name=name)


def _read(file: File, axis: str, slices: slice | None) -> Iterator[Picture]:
    name = file.path.name.lower()
    if name.endswith(NIFTI):
        found = _nifti.read(file, axis, slices)
    elif is_dicom(file.path):
        found = _dicom.read(file)
    else:
        found = _numpy(file) if name.endswith(NUMPY) else _pillow(file)
    while True:
        try:
            picture = next(found, None)
        except GalateaError:
            raise
        except Exception as error:  # readers raise whatever a broken file makes them stumble over
            raise InvalidInput(
                f"{file.path}: cannot be read: {error or type(error).__name__}",
                "convert it, or leave it out",
            ) from error
        if picture is None:
            return
        yield picture


def _pillow(file: File) -> Iterator[Picture]:
    from PIL import Image

    with Image.open(file.path) as image:
        pages = getattr(image, "n_frames", 1)
        for k in range(pages):
            image.seek(k)
            yield Picture(
                file.name if pages == 1 else f"{file.name}-{k + 1:04d}", from_pillow(image)
            )


def _numpy(file: File) -> Iterator[Picture]:
    if file.path.suffix.lower() == ".npy":
        # Mapped, so that a long stack is not read at once.
        yield from _stack(file.name, np.load(file.path, mmap_mode="r", allow_pickle=False))
        return
    with np.load(file.path, allow_pickle=False) as archive:
        for key in archive.files:
            # Keys come from whoever made the file, and names become paths.
            yield from _stack(f"{file.name}-{UNSAFE.sub('_', key)}", archive[key])


def _stack(name: str, array: NDArray[Any]) -> Iterator[Picture]:
    single = array.ndim == 2 or (array.ndim == 3 and array.shape[2] <= MOST_CHANNELS)
    if single or array.ndim not in (3, 4):
        yield Picture(name, np.array(array))
        return
    for i, pixels in enumerate(array):
        yield Picture(f"{name}-{i:06d}", np.array(pixels))
