"""Train the diffusion demo: phantom masses with masks, benign or malignant, small or large.

The network is the UNet of openai/guided-diffusion with image and mask as its two channels; it
predicts the clean sample ("predict_xstart") on the cosine schedule with 1,000 timesteps: a short
training gets the brightness of the whole right that way, where a small error in predicted noise is
multiplied. A share of the labels is replaced by a fifth class, "no label", for classifier-free
guidance (Ho and Salimans 2022, arXiv:2207.12598). The output is a bare state dict of exponential
moving averages, as guided-diffusion's ``ema_*.pt`` are, renewed while the training runs.

    python train_phantom_diffusion.py -o phantom_diffusion/phantom_diffusion.pt

A run is repeatable from its seed on one machine and thread count.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from galatea_exporter.layers.guided_diffusion import Attention, Residual, UNet
from galatea_exporter.layers.guided_layout import GuidedOptions, Layout, Level
from phantom_sizes import LABELS, NO_LABEL, SCHEDULE, SIZE, Pool

EMA_DECAY = 0.998
SNAPSHOT_EVERY = 250  # steps
WARM_UP = 200  # steps


def build_unet() -> UNet:
    """The demo's network, with upstream's zeros where branches end."""
    levels = (Level(32, False), Level(32, False), Level(64, True), Level(64, True))
    layout = Layout(2, 2, 32, levels, blocks=1, classes=len(LABELS) + 1, resampling="pool")
    unet = UNet(layout, GuidedOptions(image_size=SIZE))
    ends: list[nn.Module] = [unet.out[-1]]
    for module in unet.modules():
        if isinstance(module, Residual):
            ends.append(module.out_layers[-1])
        elif isinstance(module, Attention):
            ends.append(module.proj_out)
    for end in ends:
        for parameter in end.parameters():
            nn.init.zeros_(parameter)
    return unet


class Training:
    """Network, its average and their updates; see the command line for the options."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        torch.manual_seed(options.seed)
        self.random = torch.Generator().manual_seed(options.seed)
        self.unet = build_unet()
        self.average = copy.deepcopy(self.unet).eval()
        self.optimiser = torch.optim.Adam(self.unet.parameters(), options.lr, (0.9, 0.99))
        shares = torch.from_numpy(SCHEDULE.alpha_bars.copy()).float()
        self.signal, self.noise = shares.sqrt(), (1 - shares).sqrt()
        self.weight = (shares / (1 - shares)).clamp(1, 5)
        self.done = 0

    def step(self, clean: Tensor, label: Tensor) -> float:
        """One update from images float32 [N, 2, H, W] and labels int64 [N]; returns the loss."""
        n = len(label)
        dropped = torch.rand(n, generator=self.random) < self.options.unlabelled
        label = label.masked_fill(dropped, NO_LABEL)
        # Stratified: each batch has timesteps from the whole schedule.
        place = (torch.arange(n) + torch.rand(n, generator=self.random)) / n
        t = (place * len(self.signal)).long()
        noise = torch.randn(clean.shape, generator=self.random)
        tables = (self.signal, self.noise, self.weight)
        signal, share, weight = (table[t][:, None, None, None] for table in tables)
        made = self.unet(signal * clean + share * noise, t, label)
        loss: Tensor = (weight * (made - clean).square()).mean()

        warm = min(1.0, (self.done + 1) / WARM_UP)
        rest = 1 - self.done / self.options.steps
        self.optimiser.param_groups[0]["lr"] = self.options.lr * warm * min(1.0, 2 * rest)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # untyped in torch
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimiser.step()
        decay = min(EMA_DECAY, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.unet.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        self.done += 1
        return loss.item()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the phantom diffusion demo.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="checkpoint (.pt)")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", type=int, default=2000, help="phantoms of each label")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--unlabelled", type=float, default=0.1, help="share without its label")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    pool = Pool(options.pool, options.seed)
    print(f"{len(pool.labels)} phantoms, {time.monotonic() - start:.0f} s", flush=True)
    training = Training(options)
    total = 0.0
    while training.done < options.steps:
        total += training.step(*pool.batch(options.batch, training.random))
        if training.done % 100 == 0:
            minutes = (time.monotonic() - start) / 60
            print(f"step {training.done} {minutes:.1f} min  loss {total / 100:.4f}", flush=True)
            total = 0.0
        if training.done % SNAPSHOT_EVERY == 0 or training.done == options.steps:
            torch.save(training.average.state_dict(), options.output)


if __name__ == "__main__":
    main()
