"""What a format is: how some samples become the files of a shard."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from galatea.card import ModelCard
from galatea.errors import InvalidInput
from galatea.samples import Samples

__all__ = ["File", "Format", "Shard"]

DTYPES = {"UINT8": np.uint8, "UINT16": np.uint16, "FP32": np.float32}  # of a card's outputs


@dataclass(frozen=True)
class File:
    """One file of a data set, ready to be written.

    Attributes:
        path: below the data set's folder, its parts joined by ``/``.
        content: the whole file.
    """

    path: str
    content: bytes | bytearray | memoryview


@dataclass(frozen=True)
class Shard:
    """Consecutive samples of a data set, all in memory, and what they are called.

    Attributes:
        index: of the shard, from 0.
        start: index of its first sample in the data set.
        samples: made from seeds; translations have no place in a data set.
        dataset: short name of the job, a hex digest; identifiers are derived from it.
    """

    index: int
    start: int
    samples: Samples
    dataset: str

    def __len__(self) -> int:
        return len(self.samples)

    def key(self, i: int) -> str:
        """What sample `i` of the shard is called, the same in every format."""
        return f"{self.start + i:09d}"

    def stem(self) -> str:
        """What the shard is called."""
        return f"{self.index:06d}"

    def facts(self, i: int) -> dict[str, int | float | str]:
        """What tells sample `i` from the others: key, seed, conditions, and the class by name."""
        samples = self.samples
        facts: dict[str, int | float | str] = {"key": self.key(i), "seed": int(samples.seeds[i])}
        facts |= {name: values.item(i) for name, values in samples.conditions.items()}
        label = samples.label_name(i)
        return facts if label is None else {**facts, "label_name": label}

    def provenance(self) -> dict[str, str]:
        """Where all samples of the shard come from: what :meth:`facts` does not tell."""
        own = {f"galatea:{name}" for name in self.facts(0)}
        return {name: fact for name, fact in self.samples.provenance(0).items() if name not in own}

    def sidecar(self, i: int) -> bytes:
        """JSON of sample `i`: its :meth:`facts`, and its whole provenance."""
        told = {**self.facts(i), "provenance": self.samples.provenance(i)}
        return (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()


class Format(ABC):
    """How a shard is written: equal shards give equal bytes, in any process and at any time.

    Attributes:
        name: what users call it.
        title: what it is, in a line.
        extra: of galatea, that brings what it needs; "" in the base install.
        module: that must be there to write it; "" in the base install.
        packages: distributions whose versions decide the bytes.
        volumes: whether it keeps volumes too.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    extra: ClassVar[str] = ""
    module: ClassVar[str] = ""
    packages: ClassVar[tuple[str, ...]]
    volumes: ClassVar[bool] = False

    @abstractmethod
    def files(self, shard: Shard) -> Iterator[File]:
        """The files of a shard, in the order to write them."""

    def holds(self, dtype: DTypeLike, channels: int) -> bool:
        """Whether images of this type and number of channels are kept to the pixel."""
        return True

    def check(self, card: ModelCard) -> None:
        """Makes sure that the images of a model can be kept to the pixel.

        Raises:
            InvalidInput: they cannot.
        """
        image = card.image
        if len(image.shape) == 4 and not self.volumes:
            raise InvalidInput(
                f"{card.name} makes volumes, which {self.name} cannot hold",
                "choose nifti, or npz or webdataset, which hold them as arrays",
            )
        if not self.holds(DTYPES[image.dtype], image.shape[-1]):
            raise InvalidInput(
                f"{card.name} makes {image.dtype} with {image.shape[-1]} channels "
                f"({', '.join(image.channels)}), which {self.name} cannot hold",
                "choose npz, which holds every kind of image",
            )
