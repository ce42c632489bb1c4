"""Stages: the parts of a generator that become one ONNX model each.

A generator is a chain of stages. The one that starts from a seed has two:
``noise`` (seed → latent, tiny, on the CPU) and ``synthesis`` (latent and conditions → image).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from galatea.card import Input, Output, Task, ValueRange
from galatea_exporter.noise import PARITY, ROTATIONS, ROUNDS, quantiles

WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a stage; `shape` leaves out the batch."""

    name: str
    dtype: Literal["int64", "float32", "uint8"]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """One ONNX model.

    ``module(*inputs)`` returns the outputs followed by the probes: float tensors before the
    conversion to uint8, compared for parity and cut from the released graph.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    probes: tuple[TensorSpec, ...] = ()
    accelerated: bool = True


@dataclass(frozen=True)
class StagedGenerator:
    """A loaded generator, ready for export.

    Attributes:
        stages: in the order of the data.
        task, inputs, outputs, value_range: what the card will say.
        ignored: tensors of the checkpoint that inference does not use, with the reason.
        tolerance: allowed max abs difference between PyTorch and ONNX Runtime in the float probes.
        tolerance_reason: why it is more than 1e-4, where it is.
    """

    stages: tuple[Stage, ...]
    task: Task
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    value_range: ValueRange
    ignored: tuple[str, ...] = ()
    tolerance: float = 1e-4
    tolerance_reason: str = ""


@dataclass(frozen=True)
class Pixels:
    """How the channels that a network makes become what is served.

    Attributes:
        value_range: floats → uint8.
        mask_channel: the channel that is a segmentation mask; it leaves the image.
        mask_threshold: in units of the network's output; above it the mask is 255, else 0.
    """

    value_range: ValueRange
    mask_channel: int | None = None
    mask_threshold: float = 0.0


SEED = Input("seed", "INT64", "one seed, one image; any 64-bit integer")


class Noise(nn.Module):
    """Noise v1 as a graph: seed int64 [N, 1] → latent float32 [N, size].

    The words are held in int64 and masked to 32 bits, since ONNX has no unsigned addition
    everywhere. Bits as in :mod:`galatea_exporter.noise`.
    """

    table: Tensor
    index: Tensor

    def __init__(self, size: int, stream: int = 0) -> None:
        super().__init__()
        self.size, self.stream = size, stream
        self.register_buffer("table", torch.from_numpy(quantiles().copy()))
        self.register_buffer("index", torch.arange((size + 1) // 2)[None, :])

    def forward(self, seed: Tensor) -> Tensor:
        key0, key1 = seed & WORD, (seed >> 32) & WORD
        keys = (key0, key1, key0 ^ key1 ^ PARITY)
        x0 = (self.index + keys[0]) & WORD
        x1 = (self.index * 0 + self.stream + keys[1]) & WORD
        for block in range(ROUNDS // 4):
            for rotation in ROTATIONS[block % 2]:
                x0 = (x0 + x1) & WORD
                turned = x1 * 2**rotation
                x1 = ((turned & WORD) | (turned >> 32)) ^ x0
            x0 = (x0 + keys[(block + 1) % 3]) & WORD
            x1 = (x1 + keys[(block + 2) % 3] + (block + 1)) & WORD
        words = torch.stack([x0, x1], dim=-1).flatten(1)[:, : self.size]
        cell = (words >> 15) & 0xFFFF
        fraction = (words & 0x7FFF).float() * 2**-15 + 2**-16
        low, high = self.table[cell], self.table[cell + 1]
        magnitude = low + fraction * (high - low)
        return torch.where((words >> 31) == 1, -magnitude, magnitude)


class Synthesis(nn.Module):
    """A network followed by the conversion of its floats to image and mask.

    ``network(latent, *conditions)`` takes conditions as [N, 1] and returns float32 [N, C, H, W].
    Returns image uint8 [N, H, W, C], mask uint8 [N, H, W, 1] where there is one, and the network's
    own floats (the probe).
    """

    def __init__(self, network: nn.Module, channels: int, pixels: Pixels) -> None:
        super().__init__()
        self.network, self.pixels = network, pixels
        self.image_channels = [c for c in range(channels) if c != pixels.mask_channel]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        floats = self.network(*inputs)
        mask_channel, threshold = self.pixels.mask_channel, self.pixels.mask_threshold
        if mask_channel is None:
            return to_uint8(floats, self.pixels.value_range), floats
        image = to_uint8(floats[:, self.image_channels], self.pixels.value_range)
        inside = floats[:, mask_channel, :, :, None] > threshold
        return image, inside.to(torch.uint8) * 255, floats


def to_uint8(floats: Tensor, rule: ValueRange) -> Tensor:
    """float32 [N, C, H, W] → uint8 [N, H, W, C] by the card's rule, channels last."""
    levels = (floats - rule.low) / (rule.high - rule.low) * 255
    if rule.rounding == "nearest":
        levels = levels.round()
    return levels.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def from_latent(
    network: nn.Module,
    *,
    latent: int,
    image: tuple[int, int, int],
    channels: tuple[str, ...],
    pixels: Pixels,
    conditions: tuple[Input, ...] = (),
    ignored: tuple[str, ...] = (),
) -> StagedGenerator:
    """The usual generator: seed → noise → network → image.

    Args:
        network: ``network(latent float32 [N, latent], *conditions [N, 1])`` → float32 [N, C, H, W].
        latent: length of the latent.
        image: (C, H, W) of the network's output.
        channels: what each of the C channels means.
        pixels: how they become what is served.
        conditions: inputs of the network after the latent.
        ignored: see :class:`StagedGenerator`.
    """
    count, height, width = image
    mask_channel = pixels.mask_channel
    names = tuple(name for c, name in enumerate(channels) if c != mask_channel)
    outputs = [Output("image", "UINT8", (height, width, len(names)), names)]
    if mask_channel is not None:
        meaning = f"{channels[mask_channel]}: 255 inside, 0 outside"
        outputs.append(Output("mask", "UINT8", (height, width, 1), (meaning,)))
    latent_spec = TensorSpec("latent", "float32", (latent,))
    noise = Stage(
        "noise", Noise(latent), (TensorSpec("seed", "int64", (1,)),), (latent_spec,),
        accelerated=False,
    )  # fmt: skip
    synthesis = Stage(
        "synthesis",
        Synthesis(network, count, pixels).eval(),
        (latent_spec, *[TensorSpec(c.name, _dtype(c), (1,)) for c in conditions]),
        tuple(TensorSpec(output.name, "uint8", output.shape) for output in outputs),
        (TensorSpec("floats", "float32", image),),
    )
    return StagedGenerator(
        stages=(noise, synthesis),
        task="class-conditional" if any(c.name == "label" for c in conditions) else "unconditional",
        inputs=(SEED, *conditions),
        outputs=tuple(outputs),
        value_range=pixels.value_range,
        ignored=ignored,
    )


def _dtype(condition: Input) -> Literal["int64", "float32"]:
    return "float32" if condition.dtype == "FP32" else "int64"
