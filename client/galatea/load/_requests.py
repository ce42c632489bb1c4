"""What one request of a load is: as many images, or pictures to translate."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from galatea.card import ModelCard, Preparation
from galatea.client import Client
from galatea.errors import InvalidInput
from galatea.pictures import Picture

__all__ = ["Asking", "canvas", "synthetic"]

LARGEST_BATCH = 32  # of a request, where the caller does not say
CANVAS = 256  # pixels of a side of a picture, where the model takes any size
BATCHES = 4  # of synthetic pictures, which are used in turn


class Asking:
    """One request of a load, sent again and again with other seeds. Safe to share between threads.

    Args:
        client: to read the card with.
        name: the generator.
        batch: images of a request; None: what the server takes at once, at most 32.
        seed: of the first image.
        conditions: inputs of the generator, by name.
        pictures: what is translated, in turn; None: noise.

    Raises:
        InvalidInput: pictures for a generator that takes none, or none at all.
        GalateaError: the card cannot be read.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        batch: int | None,
        seed: int,
        conditions: Mapping[str, Any],
        pictures: Sequence[Picture] | None,
    ) -> None:
        served = client._session.served(name)
        self.card = served.card
        self.batch = min(served.batch(None), LARGEST_BATCH) if batch is None else batch
        served.batch(self.batch)  # refuses one that is none
        self._seed, self._conditions = seed, dict(conditions)
        self._turn = itertools.count()
        self._pictures = pictures
        if self.card.source_picture is None:
            if pictures is not None:
                raise InvalidInput(
                    f"{name} makes pictures from seeds and takes none", "leave the pictures out"
                )
        elif pictures is None:
            self._pictures = synthetic(self.card, BATCHES * self.batch, seed)
        elif not pictures:
            raise InvalidInput("there are no pictures to translate", "give at least one")

    def __call__(self, client: Client) -> None:
        """Sends the next request, and waits for its images.

        Raises:
            InvalidInput: the pictures are of several sizes once they are prepared.
            GalateaError: whatever the client raises.
        """
        first = next(self._turn) * self.batch
        seed = self._seed + first
        if self._pictures is None:
            answers = client.stream(
                self.card.name, self.batch, batch_size=self.batch, seed=seed, **self._conditions
            )
        else:
            there = len(self._pictures)
            chosen = [self._pictures[(first + i) % there] for i in range(self.batch)]
            answers = client.translate_stream(
                self.card.name, chosen, batch_size=self.batch, seed=seed, **self._conditions
            )
        if sum(1 for _ in answers) > 1:
            raise InvalidInput(
                f"pictures of several sizes are several requests to {self.card.name}",
                "give pictures of one size",
            )


def synthetic(card: ModelCard, n: int, seed: int) -> list[Picture]:
    """`n` pictures of noise, 8-bit levels, as large as the model takes them.

    Args:
        card: of an image-to-image model.
        seed: the same one gives the same pictures.
    """
    assert card.source_picture is not None
    height, width = canvas(card)
    shape = n, height, width, card.source_picture.shape[-1]
    levels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return [Picture(f"noise-{i:06d}", pixels) for i, pixels in enumerate(levels)]


def canvas(card: ModelCard) -> tuple[int, int]:
    """Height and width of pictures that an image-to-image model takes as they are."""
    rules, source = card.preparation or Preparation(), card.source_picture
    wanted = rules.size or (source.shape[:2] if source else (-1, -1))
    height, width = (side if side > 0 else CANVAS for side in wanted)
    return height - height % rules.multiple, width - width % rules.multiple
