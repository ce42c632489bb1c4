"""Fresh images for training, as NumPy batches: for Keras, JAX and everything that iterates.

:mod:`galatea.torch` has the same for PyTorch's ``DataLoader``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from galatea._requests import whole
from galatea.client import DEFAULT_URL, Client
from galatea.errors import InvalidInput
from galatea.samples import Samples

__all__ = ["Batch", "Synthesis"]

Batch = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Synthesis:
    """Images that a training makes as it goes: new ones in each epoch, the same in each run.

    Epoch e has the images with the indices e·n … (e + 1)·n − 1 of one endless stream.

    Attributes:
        name: the model.
        n: images an epoch, of all shards together; None: one endless epoch.
        batch_size: images a batch.
        seed: of the first image of epoch 0.
        labels: see :meth:`galatea.Client.sample`.
        conditions: other inputs of the model, one value for all.
        url: of the server, or of several.
        options: of :class:`galatea.Client`.
    """

    name: str
    n: int | None = None
    batch_size: int = 32
    seed: int = 0
    labels: Any = None
    conditions: Mapping[str, Any] = field(default_factory=dict)
    url: str | Sequence[str] = DEFAULT_URL
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n is not None:
            whole(self.n)
        whole(self.batch_size, "batch_size")

    def batches(self, epoch: int = 0, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """The batches of an epoch, from a connection of their own.

        Args:
            epoch: from 0.
            shard: (k, N) gives batches k, k + N … to the k-th of N workers.

        Yields:
            ``image`` [n, H, W, C], ``seed`` int64 [n] and, where there are, ``mask`` uint8
            [n, H, W, 1], ``label`` int64 [n] and other conditions [n]; dtypes are the card's.

        Raises:
            GalateaError: see :meth:`galatea.Client.stream`.
        """
        if epoch and self.n is None:
            raise InvalidInput(f"there is no epoch {epoch} of endless images", "give n")
        with Client(self.url, **self.options) as client:
            for samples in client.stream(
                self.name, self.n, batch_size=self.batch_size, seed=self.seed, labels=self.labels,
                start=epoch * (self.n or 0), shard=shard, **self.conditions,
            ):  # fmt: skip
                yield as_batch(samples)

    def __iter__(self) -> Iterator[Batch]:
        """All epochs, one after the other."""
        epoch = 0
        while True:
            yield from self.batches(epoch)
            epoch += 1


def as_batch(samples: Samples) -> Batch:
    """Arrays by name, the image first."""
    batch: Batch = {"image": samples.images}
    if samples.masks is not None:
        batch["mask"] = samples.masks
    return {**batch, "seed": samples.seeds, **samples.conditions}
