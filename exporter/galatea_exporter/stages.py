"""Stages: the parts of a generator that become one ONNX model each.

A generator is a chain of stages. The one that starts from a seed has at least two: ``noise``
(seed → latent, tiny, on the CPU) and ``synthesis`` (latent and conditions → image); the one that
starts from a picture has one, ``translation``. A diffusion generator is no chain: its ``unet`` is
called once a step by the engine of :mod:`galatea_exporter.sampler`, between ``text`` and ``vae``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from galatea.card import Input, Output, Preparation, Task, ValueRange
from galatea_exporter.sampler.schedules import Schedule

EXAMPLE_SIDE = 64  # pixels; in a much smaller picture, one value is a large share


@dataclass(frozen=True)
class Axis:
    """A free axis of a fully convolutional network, in pixels.

    Attributes:
        name: "height" or "width".
        multiple: sizes must be a multiple of this.
        minimum: smallest size that the network takes.
        nominal: the size that it was trained for.
    """

    name: str
    multiple: int
    minimum: int
    nominal: int

    @property
    def smallest(self) -> int:
        """The smallest valid size."""
        return self.multiple * math.ceil(self.minimum / self.multiple)

    def example(self, steps: int) -> int:
        """A small valid size with pixels enough for a comparison, and `steps` multiples more."""
        enough = max(self.minimum, EXAMPLE_SIDE)
        return self.multiple * (math.ceil(enough / self.multiple) + steps)


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a stage; `shape` leaves out the batch.

    Attributes:
        example: bounds of the values that exports and comparisons try; the last one is included
            for integers. By default normal floats, and levels 0 … 255.
    """

    name: str
    dtype: Literal["int64", "float32", "uint8"]
    shape: tuple[int | Axis, ...]
    example: tuple[float, float] | None = None

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape with -1 for each free axis."""
        return tuple(-1 if isinstance(size, Axis) else size for size in self.shape)

    @property
    def axes(self) -> dict[int, Axis]:
        """The free axes by their index behind the batch."""
        return {i: size for i, size in enumerate(self.shape) if isinstance(size, Axis)}


class Anchor(nn.Module):
    """Marks floats that a network rounds next: a threshold, a truncation to levels.

    There the smallest difference between two runtimes flips a value, and what follows differs
    visibly although both computed it right. So a comparison is made step by step: the floats of the
    probe are compared, and PyTorch goes on from the runtime's own. It computes nothing.

    Args:
        probe: name of the stage's probe that holds these floats.
    """

    REASON: ClassVar[str] = "compared step by step, from the runtime's own floats at each rounding"

    def __init__(self, probe: str) -> None:
        super().__init__()
        self.probe = probe

    def forward(self, floats: Tensor) -> Tensor:
        """Gives back what it gets."""
        return floats


@dataclass(frozen=True)
class Stage:
    """One ONNX model.

    ``module(*inputs)`` returns the outputs followed by the probes: float tensors before the
    conversion to what is served, compared for parity and cut from the released graph.

    Attributes:
        accelerated: worth a GPU.
        batched: requests that wait together are run together; not where an engine makes the batch.
        half: worth a second graph in float16, for GPUs, as what makes images always is.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    probes: tuple[TensorSpec, ...] = ()
    accelerated: bool = True
    batched: bool = True
    half: bool = False

    @property
    def halved(self) -> bool:
        """Whether a graph in float16 is made of it where one is asked for."""
        makes_images = any(spec.name == "image" for spec in self.outputs)
        return self.accelerated and (self.half or makes_images)


@dataclass(frozen=True)
class Sampling:
    """How the engine joins the stages of a diffusion generator, as its ``model.py`` reads it.

    Attributes:
        schedule: of the training, with the sampler that the model came with.
        shape: of a sample, [C, H, W], or [C, X, Y, Z] of a volume.
        decoder: the stage that takes ``sample`` and returns the generator's outputs.
        conditions: public inputs that the stage ``unet`` takes as they are, [N, 1].
        unconditional: of each of these, the value in the row without guidance; None: there is no
            such row, unless a text makes one.
        steps, guidance: what a request gets that does not say.
        tokenizer: JSON of the package ``tokenizers``, which pads and truncates; with it the stage
            ``text`` takes ``tokens`` int64 [N, L] and returns the ``context`` that ``unet`` takes.
    """

    schedule: Schedule
    shape: tuple[int, ...]
    decoder: str
    conditions: tuple[str, ...] = ()
    unconditional: dict[str, float] | None = None
    steps: int = 50
    guidance: float = 1.0
    tokenizer: str = ""

    @property
    def guided(self) -> bool:
        """Whether a sample can have a second row, without guidance, in the same call."""
        return bool(self.tokenizer) or self.unconditional is not None


@dataclass(frozen=True)
class StagedGenerator:
    """A loaded generator, ready for export.

    Attributes:
        stages: in the order of the data; a single one is served as a plain model.
        sampling: of a diffusion generator; the stages of others are a chain.
        task, inputs, outputs, value_range, preparation: what the card will say.
        ignored: tensors of the checkpoint that inference does not use, with the reason.
        max_batch: the default for the largest batch of a request.
        tolerance: allowed max abs difference between PyTorch and ONNX Runtime in the float probes.
        tolerance_reason: why it is more than 1e-4, where it is, or how else it is to be understood.
    """

    stages: tuple[Stage, ...]
    task: Task
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    value_range: ValueRange
    preparation: Preparation | None = None
    sampling: Sampling | None = None
    ignored: tuple[str, ...] = ()
    max_batch: int = 32
    tolerance: float = 1e-4
    tolerance_reason: str = ""
