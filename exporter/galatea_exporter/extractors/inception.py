"""Inception v3 as the Fréchet inception distance has it: TensorFlow's network of 2015-12-05.

Szegedy et al. 2015 (arXiv:1512.00567) with 1008 logits and pools that leave out their padding, in
the layout of the weights of pytorch-fid and torch-fidelity. torchvision's Inception is another
network, and distances by it compare with no others.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Widths = Callable[[int], int]  # published channels → those of a network in proportion

EPSILON = 0.001  # of the batch norms


class Convolution(nn.Module):
    """Convolution, batch norm and ReLU: [N, inputs, H, W] → [N, outputs, H', W']."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Branches side by side; a chain of convolutions each, and a pool.

    Args:
        inputs: channels that come in.
        branches: by the name of each convolution (outputs, kernel), in chains that begin again
            where a name ends in ``_1`` or has no number. Those that end in ``a`` and ``b`` both
            take what came before them.
        pool: "mean" or "max" beside the branches; with a convolution behind it unless `stride`
            is 2.
        stride: 2 where the last convolution of each chain halves height and width.
    """

    def __init__(
        self,
        inputs: int,
        branches: dict[str, tuple[int, int | tuple[int, int]]],
        *,
        pool: str = "mean",
        pooled: int = 0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.chains: list[list[list[str]]] = []
        self.pool, self.stride = pool, stride
        names = list(branches)
        before = inputs
        for i, (name, (outputs, kernel)) in enumerate(branches.items()):
            stem, _, number = name.partition("_")
            twin = number.endswith("b")
            if not number or number == "1":
                self.chains.append([])
                before = inputs
            (self.chains[-1][-1] if twin else self._next()).append(name)
            ends = i + 1 == len(names) or names[i + 1].partition("_")[0] != stem
            step = stride if ends else 1
            setattr(self, name, Convolution(before, outputs, kernel, step, _around(kernel, step)))
            before = before if number.endswith("a") else outputs
        if pooled:
            self.branch_pool = Convolution(inputs, pooled, 1)

    def _next(self) -> list[str]:
        self.chains[-1].append([])
        return self.chains[-1][-1]

    def forward(self, x: Tensor) -> Tensor:
        made = []
        for chain in self.chains:
            y = x
            for names in chain:
                y = torch.cat([getattr(self, name)(y) for name in names], 1)
            made.append(y)
        if self.stride == 2:
            return torch.cat([*made, functional.max_pool2d(x, 3, 2)], 1)
        if self.pool == "max":
            pooled = functional.max_pool2d(x, 3, 1, 1)
        else:
            pooled = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([*made, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """Levels float32 [N, 3, 299, 299] from 0 to 255 → features [N, 2048], logits [N, 1008].

    The logits are without their bias, as the Inception score takes them.

    Args:
        width: channels of the first convolution, 32 as published; all others are in proportion.
        classes: number of logits.
    """

    SIZE = 299

    def __init__(self, width: int = 32, classes: int = 1008) -> None:
        super().__init__()

        def w(channels: int) -> int:
            return channels * width // 32

        self.Conv2d_1a_3x3 = Convolution(3, w(32), 3, 2)
        self.Conv2d_2a_3x3 = Convolution(w(32), w(32), 3)
        self.Conv2d_2b_3x3 = Convolution(w(32), w(64), 3, 1, 1)
        self.Conv2d_3b_1x1 = Convolution(w(64), w(80), 1)
        self.Conv2d_4a_3x3 = Convolution(w(80), w(192), 3)
        for name, inputs, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
            setattr(self, f"Mixed_{name}", _block_a(w(inputs), w, w(pooled)))
        self.Mixed_6a = Block(
            w(288),
            {
                "branch3x3": (w(384), 3),
                "branch3x3dbl_1": (w(64), 1),
                "branch3x3dbl_2": (w(96), 3),
                "branch3x3dbl_3": (w(96), 3),
            },
            stride=2,
        )
        for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(self, f"Mixed_{name}", _block_c(w(768), w, w(inner)))
        self.Mixed_7a = Block(
            w(768),
            {
                "branch3x3_1": (w(192), 1),
                "branch3x3_2": (w(320), 3),
                "branch7x7x3_1": (w(192), 1),
                "branch7x7x3_2": (w(192), (1, 7)),
                "branch7x7x3_3": (w(192), (7, 1)),
                "branch7x7x3_4": (w(192), 3),
            },
            stride=2,
        )
        self.Mixed_7b = _block_e(w(1280), w, "mean")
        self.Mixed_7c = _block_e(w(2048), w, "max")
        self.fc = nn.Linear(w(2048), classes)

    def forward(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        x = (levels - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = functional.max_pool2d(x, 3, 2)
        x = functional.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = getattr(self, f"Mixed_{name}")(x)
        features = x.mean((2, 3))
        return features, features @ self.fc.weight.T


def _block_a(inputs: int, w: Widths, pooled: int) -> Block:
    return Block(
        inputs,
        {
            "branch1x1": (w(64), 1),
            "branch5x5_1": (w(48), 1),
            "branch5x5_2": (w(64), 5),
            "branch3x3dbl_1": (w(64), 1),
            "branch3x3dbl_2": (w(96), 3),
            "branch3x3dbl_3": (w(96), 3),
        },
        pooled=pooled,
    )


def _block_c(inputs: int, w: Widths, inner: int) -> Block:
    return Block(
        inputs,
        {
            "branch1x1": (w(192), 1),
            "branch7x7_1": (inner, 1),
            "branch7x7_2": (inner, (1, 7)),
            "branch7x7_3": (w(192), (7, 1)),
            "branch7x7dbl_1": (inner, 1),
            "branch7x7dbl_2": (inner, (7, 1)),
            "branch7x7dbl_3": (inner, (1, 7)),
            "branch7x7dbl_4": (inner, (7, 1)),
            "branch7x7dbl_5": (w(192), (1, 7)),
        },
        pooled=w(192),
    )


def _block_e(inputs: int, w: Widths, pool: str) -> Block:
    return Block(
        inputs,
        {
            "branch1x1": (w(320), 1),
            "branch3x3_1": (w(384), 1),
            "branch3x3_2a": (w(384), (1, 3)),
            "branch3x3_2b": (w(384), (3, 1)),
            "branch3x3dbl_1": (w(448), 1),
            "branch3x3dbl_2": (w(384), 3),
            "branch3x3dbl_3a": (w(384), (1, 3)),
            "branch3x3dbl_3b": (w(384), (3, 1)),
        },
        pool=pool,
        pooled=w(192),
    )


def _around(kernel: int | tuple[int, int], stride: int) -> int | tuple[int, int]:
    """Padding that keeps height and width, and none where they are halved."""
    if stride == 2:
        return 0
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
