"""WebDataset: tar archives that a training job reads as streams.

Files of a sample are neighbours of one key, as https://github.com/webdataset/webdataset wants them.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from galatea import _png
from galatea.datasets.formats._format import File, Format, Shard
from galatea.datasets.formats._numpy import npy


class WebDataset(Format):
    """``SHARD.tar`` of ``KEY.png``, ``KEY.mask.png``, ``KEY.cls``, ``KEY.txt`` and ``KEY.json``.

    ``txt`` is the prompt. Images that PNG cannot hold, and volumes with their masks, are ``npy``
    [H, W, C] or [X, Y, Z, C].
    """

    name = "webdataset"
    title = "WebDataset tar archives"
    packages = ("Pillow", "numpy")
    volumes = True

    def files(self, shard: Shard) -> Iterator[File]:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as target:
            for i in range(len(shard)):
                for suffix, content in _sample(shard, i):
                    info = tarfile.TarInfo(f"{shard.key(i)}.{suffix}")  # of nobody, of 1970-01-01
                    info.size = len(content)
                    target.addfile(info, io.BytesIO(content))
        yield File(f"{shard.stem()}.tar", buffer.getbuffer())


def _sample(shard: Shard, i: int) -> Iterator[tuple[str, bytes | memoryview]]:
    samples = shard.samples
    facts = samples.provenance(i)
    suffix, content = _file(samples.images[i], facts)
    yield suffix, content
    if samples.masks is not None:
        suffix, content = _file(samples.masks[i], facts)
        yield f"mask.{suffix}", content
    if samples.labels is not None:
        yield "cls", str(int(samples.labels[i])).encode()
    if "prompt" in samples.conditions:
        yield "txt", str(samples.conditions["prompt"][i]).encode()
    yield "json", shard.sidecar(i)


def _file(pixels: NDArray[Any], facts: dict[str, str]) -> tuple[str, bytes | memoryview]:
    """An image or a mask as PNG where that holds it."""
    if pixels.ndim == 3 and _png.fits(pixels.dtype, pixels.shape[-1]):
        return "png", _png.encode(pixels, facts)
    return "npy", npy(pixels)
