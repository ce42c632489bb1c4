"""Noise v1 as a graph: the stage that turns a seed into a latent, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from galatea_exporter.sampler.noise import PARITY, ROTATIONS, ROUNDS, quantiles
from galatea_exporter.stages import Stage, TensorSpec

WORD = 0xFFFFFFFF
SEED = TensorSpec("seed", "int64", (1,), (0, 2**31))


class Noise(nn.Module):
    """seed int64 [N, 1] → latent float32 [N, size].

    The words are held in int64 and masked to 32 bits, since ONNX has no unsigned addition
    everywhere. Bits as in :mod:`galatea_exporter.sampler.noise`.

    Args:
        size: values of stream `stream`, the first output.
        further: values of stream `stream` + 1, a second output float32 [N, further] for the noise
            that a network takes beside its latent; 0 for none.
    """

    table: Tensor

    def __init__(self, size: int, stream: int = 0, further: int = 0) -> None:
        super().__init__()
        self.sizes = {stream: size, **({stream + 1: further} if further else {})}
        self.register_buffer("table", torch.from_numpy(quantiles().copy()))

    def forward(self, seed: Tensor) -> Tensor | tuple[Tensor, ...]:
        made = tuple(self._normal(seed, stream, size) for stream, size in self.sizes.items())
        return made if len(made) > 1 else made[0]

    def _normal(self, seed: Tensor, stream: int, size: int) -> Tensor:
        index = torch.arange((size + 1) // 2)[None, :]
        key0, key1 = seed & WORD, (seed >> 32) & WORD
        keys = (key0, key1, key0 ^ key1 ^ PARITY)
        x0 = (index + keys[0]) & WORD
        x1 = (index * 0 + stream + keys[1]) & WORD
        for block in range(ROUNDS // 4):
            for rotation in ROTATIONS[block % 2]:
                x0 = (x0 + x1) & WORD
                turned = x1 * 2**rotation
                x1 = ((turned & WORD) | (turned >> 32)) ^ x0
            x0 = (x0 + keys[(block + 1) % 3]) & WORD
            x1 = (x1 + keys[(block + 2) % 3] + (block + 1)) & WORD
        words = torch.stack([x0, x1], dim=-1).flatten(1)[:, :size]
        cell = (words >> 15) & 0xFFFF
        fraction = (words & 0x7FFF).float() * 2**-15 + 2**-16
        low, high = self.table[cell], self.table[cell + 1]
        magnitude = low + fraction * (high - low)
        return torch.where((words >> 31) == 1, -magnitude, magnitude)


def noise_stage(latent: int, noise: int = 0) -> Stage:
    """seed → ``latent`` [latent] and, where `noise` is not 0, ``noise`` [noise]."""
    outputs = [TensorSpec("latent", "float32", (latent,))]
    if noise:
        outputs.append(TensorSpec("noise", "float32", (noise,)))
    return Stage("noise", Noise(latent, further=noise), (SEED,), tuple(outputs), accelerated=False)
