"""Segmentation by networks of MONAI, with as many steps of the optimiser in every training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from galatea.errors import InvalidInput
from galatea.evaluation._frechet import Floats
from galatea.evaluation.utility._scores import dice
from galatea.evaluation.utility._split import Indices, Training
from galatea.evaluation.utility._stacks import Stack
from galatea.extras import needs_extra

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["NETWORKS", "MonaiSegmentation"]


@dataclass(frozen=True)
class Kind:
    """What a network needs.

    Attributes:
        multiple: of which the sides of images must be, twice it at least.
        rate: of AdamW, at first; it falls to 0 along half a cosine.
    """

    multiple: int
    rate: float


NETWORKS = {"unet": Kind(8, 5e-3), "swin": Kind(32, 1e-3)}


class MonaiSegmentation:
    """A U-Net, or a Swin UNETR, for what is inside a mask and what is not.

    Args:
        real, synthetic: of one size and number of channels.
        test: indices of the real images to test with.
        network: "unet" (0.2 million weights) or "swin" (1.6 million).
        steps: of the optimiser in each training.
        batch_size: images a step, drawn with replacement from all that the training has.

    Raises:
        InvalidInput: no such network, or the images are of a size that it cannot take.
    """

    def __init__(
        self,
        real: Stack,
        synthetic: Stack,
        *,
        test: Indices,
        network: str = "unet",
        steps: int = 300,
        batch_size: int = 8,
    ) -> None:
        if network not in NETWORKS:
            raise InvalidInput(f"no network {network!r}", f"choose one of: {', '.join(NETWORKS)}")
        multiple = NETWORKS[network].multiple
        height, width, _ = real.images.shape[1:]
        if height % multiple or width % multiple or min(height, width) < 2 * multiple:
            raise InvalidInput(
                f"{network} cannot take images of {height} × {width}",
                f"give --size, a multiple of {multiple} from {2 * multiple} on",
            )
        self._real, self._synthetic, self._test = real, synthetic, test
        self._network, self._steps, self._batch_size = network, steps, batch_size

    def facts(self) -> dict[str, Any]:
        """What it is, as plain JSON types."""
        with needs_extra("utility"):
            import monai
            import torch
        return {
            "learner": self._network,
            "monai": str(monai.__version__),
            "torch": str(torch.__version__),
            "loss": "Dice + cross entropy",
            "optimiser": f"AdamW, {NETWORKS[self._network].rate:g}, half a cosine",
            "steps": self._steps,
            "batch_size": self._batch_size,
            "size": list(self._real.images.shape[1:3]),
        }

    def __call__(self, training: Training) -> Floats:
        """The Dice coefficient of each tested image, [n].

        Raises:
            MachineError: the extra is missing.
        """
        images, masks = self._real.images[training.real], self._real.masks[training.real]
        if training.synthetic:
            images = np.concatenate([images, self._synthetic.images])
            masks = np.concatenate([masks, self._synthetic.masks])
        found = self._train_and_apply(images, masks, training.seed)
        return dice(found, self._real.masks[self._test])

    def _train_and_apply(
        self, images: NDArray[np.uint8], masks: NDArray[np.bool_], seed: int
    ) -> NDArray[np.bool_]:
        with needs_extra("utility"):
            import torch
            from monai.losses import DiceCELoss
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        random = np.random.default_rng(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = _network(self._network, images.shape[-1]).to(device)
        loss = DiceCELoss(sigmoid=True)
        rate = NETWORKS[self._network].rate
        optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self._steps)
        network.train()
        for _ in range(self._steps):
            chosen = random.integers(len(images), size=self._batch_size)
            truth = torch.from_numpy(masks[chosen, None].astype(np.float32)).to(device)
            optimiser.zero_grad()
            loss(network(_tensor(images[chosen], device)), truth).backward()
            optimiser.step()
            schedule.step()
        network.eval()
        with torch.inference_mode():
            parts = [
                (network(_tensor(part, device))[:, 0] > 0).cpu().numpy()
                for part in self._batches(self._real.images[self._test])
            ]
        found: NDArray[np.bool_] = np.concatenate(parts)
        return found

    def _batches(self, images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        return [
            images[start : start + self._batch_size]
            for start in range(0, len(images), self._batch_size)
        ]


def _network(name: str, channels: int) -> torch.nn.Module:
    from monai.networks import nets

    network: torch.nn.Module
    if name == "swin":
        network = nets.SwinUNETR(
            in_channels=channels, out_channels=1, feature_size=12, spatial_dims=2
        )
    else:
        network = nets.UNet(
            spatial_dims=2, in_channels=channels, out_channels=1,
            channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=1,
        )  # fmt: skip
    return network


def _tensor(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 [n, H, W, C] as float32 [n, C, H, W], each image with mean 0 and deviation 1."""
    import torch

    pixels = images.transpose(0, 3, 1, 2).astype(np.float32)
    mean = pixels.mean((1, 2, 3), keepdims=True)
    spread = pixels.std((1, 2, 3), keepdims=True)
    return torch.from_numpy((pixels - mean) / np.maximum(spread, 1)).to(device)
