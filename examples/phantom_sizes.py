"""Data of the diffusion demo: small phantoms with labels of shape and size, and their rules.

A mass is small when it covers less than 4.5 % of the picture, large when more than 6.5 %; phantoms
between the two are left out. What was measured on a mask decides at 5.5 %.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from galatea_exporter.scheduler_config import guided_schedule
from phantom import MALIGNANT, phantoms

LABELS = ("benign small", "benign large", "malignant small", "malignant large")
NO_LABEL = len(LABELS)
SIZE = 48
SCHEDULE = guided_schedule(1000, "cosine", predict_xstart=True)
SMALL, BOUNDARY, LARGE = 0.045, 0.055, 0.065  # of the picture's area

_DRAW = 8192  # phantoms at a time; part of what a seed means


class Pool:
    """Phantoms, equally many of each label, handed out in random order, flipped and turned.

    Args:
        n: number of phantoms of each label.
        seed: of the phantoms.

    Attributes:
        pixels: image and mask uint8 [4 n, 2, 48, 48].
        labels: int64 [4 n], indices of ``LABELS``.
    """

    def __init__(self, n: int, seed: int) -> None:
        chosen: list[list[NDArray[np.uint8]]] = [[] for _ in LABELS]
        draw = 0
        while min(map(len, chosen)) < n:
            images, masks, shapes = phantoms(_DRAW, 1000 * seed + draw, SIZE)
            pixels = np.stack([images, masks], axis=1)
            area = (masks > 127).mean((1, 2))
            labels = 2 * (shapes == MALIGNANT) + (area > BOUNDARY)
            for k in np.flatnonzero((area < SMALL) | (area > LARGE)):
                if len(chosen[labels[k]]) < n:
                    chosen[labels[k]].append(pixels[k])
            draw += 1
        self.pixels = torch.from_numpy(np.stack([p for one in chosen for p in one]))
        self.labels = torch.arange(len(LABELS)).repeat_interleave(n)

    def batch(self, n: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Image and mask float32 [n, 2, 48, 48] in [-1, 1], labels int64 [n]."""
        index = torch.randint(len(self.labels), (n,), generator=random)
        flips = torch.randint(2, (3, n), generator=random).bool()[:, :, None, None, None]
        x = self.pixels[index].float() / 127.5 - 1
        x = torch.where(flips[0], x.flip(2), x)
        x = torch.where(flips[1], x.flip(3), x)
        return torch.where(flips[2], x.transpose(2, 3), x), self.labels[index]
