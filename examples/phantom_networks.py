"""Networks and data of the phantom demo's training; the command is ``train_phantom.py``."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from galatea_exporter.families.dcgan_mammo import Generator, categorical_embedding
from phantom import phantoms

NZ, NGF, SIZE, CLASSES = 32, 16, 128, 2


def build_generator() -> Generator:
    """Latent float32 [N, 32], label int64 [N, 1] → image and mask float32 [N, 2, 128, 128]."""
    embedding = categorical_embedding(CLASSES, 50, NZ, 0.1)
    generator = Generator(NZ, NGF, 2, SIZE, embedding=embedding)
    for layer in generator.main:
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0, 0.02)
    return generator


class Critic(nn.Module):
    """Image and mask float32 [N, 2, 128, 128] → features float32 [N, 16 width].

    Args:
        width: channels of the first stage.
        group: images that share one minibatch standard deviation; N must be a multiple.
    """

    def __init__(self, width: int, group: int = 8) -> None:
        super().__init__()
        self.group = group
        widths = [2, *(width * 2**k for k in range(5))]
        self.stages = nn.ModuleList(nn.Conv2d(n, m, 4, 2, 1) for n, m in pairwise(widths))
        self.last = nn.Conv2d(widths[-1] + 1, widths[-1], 4)
        for conv in (*self.stages, self.last):
            nn.init.kaiming_normal_(conv.weight, 0.2)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = functional.leaky_relu(stage(x), 0.2)
        groups = x.float().reshape(-1, self.group, *x.shape[1:])
        spread = (groups.var(1, correction=0) + 1e-6).sqrt().mean((1, 2, 3))
        spread = spread.repeat_interleave(self.group)[:, None, None, None]
        x = torch.cat([x, spread.expand(-1, 1, *x.shape[2:]).to(x.dtype)], dim=1)
        features: Tensor = functional.leaky_relu(self.last(x), 0.2)
        return features.flatten(1).float()


class Discriminator(nn.Module):
    """Image and mask float32 [N, 2, 128, 128], label int64 [N] → score float32 [N]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.critic = Critic(width)
        self.score = nn.Linear(16 * width, 1)
        self.classes = nn.Embedding(CLASSES, 16 * width)
        nn.init.normal_(self.score.weight, 0, (16 * width) ** -0.5)
        nn.init.normal_(self.classes.weight, 0, (16 * width) ** -0.5)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        features = self.critic(x)
        score: Tensor = self.score(features).float()[:, 0] + (features * self.classes(label)).sum(1)
        return score


class Pool:
    """Phantoms computed once and handed out in random order, flipped and turned at random.

    Args:
        n: number of phantoms.
        seed: of the phantoms.
    """

    def __init__(self, n: int, seed: int) -> None:
        images, masks, labels = phantoms(n, seed, SIZE)
        self.pixels = torch.from_numpy(np.stack([images, masks], axis=1))
        self.labels = torch.from_numpy(labels)
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.blur = torch.outer(line, line)[None, None]

    def batch(self, n: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Image and mask float32 [n, 2, 128, 128] in [-1, 1], labels int64 [n].

        Masks are blurred by a pixel: a generator cannot make perfect steps, and the
        discriminator should look at shapes instead.
        """
        index = torch.randint(len(self.labels), (n,), generator=random)
        flips = torch.randint(2, (3, n), generator=random).bool()[:, :, None, None, None]
        x = self.pixels[index].float() / 127.5 - 1
        x = torch.where(flips[0], x.flip(2), x)
        x = torch.where(flips[1], x.flip(3), x)
        x = torch.where(flips[2], x.transpose(2, 3), x)
        x[:, 1:] = functional.conv2d(functional.pad(x[:, 1:], (1, 1, 1, 1), value=-1), self.blur)
        return x, self.labels[index]


@torch.no_grad()
def recalculate_statistics(generator: Generator, seed: int, batches: int = 150) -> None:
    """Replace the BatchNorm statistics by means over batches of 64 random latents."""
    random = torch.Generator().manual_seed(seed)
    norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    generator.train()
    for _ in range(batches):
        generator(torch.randn(64, NZ, generator=random), torch.arange(64)[:, None] % CLASSES)
    generator.eval()


@torch.no_grad()
def save_grid(generator: Generator, path: Path, seed: int) -> None:
    """Save 32 samples, each with its mask at its right; labels 0 above, 1 below."""
    latent = torch.randn(32, NZ, generator=torch.Generator().manual_seed(seed))
    pixels = ((generator(latent, torch.arange(32)[:, None] // 16) + 1) * 127.5).byte().numpy()
    rows = pixels.reshape(8, 4, 2, SIZE, SIZE).transpose(0, 3, 1, 2, 4)
    Image.fromarray(rows.reshape(8 * SIZE, 8 * SIZE)).save(path)
