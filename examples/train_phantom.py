"""Train the phantom demo: a class-conditional DCGAN of mammographic masses with their masks.

The output is a checkpoint in the container medigan models use, ``{"generator": state}``, with the
generator's weights only: the discriminator is left out so that the file stays below 4 MB. The
weights are exponential moving averages with BatchNorm statistics recalculated for them. Next to
it lie a sample grid (.png) and the state of the training (.resume), both renewed with every
snapshot; ``--resume`` continues from there.

    python train_phantom.py -o phantom/phantom_cdcgan.pt --minutes 40 --bfloat16

The generator first learns as the decoder of a variational autoencoder (Kingma and Welling 2013),
which places the masses and keeps the samples diverse. Then it competes with a discriminator:
relativistic pairing loss with gradient penalties on real and generated images (Huang et al. 2024,
arXiv:2501.05441), projection of the label (Miyato and Koyama 2018), minibatch standard deviation
(Karras et al. 2018), blurred images in the beginning (Karras et al. 2021). With ``--steps`` a run
is repeatable from its seed on one machine and thread count; with ``--minutes`` the schedules
follow the clock.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from galatea_exporter.families.dcgan_mammo import upstream_state
from phantom_networks import (
    NZ,
    SIZE,
    Critic,
    Discriminator,
    Pool,
    build_generator,
    recalculate_statistics,
    save_grid,
)

EMA_DECAY = 0.999
SNAPSHOT_SECONDS = 120
PENALTY_EVERY = 8  # steps


class Training:
    """Networks, optimisers and their updates; see the command line for the options."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        torch.manual_seed(options.seed)
        self.random = torch.Generator().manual_seed(options.seed)
        self.generator = build_generator()
        self.average = copy.deepcopy(self.generator).eval()
        self.discriminator = Discriminator(options.width)
        self.encoder = nn.Sequential(Critic(options.width), nn.Linear(16 * options.width, 2 * NZ))
        for network in (self.discriminator, self.encoder):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # lacks memory_format
        self.optimisers = [
            torch.optim.Adam(self.generator.parameters(), options.lr, (0.0, 0.99)),
            torch.optim.Adam(self.discriminator.parameters(), options.lr, (0.0, 0.99)),
            torch.optim.Adam(
                [*self.encoder.parameters(), *self.generator.parameters()], 1e-3, (0.9, 0.99)
            ),
        ]
        self.done, self.seconds = 0, 0.0

    def _scores(self, x: Tensor, label: Tensor, sharpness: float) -> Tensor:
        if sharpness < 1:
            coarse = functional.interpolate(
                functional.avg_pool2d(x, 4), x.shape[2:], mode="bilinear"
            )
            x = torch.lerp(coarse, x, sharpness)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bfloat16):
            score: Tensor = self.discriminator(x.to(memory_format=torch.channels_last), label)
        return score

    def _fakes(self, label: Tensor) -> Tensor:
        latent = torch.randn(len(label), NZ, generator=self.random)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bfloat16):
            image: Tensor = self.generator(latent, label[:, None])
        return image.float()

    def reconstruct(self, pool: Pool) -> tuple[float, float]:
        """Update encoder and generator as a variational autoencoder.

        Returns the mean square errors of image and mask.
        """
        real, label = pool.batch(self.options.batch, self.random)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bfloat16):
            code = self.encoder(real.to(memory_format=torch.channels_last))
            mean, spread = code.float().chunk(2, 1)
            noise = torch.randn(mean.shape, generator=self.random)
            fake = self.generator(mean + noise * (spread / 2).exp(), label[:, None]).float()
        error = (fake - real).square()
        divergence = (mean.square() + spread.exp() - spread - 1).sum(1).mean() / 2
        # Expected standard deviations of the residues: 0.2 in the image, 0.4 in the mask.
        fit = error[:, 0].sum((1, 2)).mean() / 0.08 + error[:, 1].sum((1, 2)).mean() / 0.32
        self._update(self.optimisers[2], (fit + 4 * divergence) / SIZE**2)
        self.average.load_state_dict(self.generator.state_dict())
        self.done += 1
        return error[:, 0].mean().item(), error[:, 1].mean().item()

    def compete(self, pool: Pool, progress: float) -> tuple[float, float]:
        """Update discriminator and generator against each other and return their losses.

        Progress in [0, 1] sets the learning rate (falls in the second half), the strength of the
        gradient penalty (falls in the first half) and the blur (gone after a tenth).
        """
        for optimiser in self.optimisers:
            optimiser.param_groups[0]["lr"] = self.options.lr * min(1.0, 2.02 - 2 * progress)
        self.optimisers[0].param_groups[0]["lr"] *= min(1.0, 40 * progress)
        gamma = self.options.gamma * 10 ** -min(1.0, 2 * progress)
        sharpness = min(1.0, 10 * progress)

        # Each generated image is paired with a phantom of the same label.
        real, label = pool.batch(self.options.batch, self.random)
        with torch.no_grad():
            fake = self._fakes(label)
        both, labels = torch.cat([real, fake]), label.repeat(2)
        self.discriminator.requires_grad_(True)
        penalise = self.done % PENALTY_EVERY == 0
        both.requires_grad_(penalise)
        real_score, fake_score = self._scores(both, labels, sharpness).chunk(2)
        loss = functional.softplus(fake_score - real_score).mean()
        d_loss = loss.item()
        if penalise:
            (slope,) = torch.autograd.grad(
                real_score.sum() + fake_score.sum(), both, create_graph=True
            )
            loss = loss + PENALTY_EVERY * gamma * slope.square().sum((1, 2, 3)).mean()
        self._update(self.optimisers[1], loss)

        self.discriminator.requires_grad_(False)
        score = self._scores(torch.cat([real, self._fakes(label)]), labels, sharpness)
        real_score, fake_score = score.chunk(2)
        g_loss = self._update(
            self.optimisers[0], functional.softplus(real_score - fake_score).mean()
        )
        with torch.no_grad():
            decay = min(EMA_DECAY, (1 + self.done) / (10 + self.done))
            for mean, now in zip(
                self.average.parameters(), self.generator.parameters(), strict=True
            ):
                mean.lerp_(now, 1 - decay)
        self.done += 1
        return d_loss, g_loss

    @staticmethod
    def _update(optimiser: torch.optim.Optimizer, loss: Tensor) -> float:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # untyped in torch
        optimiser.step()
        return loss.item()

    def snapshot(self, output: Path) -> None:
        """Write checkpoint, sample grid and the state of the training."""
        recalculate_statistics(self.average, self.options.seed)
        torch.save({"generator": upstream_state(self.average)}, output)
        save_grid(self.average, output.with_suffix(".png"), self.options.seed)
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state["progress"] = {"done": self.done, "seconds": self.seconds}
        state["random"] = {"state": self.random.get_state()}
        torch.save(state, output.with_suffix(".resume"))

    def resume(self, path: Path) -> None:
        """Load what ``snapshot`` wrote."""
        state = torch.load(path, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.done, self.seconds = state["progress"]["done"], state["progress"]["seconds"]
        self.random.set_state(state["random"]["state"])

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "generator": self.generator,
            "average": self.average,
            "discriminator": self.discriminator,
            "encoder": self.encoder,
            "generator_optimiser": self.optimisers[0],
            "discriminator_optimiser": self.optimisers[1],
            "encoder_optimiser": self.optimisers[2],
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the phantom demo generator.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="checkpoint (.pt)")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="length of the training, resumed parts too")
    length.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="continue from the last snapshot")
    parser.add_argument("--pool", type=int, default=20_000, help="phantoms; 32 kB of memory each")
    parser.add_argument("--batch", type=int, default=32, help="a multiple of 8")
    parser.add_argument("--width", type=int, default=16, help="of the discriminator")
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--gamma", type=float, default=20.0, help="gradient penalty at the start")
    parser.add_argument("--warm-up", type=float, default=0.13, help="share of the training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bfloat16", action="store_true", help="faster if the CPU supports it")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    training = Training(options)
    if options.resume:
        training.resume(options.output.with_suffix(".resume"))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    pool = Pool(options.pool, options.seed)
    origin = time.monotonic() - training.seconds
    last = training.seconds
    losses: list[tuple[float, float]] = []
    names = ("errors of image and mask", "losses of discriminator and generator")
    while True:
        if options.steps:
            progress = training.done / options.steps
        else:
            progress = training.seconds / (60 * options.minutes)
        if progress >= 1:
            break
        if progress < options.warm_up:
            losses.append(training.reconstruct(pool))
        else:
            adversarial = (progress - options.warm_up) / (1 - options.warm_up)
            losses.append(training.compete(pool, adversarial))
        training.seconds = time.monotonic() - origin
        if training.done % 100 == 0:
            first, second = np.mean(losses, axis=0)
            losses.clear()
            print(
                f"step {training.done} {training.seconds / 60:.1f} min  "
                f"{names[progress >= options.warm_up]} {first:.4f} {second:.4f}",
                flush=True,
            )
        if training.seconds - last > SNAPSHOT_SECONDS:
            training.snapshot(options.output)
            last = training.seconds
    training.snapshot(options.output)


if __name__ == "__main__":
    main()
