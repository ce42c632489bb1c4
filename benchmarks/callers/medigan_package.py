"""A model package for medigan, which becomes the ``__init__.py`` of its folder: a DCGAN.

Written anew from the description of such a package (``generate`` with these four arguments, PNG
files by number) and of the network. It does what medigan's template does, at each call: builds the
network with random weights, reads the checkpoint, runs it with gradients recorded, and writes the
images with OpenCV.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2  # type: ignore[import-not-found]  # only in medigan's environment
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

NZ, NGF = 100, 64  # length of the latent, channels of the last hidden stage


class Generator(nn.Module):
    """float32 [N, 100, 1, 1] → float32 [N, 1, 128, 128] in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        widths = [NZ, NGF * 16, NGF * 8, NGF * 4, NGF * 2, NGF]
        layers: list[nn.Module] = []
        for k in range(5):
            stride, padding = (2, 1) if k else (1, 0)
            layers += [
                nn.ConvTranspose2d(widths[k], widths[k + 1], 4, stride, padding, bias=False),
                nn.BatchNorm2d(widths[k + 1]),
                nn.ReLU(inplace=True),
            ]
        self.first_layers = nn.Sequential(*layers[:6])  # checkpoints name these twice
        self.main = nn.Sequential(
            *layers, nn.ConvTranspose2d(NGF, 1, 4, 2, 1, bias=False), nn.Tanh()
        )

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.main(latent)
        return image


def generate(
    model_file: str, num_samples: int, output_path: str, save_images: bool
) -> list[NDArray[np.uint8]] | None:
    """Makes images: as ``<output_path>/<i>.png``, or returned as uint8 [128, 128, 1] each."""
    network = Generator()
    checkpoint: Any = torch.load(model_file, map_location="cpu")
    network.load_state_dict(checkpoint["generator"])
    network.eval()
    floats = network(torch.randn(num_samples, NZ, 1, 1)).detach().numpy()
    images = [_levels(image) for image in floats]
    if not save_images:
        return images
    folder = Path(output_path)
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i}.png"), image)
    return None


def _levels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 [1, H, W] in [-1, 1] → uint8 [H, W, 1]."""
    return ((image.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)
