"""From a network's floats to the image and the mask that are served, inside the graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from galatea.card import Output, ValueRange
from galatea_exporter.stages import Axis, TensorSpec

# Added before a truncation: a tanh that ends at 1 in PyTorch and at 0.9999999 in another runtime
# must not make white 255 here and 254 there.
MARGIN = 2.0**-12


@dataclass(frozen=True)
class Pixels:
    """How the channels that a network makes become what is served.

    Attributes:
        value_range: floats → uint8, or → [0, 1] where the image is float32.
        levels: uint8 levels; otherwise float32 intensities, low → 0 and high → 1, not clamped.
        mask_channel: the channel that is a segmentation mask; it leaves the image.
        mask_threshold: in units of the network's output; above it the mask is 255, else 0.
    """

    value_range: ValueRange
    levels: bool = True
    mask_channel: int | None = None
    mask_threshold: float = 0.0

    def outputs(
        self,
        channels: tuple[str, ...],
        size: tuple[int | Axis, ...],
        spacing: tuple[float, ...] = (),
    ) -> tuple[tuple[Output, ...], tuple[TensorSpec, ...]]:
        """What the card and the graph say of the outputs.

        Args:
            channels: what each channel of the network means.
            size: height and width, or the three sizes of a volume.
            spacing: of a volume, the size of a voxel in mm along each axis.
        """
        image = [c for c in range(len(channels)) if c != self.mask_channel]
        meaning = tuple(channels[c] for c in image)
        specs = [
            TensorSpec("image", "uint8" if self.levels else "float32", (*size, len(image))),
        ]
        dims = specs[0].dims
        outputs = [Output("image", "UINT8" if self.levels else "FP32", dims, meaning, spacing)]
        if self.mask_channel is not None:
            specs.append(TensorSpec("mask", "uint8", (*size, 1)))
            name = (channels[self.mask_channel],)
            outputs.append(Output("mask", "UINT8", (*dims[:-1], 1), name, spacing))
        return tuple(outputs), tuple(specs)


class Picture(nn.Module):
    """A network followed by the conversion of its floats to image and mask.

    ``network(*inputs)`` returns float32 [N, C, H, W], or a tuple of that and further probes.
    Returns image [N, H, W, C], mask uint8 [N, H, W, 1] where there is one, the network's own
    floats, and its further probes. Volumes have three sizes in the place of H and W.
    """

    def __init__(self, network: nn.Module, channels: int, pixels: Pixels) -> None:
        super().__init__()
        self.network, self.pixels = network, pixels
        mask = pixels.mask_channel
        ends = [(0, channels)] if mask is None else [(0, mask), (mask + 1, channels)]
        self.image_channels = [slice(*end) for end in ends if end[0] < end[1]]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        result = self.network(*inputs)
        floats, *further = result if isinstance(result, tuple) else (result,)
        convert = to_uint8 if self.pixels.levels else to_intensities
        parts = [floats[:, channels] for channels in self.image_channels]
        image = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        made = [convert(image, self.pixels.value_range)]
        if (mask := self.pixels.mask_channel) is not None:
            inside = floats[:, mask].unsqueeze(-1) > self.pixels.mask_threshold
            made.append((inside.float() * 255).to(torch.uint8))
        return *made, floats, *further


class Source(nn.Module):
    """Scales the picture of a request to the network's range and hands it on, channels first.

    A source is uint8 [N, H, W, C] with levels 0 … 255, or float32 [N, H, W, C] from 0 to 1; `low`
    and `high` are what the network takes for the two ends.
    """

    def __init__(self, network: nn.Module, low: float, high: float, *, levels: bool) -> None:
        super().__init__()
        self.network = network
        self.low, self.scale = low, (high - low) / (255 if levels else 1)

    def forward(self, source: Tensor, *conditions: Tensor) -> Tensor | tuple[Tensor, ...]:
        floats = source.float().permute(0, 3, 1, 2) * self.scale + self.low
        made: Tensor | tuple[Tensor, ...] = self.network(floats, *conditions)
        return made


def to_uint8(floats: Tensor, rule: ValueRange) -> Tensor:
    """float32 [N, C, …] → uint8 [N, …, C] by the card's rule, channels last."""
    scale = 255 / (rule.high - rule.low)
    truncates = rule.rounding == "truncate"
    levels = floats * scale + ((MARGIN if truncates else 0) - rule.low * scale)
    levels = levels if truncates else levels.round()
    # TensorRT takes uint8 for a graph's inputs and outputs alone, so the cast is the last step.
    return levels.clamp(0, 255).movedim(1, -1).to(torch.uint8)


def to_intensities(floats: Tensor, rule: ValueRange) -> Tensor:
    """float32 [N, C, …] → float32 [N, …, C]: low → 0, high → 1, not clamped."""
    scale = 1 / (rule.high - rule.low)
    return (floats * scale - rule.low * scale).movedim(1, -1)
