"""WebDataset: tar archives that a training job reads as streams.

Files of a sample are neighbours of one key, as https://github.com/webdataset/webdataset wants them.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

from galatea import _png
from galatea.datasets.formats._format import File, Format, Shard
from galatea.datasets.formats._numpy import npy


class WebDataset(Format):
    """``SHARD.tar`` of ``KEY.png``, ``KEY.mask.png``, ``KEY.cls`` and ``KEY.json``.

    Images that PNG cannot hold are ``KEY.npy`` [H, W, C].
    """

    name = "webdataset"
    title = "WebDataset tar archives"
    packages = ("Pillow", "numpy")

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
    image = samples.images[i]
    if _png.fits(image.dtype, image.shape[-1]):
        yield "png", _png.encode(image, facts)
    else:
        yield "npy", npy(image)
    if samples.masks is not None:
        yield "mask.png", _png.encode(samples.masks[i], facts)
    if samples.labels is not None:
        yield "cls", str(int(samples.labels[i])).encode()
    yield "json", shard.sidecar(i)
