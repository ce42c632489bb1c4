"""What sampling and translating return: images with all that made them."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from galatea import _nifti, _png, _tiles
from galatea._files import write_atomically
from galatea.card import ModelCard
from galatea.errors import InvalidInput, MachineError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Progress", "Samples"]


@dataclass(frozen=True)
class Progress:
    """How far an image is that is not finished.

    Attributes:
        index: of the image; its seed is that of image 0, and this more.
        step: calls of the network that were made for it.
        calls: that it needs in all.
    """

    index: int
    step: int
    calls: int


@dataclass(frozen=True)
class Samples:
    """A batch of synthetic images.

    Attributes:
        images: [n, H, W, C], uint8 unless the card says otherwise; volumes are [n, X, Y, Z, C].
        masks: uint8 [n, H, W, 1] or [n, X, Y, Z, 1], or None where the generator makes none and its
            sources have none.
        seeds: int64 [n]; the same seed with the same conditions gives the same image again. Empty
            for translations in which no seed plays a part, and for images that have `origins`.
        conditions: by name, the value of each sample, [n].
        card: the model card.
        sources: of translations, the pictures as the model took them, [n, H, W, C].
        names: of translations, what the pictures were called; of images that no seed tells apart,
            their numbers.
        origins: of images that no single seed makes, what their latents are; see
            :class:`galatea.latents.Latents`.
        classes: names of the labels that a data set has given its samples, of which the model knows
            nothing.
        progress: of a preview, which is one image, how far it is; None where they are finished.
    """

    images: NDArray[Any]
    masks: NDArray[np.uint8] | None
    seeds: NDArray[np.int64]
    conditions: dict[str, NDArray[Any]]
    card: ModelCard
    sources: NDArray[Any] | None = None
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    progress: Progress | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class of each image, int64 [n]; None for a generator without classes."""
        return self.conditions.get("label")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 0, 1, …; () for a generator without classes."""
        return self.classes or (self.card.label.labels if self.card.label else ())

    def label_name(self, i: int) -> str | None:
        """Name of the class of image `i`."""
        names = self.class_names
        return names[int(self.labels[i])] if self.labels is not None and names else None

    def pil(self, i: int) -> Image:
        """Image `i` for Pillow: mode L, RGB or I;16.

        Raises:
            InvalidInput: the image is a volume, or neither 8 bits with 1 or 3 channels nor 16 bits
                with one.
        """
        if self.images.ndim == 5:
            raise InvalidInput(
                f"{self.card.name} makes volumes: no picture for Pillow",
                "use .images, the array, or .grid(), which shows the middle slices",
            )
        if not _png.fits(self.images.dtype, self.images.shape[-1]):
            raise InvalidInput(
                f"{self.card.name} makes {self.images.dtype} with {self.images.shape[-1]} channels "
                f"({', '.join(self.card.image.channels)}): no picture for Pillow",
                "use .images, the array, or .grid(), which shows the channels side by side",
            )
        return _png.picture(self.images[i])

    def provenance(self, i: int) -> dict[str, str]:
        """Where image `i` comes from, as written into its file.

        The digest of a source is that of its pixels as they were sent, row by row.
        """
        card = self.card
        facts = {
            "Software": card.exporter,
            "Description": "Synthetic image made by a generative model; not a patient"
            if self.sources is None
            else "Picture changed by a generative model; not for diagnosis",
            "galatea:synthetic": "true",
            "galatea:model": card.name,
            "galatea:version": str(card.version),
            "galatea:weights": f"sha256:{card.checkpoint_sha256}",
            "galatea:licence": card.licence,
        }
        if len(self.seeds):
            facts["galatea:seed"] = str(int(self.seeds[i]))
        if self.origins:
            facts["galatea:latent"] = self.origins[i]
        if self.sources is not None:
            facts["galatea:source"] = self.names[i]
            facts["galatea:source_sha256"] = hashlib.sha256(self.sources[i].tobytes()).hexdigest()
        for name, values in self.conditions.items():
            facts[f"galatea:{name}"] = str(values[i])
        if (label := self.label_name(i)) is not None:
            facts["galatea:label_name"] = label
        if self.progress is not None:
            facts["galatea:preview"] = f"step {self.progress.step} of {self.progress.calls}"
        return facts

    def save(self, folder: str | Path) -> list[Path]:
        """Writes one file for each image, and one for each mask, with provenance.

        Files are named ``<model>-v<version>-<seed>[-<class>].png``, translations
        ``<source>-<model>-v<version>.png``, and masks ``…-mask.png``. Images that PNG cannot hold
        (floats, 16-bit colours, or other than 1 or 3 channels) are written as ``.npy`` [H, W, C],
        and volumes with their masks as ``.nii.gz``, with their provenance beside them in ``.json``;
        in a PNG it is inside. A file is written whole or not at all, and an image after what
        belongs to it.

        Returns:
            The paths of the images.

        Raises:
            MachineError: the folder cannot be written, the disk is full, or volumes need the extra
                ``nifti``.
        """
        target = Path(folder)
        paths: list[Path] = []
        for i in range(len(self)):
            path = target / self.filename(i)
            try:
                for file, content in self._files(i, path):
                    write_atomically(file, content, durable=False)
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                raise MachineError(
                    f"{path}: cannot be written: {error.strerror or error}; "
                    f"{len(paths)} of {len(self)} images of this batch are there",
                    "free some space" if full else "choose a folder that you may write to",
                ) from error
            paths.append(path)
        return paths

    def filename(self, i: int) -> str:
        """What :meth:`save` calls image `i`."""
        suffix = _suffix(self.images[i])
        if self.names:
            return f"{self.names[i]}-{self.card.name}-v{self.card.version}{suffix}"
        label = self.label_name(i)
        parts = [self.card.name, f"v{self.card.version}", f"{int(self.seeds[i]):012d}"]
        parts += [label.replace(" ", "_").replace("/", "_")] if label else []
        return "-".join(parts) + suffix

    def grid(self, columns: int | None = None, *, outline: bool = False) -> Image:
        """All images in one picture, row by row; translations to the right of their source.

        Channels of an image that are no colours stand side by side, in the order of the card, and
        of floats the range 0 … 1 is shown. Of a volume the middle slices stand side by side: axial,
        coronal, sagittal.

        Args:
            columns: images in a row; default is a square.
            outline: draw the outline of each mask.
        """
        tiles = []
        for i, image in enumerate(self.images):
            mask = self.masks[i, ..., 0] if outline and self.masks is not None else None
            before = [] if self.sources is None else [_tiles.panels(self.sources[i])]
            tiles.append(_tiles.tile([*before, _tiles.panels(image, mask)]))
        return _tiles.sheet(tiles, columns or math.ceil(math.sqrt(len(self))))

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(self.images)

    def _files(self, i: int, path: Path) -> Iterator[tuple[Path, bytes | memoryview]]:
        """The files of image `i` with their content, the image last: where it is, all are."""
        facts = self.provenance(i)
        stem = path.name.removesuffix(_suffix(self.images[i]))
        if self.masks is not None:
            mask = path.with_name(f"{stem}-mask{_suffix(self.masks[i])}")
            yield mask, self._encoded(self.masks[i], facts)
        content = self._encoded(self.images[i], facts)
        if path.suffix != ".png":
            facts["channels"] = ", ".join(self.card.image.channels)
            told = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
            yield path.with_name(f"{stem}.json"), told.encode()
        yield path, content

    def _encoded(self, pixels: NDArray[Any], facts: dict[str, str]) -> bytes | memoryview:
        """The file of an image or a mask."""
        suffix = _suffix(pixels)
        if suffix == ".nii.gz":
            return _nifti.encode(pixels, self.card.image.spacing, facts)
        if suffix == ".png":
            return _png.encode(pixels, facts)
        buffer = io.BytesIO()
        np.save(buffer, pixels)
        return buffer.getbuffer()


def _suffix(pixels: NDArray[Any]) -> str:
    """The ending of the file that holds an image or a mask."""
    if pixels.ndim == 4:
        return ".nii.gz"
    return ".png" if _png.fits(pixels.dtype, pixels.shape[-1]) else ".npy"
