"""A PNG file for each image, and one for each mask."""

from __future__ import annotations

from collections.abc import Iterator

from numpy.typing import DTypeLike

from galatea import _png
from galatea.datasets.formats._format import File, Format, Shard


class Png(Format):
    """``SHARD/KEY.png`` and ``SHARD/KEY-mask.png``, with provenance as text inside."""

    name = "png"
    title = "PNG files, 8 or 16 bits"
    packages = ("Pillow",)

    def holds(self, dtype: DTypeLike, channels: int) -> bool:
        return _png.fits(dtype, channels)

    def files(self, shard: Shard) -> Iterator[File]:
        samples = shard.samples
        for i in range(len(shard)):
            path = f"{shard.stem()}/{shard.key(i)}"
            facts = samples.provenance(i)
            if samples.masks is not None:
                yield File(f"{path}-mask.png", _png.encode(samples.masks[i], facts))
            yield File(f"{path}.png", _png.encode(samples.images[i], facts))
