"""Parts of the StyleGAN generators: mapping with truncation, modulated convolutions.

Karras et al. 2018 (arXiv:1812.04948) and 2019 (arXiv:1912.04958). Written from the papers and from
the names and shapes in checkpoints. Tensors are stored with an equalised learning rate; each module
that has a ``fold`` turns them into plain weights, once, after loading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, embedding, leaky_relu, linear

from galatea.card import Input
from galatea.errors import InvalidInput
from galatea_exporter.assembly import control
from galatea_exporter.checkpoint import Checkpoint, State
from galatea_exporter.layers.equalised import PixelNorm, size_of
from galatea_exporter.pickles import PickledModule
from galatea_exporter.stages import Stage, TensorSpec

Activation = Literal["lrelu", "relu", "linear"]

SLOPES = {"lrelu": 0.2, "relu": 0.0, "linear": 1.0}  # below 0
GAINS = {"lrelu": sqrt(2), "relu": sqrt(2), "linear": 1.0}
EPSILON = 1e-8

# u8 = 127.5 · x + 128, truncated.
LOW, HIGH = -128 / 127.5, 127 / 127.5


def activate(features: Tensor, activation: Activation) -> Tensor:
    """Without its gain: these functions commute with positive factors, so weights carry it."""
    return features if activation == "linear" else leaky_relu(features, SLOPES[activation])


def clamped(features: Tensor, bound: float | None) -> Tensor:
    """Clamped to [-bound, bound], if there is a bound."""
    return features if bound is None else features.clamp(-bound, bound)


def normalised(vectors: Tensor) -> Tensor:
    """Scales each row of [N, C] to a mean square of 1."""
    normal: Tensor = PixelNorm()(vectors)
    return normal


class Dense(nn.Linear):
    """A linear layer stored with an equalised learning rate: W·r/√fan-in and b·r, times a gain."""

    def __init__(self, c_in: int, c_out: int, rate: float = 1.0, gain: float = 1.0) -> None:
        super().__init__(c_in, c_out)
        self.rate, self.gain = rate, gain

    def fold(self) -> None:
        """Puts the factors into weight and bias."""
        with torch.no_grad():
            self.weight.mul_(self.gain * self.rate / sqrt(self.in_features))
            self.bias.mul_(self.gain * self.rate)


class ClassEmbedding(nn.Linear):
    """label int64 [N, 1] → float32 [N, width]; stored as a linear layer of the one-hot label."""

    table: Tensor

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(classes, width)
        self.register_buffer("table", torch.zeros(classes, width), persistent=False)

    def fold(self) -> None:
        """Computes the normalised vector of each class."""
        with torch.no_grad():
            rows = self.weight.t() / sqrt(self.in_features) + self.bias
            self.table = normalised(rows)

    def forward(self, label: Tensor) -> Tensor:
        return embedding(label[:, 0], self.table)


class MappingNetwork(nn.Module):
    """latent (and label) → ws, the intermediate latent of every layer, drawn towards their mean.

    Args:
        z_dim: length of the latent.
        widths: outputs of each dense layer; the last is w_dim.
        num_ws: layers of the synthesis that take a w.
        embed: (classes, width) of the label's embedding; (0, 0) for none.
        rate: lr_multiplier of the dense layers.
    """

    w_avg: Tensor
    index: Tensor

    def __init__(
        self,
        z_dim: int,
        widths: Sequence[int],
        num_ws: int,
        embed: tuple[int, int],
        rate: float,
        activation: Activation = "lrelu",
    ) -> None:
        super().__init__()
        self.z_dim, self.num_ws, self.classes = z_dim, num_ws, embed[0]
        self.activation = activation
        self.embed = ClassEmbedding(*embed) if self.classes else None
        for k, (c_in, c_out) in enumerate(pairwise([z_dim + embed[1], *widths])):
            self.add_module(f"fc{k}", Dense(c_in, c_out, rate, GAINS[activation]))
        self.layers = len(widths)
        self.register_buffer("w_avg", torch.zeros(widths[-1]))
        self.register_buffer("index", torch.arange(num_ws).float(), persistent=False)

    def forward(self, latent: Tensor, *conditions: Tensor) -> Tensor:
        """latent [N, z_dim], (label [N, 1]), truncation [N, 1], cutoff [N, 1] → [N, num_ws, w]."""
        *label, truncation, cutoff = conditions
        w = normalised(latent)
        if self.embed is not None:
            w = torch.cat([w, self.embed(*label)], dim=1)
        for k in range(self.layers):
            w = activate(self.get_submodule(f"fc{k}")(w), self.activation)
        # w_avg + ψ·(w − w_avg), written so that ψ = 1 gives w to the bit.
        drawn = (truncation - 1) * (self.index < cutoff.float()).float()
        return w[:, None] + drawn[:, :, None] * (w - self.w_avg)[:, None]

    def stage(self, conditions: Iterable[Input]) -> Stage:
        """The stage ``mapping``; `conditions` are its public inputs: (label), truncation, …"""
        return Stage(
            "mapping",
            self.eval(),
            (TensorSpec("latent", "float32", (self.z_dim,)), *map(control, conditions)),
            (TensorSpec("ws", "float32", (self.num_ws, len(self.w_avg))),),
        )

    def controls(self, labels: tuple[str, ...]) -> tuple[Input, ...]:
        """Public inputs besides the seed, in the order in which the network takes them.

        Raises:
            InvalidInput: names of labels, but not one for each class.
        """
        if labels and len(labels) != self.classes:
            raise InvalidInput(
                f"{len(labels)} labels for {self.classes} classes",
                f"give {self.classes} names, separated by commas",
            )
        names = labels or tuple(f"class {k}" for k in range(self.classes))
        label = (Input("label", "INT64", "class of the image", names),) if names else ()
        return (
            *label,
            Input(
                "truncation", "FP32",
                "distance from the mean image: 1 is the generator's own, less is more typical and "
                "less varied",
                default=1.0, minimum=0.0, maximum=2.0,
            ),
            Input(
                "truncation_cutoff", "INT64",
                "number of layers that truncation applies to, counted from the coarsest",
                default=self.num_ws, minimum=0, maximum=self.num_ws,
            ),
        )  # fmt: skip


def mapping_network(
    state: State, num_ws: int, rate: float, activation: Activation = "lrelu"
) -> MappingNetwork:
    """The mapping network with the sizes of the tensors ``mapping.*``."""
    numbers = [int(k) for k in re.findall(r"mapping\.fc(\d+)\.", " ".join(state))]
    layers = [f"mapping.fc{k}.weight" for k in range(max(numbers, default=0) + 1)]
    embed = (0, 0)
    if any(key.startswith("mapping.embed.") for key in state):
        embed = (size_of(state, "mapping.embed.weight", 1), size_of(state, "mapping.embed.bias", 0))
    z_dim = max(1, size_of(state, layers[0], 1) - embed[1])
    widths = [size_of(state, key, 0) for key in layers]
    return MappingNetwork(z_dim, widths, num_ws, embed, rate, activation)


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by a style, and its output to unit variance.

    The same as a convolution with weights of its own for each sample, but the weights are static:
    x·s → convolution → ·d with d = 1/√(Σ s²w²), the demodulation.

    Args:
        padding: zeros around the features.
        demodulate: False leaves d out, as in layers that make an image.
        gain: of the output.
    """

    energy: Tensor
    epsilon: Tensor

    def __init__(
        self,
        w_dim: int,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        padding: int = 0,
        demodulate: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.affine = Dense(w_dim, c_in)
        self.weight = nn.Parameter(torch.zeros(c_out, c_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.padding, self.demodulate, self.gain = padding, demodulate, gain
        self.register_buffer("energy", torch.zeros(c_out, c_in), persistent=False)
        self.register_buffer("epsilon", torch.zeros(c_out), persistent=False)

    def fold(self) -> None:
        """Puts the gain into weight and bias, and prepares the demodulation.

        Weights are divided by √fan-in, which the demodulation cancels and which keeps sums in the
        range of half precision.
        """
        with torch.no_grad():
            weight = self.weight / sqrt(self.weight[0].numel())
            self.energy = weight.square().sum(dim=(2, 3))
            self.epsilon = torch.full_like(self.bias, EPSILON / self.weight[0].numel())
            self.weight.copy_(weight * self.gain)
            self.bias.mul_(self.gain)

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        """features [N or 1, c_in, H, W] and w [N, w_dim] → [N, c_out, H', W']."""
        style: Tensor = self.affine(w)
        made = self.convolve(features * style[:, :, None, None])
        if not self.demodulate:
            return made
        factor = torch.rsqrt(linear(style * style, self.energy, self.epsilon))
        return made * factor[:, :, None, None] + self.bias[:, None, None]

    def convolve(self, features: Tensor) -> Tensor:
        """The convolution with the static weights; with the bias, unless that comes later."""
        bias = None if self.demodulate else self.bias
        return conv2d(features, self.weight, bias, padding=self.padding)


class Generator(nn.Module):
    """Mapping and synthesis, with the names of their tensors in a checkpoint."""

    def __init__(self, mapping: MappingNetwork, synthesis: nn.Module) -> None:
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis


def random_state(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A random state dict of `network`, much as such generators are initialised."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, tensor in network.state_dict().items():
        normal = torch.randn(tensor.shape, generator=generator)
        if key.endswith("_filter"):
            window = torch.hann_window(len(tensor) + 2, periodic=False)[1:-1]
            state[key] = low_pass = window if tensor.ndim == 1 else window.outer(window)
            low_pass /= low_pass.sum()
        elif key.endswith(("affine.bias", "magnitude_ema")):
            state[key] = torch.ones_like(tensor)
        elif key.endswith("transform"):
            state[key] = torch.eye(len(tensor))
        elif key.startswith("mapping.fc"):
            state[key] = normal * (100 if tensor.ndim == 2 else 10)
        else:
            state[key] = normal * (0.1 if tensor.ndim < 2 else 1)
    return state


def snapshot_arguments(
    checkpoint: Checkpoint, containers: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments that a snapshot's synthesis and mapping were made with, as far as told."""
    content = checkpoint.content
    if isinstance(content, Mapping):
        content = next((content[key] for key in containers if key in content), None)
    if not isinstance(content, PickledModule):
        return {}, {}
    given = content.arguments
    mapping, nested = (given.get(f"{part}_kwargs") for part in ("mapping", "synthesis"))
    if isinstance(nested, dict):  # as in the code of 2020, which clamps nothing by default
        given = {"conv_clamp": None, **nested}
    return given, mapping if isinstance(mapping, dict) else {}
