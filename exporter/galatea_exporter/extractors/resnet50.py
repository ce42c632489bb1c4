"""ResNet-50 with weights of RadImageNet, in both layouts that they were published in.

He et al. 2015 (arXiv:1512.03385); Mei et al. 2022 (doi:10.1148/ryai.210315). The project's own
PyTorch weights are those of torchvision's network, as ``backbone.0.weight`` … of a Sequential.
The conversion from Keras (Warvito/radimagenet-models), which MONAI's distances use, has biases in
its convolutions, the stride in the first of a block, and another normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

EXPANSION = 4
MEAN_BGR = (0.406, 0.456, 0.485)  # of ImageNet, in the order blue, green, red

# Places of a Sequential and torchvision's names of them.
PLACES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


@dataclass(frozen=True)
class Layout:
    """What differs between the two.

    Attributes:
        keras: biases in the convolutions, the stride in the first one of a block.
        width: channels of the first convolution, 64 as published.
        blocks: of each of the four layers.
    """

    keras: bool
    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)

    @property
    def epsilon(self) -> float:
        """Of the batch norms."""
        return 1.001e-5 if self.keras else 1e-5

    @property
    def normalisation(self) -> str:
        """What happens to levels, for the card."""
        return "BGR / 255 - (0.406, 0.456, 0.485)" if self.keras else "(RGB - 127.5) / 127.5"


class Bottleneck(nn.Module):
    """[N, inputs, H, W] → [N, 4·width, H/stride, W/stride]."""

    def __init__(self, inputs: int, width: int, stride: int, layout: Layout) -> None:
        super().__init__()
        first, second = (stride, 1) if layout.keras else (1, stride)
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, first, bias=layout.keras)
        self.bn1 = nn.BatchNorm2d(width, eps=layout.epsilon)
        self.conv2 = nn.Conv2d(width, width, 3, second, 1, bias=layout.keras)
        self.bn2 = nn.BatchNorm2d(width, eps=layout.epsilon)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=layout.keras)
        self.bn3 = nn.BatchNorm2d(outputs, eps=layout.epsilon)
        self.downsample = nn.Sequential()
        if inputs != outputs or stride > 1:
            self.downsample.append(nn.Conv2d(inputs, outputs, 1, stride, bias=layout.keras))
            self.downsample.append(nn.BatchNorm2d(outputs, eps=layout.epsilon))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    """Levels float32 [N, 3, 224, 224] from 0 to 255 → features [N, 2048], the mean over places."""

    SIZE = 224

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        width = layout.width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=layout.keras)
        self.bn1 = nn.BatchNorm2d(width, eps=layout.epsilon)
        inputs = width
        for k, blocks in enumerate(layout.blocks):
            inner = width * 2**k
            layer = nn.Sequential()
            for i in range(blocks):
                layer.append(Bottleneck(inputs, inner, 2 if k and not i else 1, layout))
                inputs = EXPANSION * inner
            setattr(self, f"layer{k + 1}", layer)

    def forward(self, levels: Tensor) -> Tensor:
        if self.layout.keras:
            x = levels.flip(1) / 255 - torch.tensor(MEAN_BGR)[:, None, None]
        else:
            x = (levels - 127.5) / 127.5
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for k in range(len(self.layout.blocks)):
            x = getattr(self, f"layer{k + 1}")(x)
        return x.mean((2, 3))
