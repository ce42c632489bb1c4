"""Measure the diffusion demo: does the mass have the label's shape and size?

Rules look at the mask, and a classifier that is trained on phantoms alone looks at the image. Both
are tried on held-out phantoms too. Samples are made as a server makes them: the same noise, sampler
and guidance. Prints the figures and, with ``-o``, saves a picture: above samples, below phantoms,
one row a label, each mask below its image.

    python judge_phantom_diffusion.py phantom_diffusion/phantom_diffusion.pt
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from galatea_exporter.layers.guided_diffusion import UNet, load_unet
from galatea_exporter.layers.guided_layout import GuidedOptions
from galatea_exporter.sampler.noise import noise_of
from galatea_exporter.sampler.samplers import Settings, start
from phantom_sizes import BOUNDARY, LABELS, NO_LABEL, SCHEDULE, SIZE, Pool

HELD_OUT, CLASSIFIER = 1, 2  # seeds of phantoms that the training did not see
SPICULES = 0.25  # share of a mask in thin parts, above which a mass is malignant
BATCH = 50


def judged(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Whether masses are malignant and whether they are large, by bool masks [N, 48, 48].

    Spicules are what a morphological opening with a 3 × 3 square removes of the mask.
    """
    whole = masks[:, None].float()
    core = -functional.max_pool2d(-whole, 3, 1, 1)
    core = functional.max_pool2d(core, 3, 1, 1)
    area = whole.mean((1, 2, 3))
    thin = 1 - core.mean((1, 2, 3)) / area.clamp(min=1 / SIZE**2)
    return thin > SPICULES, area > BOUNDARY


def train_classifier(steps: int = 600, batch: int = 64) -> nn.Sequential:
    """Image float32 [N, 1, 48, 48] in [-1, 1] → scores of the labels float32 [N, 4]."""
    torch.manual_seed(CLASSIFIER)
    random = torch.Generator().manual_seed(CLASSIFIER)
    pool = Pool(1000, CLASSIFIER)
    layers: list[nn.Module] = []
    for n, m in pairwise((1, 16, 32, 64, 64)):
        layers += [nn.Conv2d(n, m, 3, 2, 1), nn.BatchNorm2d(m), nn.ReLU()]
    classifier = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 9, len(LABELS)))
    optimiser = torch.optim.Adam(classifier.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        pixels, label = pool.batch(batch, random)
        loss = functional.cross_entropy(classifier(pixels[:, :1]), label)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # untyped in torch
        optimiser.step()
        schedule.step()
    return classifier.eval()


@torch.no_grad()
def agreement(pixels: Tensor, labels: Tensor, classifier: nn.Module) -> dict[str, float]:
    """Shares of samples float32 [N, 2, 48, 48] in [-1, 1] that agree with labels int64 [N]."""
    malignant, large = judged(pixels[:, 1] > 0)
    seen = classifier(pixels[:, :1]).argmax(1)
    right = {
        "shape of mask": malignant == labels // 2,
        "size of mask": large == labels % 2,
        "shape in image": seen // 2 == labels // 2,
        "size in image": seen % 2 == labels % 2,
    }
    return {name: round(share.float().mean().item(), 4) for name, share in right.items()}


@torch.no_grad()
def sampled(unet: UNet, labels: Tensor, seed: int, settings: Settings, guidance: float) -> Tensor:
    """Samples float32 [N, 2, 48, 48] in [-1, 1]; the one of index i has the seed ``seed + i``."""
    shape = (2, SIZE, SIZE)
    made: list[NDArray[np.float32]] = []
    for first in range(0, len(labels), BATCH):
        label = labels[first : first + BATCH]
        seeds = range(seed + first, seed + first + len(label))
        runs = [start(settings, SCHEDULE, shape, partial(noise_of, k, shape)) for k in seeds]
        both = torch.cat([label, torch.full_like(label, NO_LABEL)])
        while not runs[0].finished:
            rows = [run.row() for run in runs]
            x = torch.from_numpy(np.stack([x for x, _ in rows])).repeat(2, 1, 1, 1)
            t = torch.tensor([t for _, t in rows]).repeat(2)
            told, free = unet(x, t, both).chunk(2)
            for run, prediction in zip(runs, free + guidance * (told - free), strict=True):
                run.advance(prediction.numpy())
        made += [run.sample for run in runs]
    return torch.from_numpy(np.stack(made)).clamp(-1, 1)


def save_picture(parts: list[Tensor], path: Path) -> None:
    """Save images with masks below them, rows of float32 [N, 2, 48, 48] in [-1, 1]."""
    rows = torch.cat([part.permute(1, 2, 0, 3).flatten(2).flatten(0, 1) for part in parts])
    Image.fromarray(((rows + 1) * 127.5).byte().numpy()).save(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the phantom diffusion demo.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="picture (.png)")
    parser.add_argument("-n", type=int, default=100, help="samples of each label")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampler", default="dpmpp_2m")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    state = torch.load(options.checkpoint, weights_only=True)
    sizes = GuidedOptions(image_size=SIZE)
    unet = load_unet(state, sizes, options.checkpoint, "guided_diffusion")
    real = Pool(options.n, HELD_OUT)
    phantoms = real.pixels.float() / 127.5 - 1
    settings = Settings(options.steps, options.sampler)
    samples = sampled(unet, real.labels, options.seed, settings, options.guidance)
    classifier = train_classifier()
    for name, pixels in (("phantoms", phantoms), ("samples", samples)):
        print(f"{len(pixels)} {name}:", agreement(pixels, real.labels, classifier))
        areas = (pixels[:, 1] > 0).float().mean((1, 2)).reshape(len(LABELS), -1)
        for label, area in zip(LABELS, areas, strict=True):
            print(f"  {label}: mask {area.mean():.2%} of the picture, deviation {area.std():.2%}")
    if options.output:
        parts = [samples, phantoms]
        save_picture([p[real.labels == k][:16] for p in parts for k in range(4)], options.output)


if __name__ == "__main__":
    main()
