"""What sampling returns: images with their masks, seeds, conditions and card."""

from __future__ import annotations

import errno
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from galatea._files import write_atomically
from galatea.card import ModelCard
from galatea.errors import InvalidInput, MachineError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Samples"]

OUTLINE = (255, 80, 60)  # RGB of a mask's outline in a grid
GAP = 2  # pixels between the tiles of a grid

# zlib level 1 is four to five times faster than Pillow's default for a fifth more bytes.
COMPRESS_LEVEL = 1


@dataclass(frozen=True)
class Samples:
    """A batch of synthetic images.

    Attributes:
        images: [n, H, W, C], uint8 unless the card says otherwise.
        masks: uint8 [n, H, W, 1], or None where the generator makes none.
        seeds: int64 [n]; the same seed with the same conditions gives the same image again.
        conditions: by name, the value of each sample, [n].
        card: the model card.
    """

    images: NDArray[Any]
    masks: NDArray[np.uint8] | None
    seeds: NDArray[np.int64]
    conditions: dict[str, NDArray[Any]]
    card: ModelCard

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class of each image, int64 [n]; None for a generator without classes."""
        return self.conditions.get("label")

    def label_name(self, i: int) -> str | None:
        """Name of the class of image `i`."""
        if self.labels is None or self.card.label is None:
            return None
        return self.card.label.labels[int(self.labels[i])]

    def pil(self, i: int) -> Image:
        """Image `i` for Pillow: mode L or RGB.

        Raises:
            InvalidInput: the image is not 8 bits with 1 or 3 channels.
        """
        return _pil(self.images[i], self.card)

    def provenance(self, i: int) -> dict[str, str]:
        """Where image `i` comes from, as written into its PNG file."""
        card = self.card
        facts = {
            "Software": card.exporter,
            "Description": "Synthetic image made by a generative model; not a patient",
            "galatea:synthetic": "true",
            "galatea:model": card.name,
            "galatea:version": str(card.version),
            "galatea:weights": f"sha256:{card.checkpoint_sha256}",
            "galatea:licence": card.licence,
            "galatea:seed": str(int(self.seeds[i])),
        }
        for name, values in self.conditions.items():
            facts[f"galatea:{name}"] = str(values[i])
        if (label := self.label_name(i)) is not None:
            facts["galatea:label_name"] = label
        return facts

    def save(self, folder: str | Path) -> list[Path]:
        """Writes one PNG for each image, and one for each mask, with provenance inside.

        Files are named ``<model>-v<version>-<seed>[-<class>].png`` and ``…-mask.png``. A file is
        written whole or not at all.

        Returns:
            The paths of the images.

        Raises:
            MachineError: the folder cannot be written, or the disk is full.
        """
        target = Path(folder)
        paths: list[Path] = []
        for i in range(len(self)):
            path = target / f"{self._stem(i)}.png"
            facts = self.provenance(i)
            try:
                write_atomically(path, _png(self.pil(i), facts), durable=False)
                if self.masks is not None:
                    mask = _png(_pil(self.masks[i], self.card), facts)
                    write_atomically(target / f"{path.stem}-mask.png", mask, durable=False)
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                raise MachineError(
                    f"{path}: cannot be written: {error.strerror or error}; "
                    f"{len(paths)} of {len(self)} images of this batch are there",
                    "free some space" if full else "choose a folder that you may write to",
                ) from error
            paths.append(path)
        return paths

    def grid(self, columns: int | None = None, *, outline: bool = False) -> Image:
        """All images in one picture, row by row.

        Args:
            columns: images in a row; default is a square.
            outline: draw the outline of each mask.
        """
        from PIL import Image

        across = columns or math.ceil(math.sqrt(len(self)))
        height, width = self.images.shape[1:3]
        rows = math.ceil(len(self) / across)
        size = (across * (width + GAP) - GAP, rows * (height + GAP) - GAP)
        sheet = Image.new("RGB", size)
        for i in range(len(self)):
            tile = self.pil(i).convert("RGB")
            if outline and self.masks is not None:
                pixels = np.array(tile)
                pixels[_outline(self.masks[i, :, :, 0])] = OUTLINE
                tile = Image.fromarray(pixels)
            sheet.paste(tile, (i % across * (width + GAP), i // across * (height + GAP)))
        return sheet

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(self.images)

    def _stem(self, i: int) -> str:
        label = self.label_name(i)
        parts = [self.card.name, f"v{self.card.version}", f"{int(self.seeds[i]):012d}"]
        return "-".join([*parts, *([label.replace(" ", "_").replace("/", "_")] if label else [])])


def _pil(pixels: NDArray[Any], card: ModelCard) -> Image:
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.shape[-1] not in (1, 3):
        raise InvalidInput(
            f"{card.name} makes {pixels.dtype} with {pixels.shape[-1]} channels: no picture",
            "use .images, the array",
        )
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels)


def _png(image: Image, facts: dict[str, str]) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in facts.items():
        if value:
            info.add_itxt(key, value)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, compress_level=COMPRESS_LEVEL)
    return buffer.getvalue()


def _outline(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels outside of the mask that touch it, so that thin structures stay visible."""
    inside = np.pad(mask > 0, 1)
    around = inside[:-2, 1:-1] | inside[2:, 1:-1] | inside[1:-1, :-2] | inside[1:-1, 2:]
    edge: NDArray[np.bool_] = around & ~inside[1:-1, 1:-1]
    return edge
