"""From the latents that a diffusion model samples to those that its autoencoder decodes."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class Rescaled(nn.Module):
    """A decoder that takes latents as the sampler leaves them: of about unit variance.

    Args:
        network: ``network(latent float32 [N, C, …])`` → float32, the picture or volume.
        scale: by which training multiplied the latents.
        shift: which it took off them before that.
    """

    def __init__(self, network: nn.Module, scale: float, shift: float = 0.0) -> None:
        super().__init__()
        self.network, self.scale, self.shift = network, scale, shift

    def forward(self, sample: Tensor) -> Tensor:
        return cast(Tensor, self.network(sample / self.scale + self.shift))
