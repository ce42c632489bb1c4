"""The architectures that extractors are imported of: how weights become a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from galatea.errors import ExportError, InvalidInput
from galatea_exporter.checkpoint import State, listed, load_strictly
from galatea_exporter.extractors.inception import Inception
from galatea_exporter.extractors.resnet50 import PLACES, Layout, ResNet50

__all__ = ["ARCHS", "Arch", "Loaded", "find_arch"]


@dataclass(frozen=True)
class Loaded:
    """A network with its weights.

    Attributes:
        network: levels float32 [N, 3, size, size] from 0 to 255 → its outputs.
        size: height and width that it takes.
        outputs: lengths by name; ``features`` is the first.
        normalisation: what the network does to the levels.
    """

    network: nn.Module
    size: int
    outputs: dict[str, int]
    normalisation: str


@dataclass(frozen=True)
class Arch:
    """One architecture.

    Attributes:
        resize: the rule that its published figures were computed with.
        load: the network of a state dict; the path is that of errors.
    """

    name: str
    title: str
    source: str
    resize: str
    load: Callable[[State, Path], Loaded]


def find_arch(name: str) -> Arch:
    """The architecture of this name.

    Raises:
        InvalidInput: there is none; the message lists them.
    """
    if name not in ARCHS:
        raise InvalidInput(f"no architecture {name!r}", f"choose one of: {', '.join(ARCHS)}")
    return ARCHS[name]


def _inception(state: State, path: Path) -> Loaded:
    first, last = state.get("Conv2d_1a_3x3.conv.weight"), state.get("fc.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 2:
        raise _stranger(path, "inception-fid", state)
    network = Inception(first.shape[0], last.shape[0])
    load_strictly(network, _counted(network, state), path, "inception-fid")
    classes, features = last.shape
    outputs = {"features": features, "logits": classes}
    return Loaded(network, Inception.SIZE, outputs, "(RGB - 128) / 128")


def _radimagenet(state: State, path: Path) -> Loaded:
    named = {}
    for key, value in state.items():
        place, dot, rest = key.removeprefix("backbone.").partition(".")
        named[PLACES.get(place, place) + dot + rest] = value
    head = [key for key in named if key.partition(".")[0] == "fc"]
    weights = {key: value for key, value in named.items() if key not in head}
    first = weights.get("conv1.weight")
    if first is None or first.ndim != 4 or "layer4.0.conv1.weight" not in weights:
        raise _stranger(path, "radimagenet-resnet50", state)
    blocks = tuple(
        len({key.split(".")[1] for key in weights if key.startswith(f"layer{k}.")})
        for k in range(1, 5)
    )
    layout = Layout("conv1.bias" in weights, first.shape[0], blocks)
    network = ResNet50(layout)
    load_strictly(network, _counted(network, weights), path, "radimagenet-resnet50")
    return Loaded(network, ResNet50.SIZE, {"features": 32 * layout.width}, layout.normalisation)


def _counted(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state with the batch norms' counts of steps, which old files lack and nothing uses."""
    counts = {key for key in network.state_dict() if key.endswith(".num_batches_tracked")}
    return {**dict.fromkeys(counts, torch.tensor(0)), **state}


def _stranger(path: Path, arch: str, state: Mapping[str, Any]) -> ExportError:
    return ExportError(
        f"{path}: no weights of {arch}; it holds {listed(state)}", "see: galatea extractor list"
    )


ARCHS = {
    arch.name: arch
    for arch in (
        Arch(
            "inception-fid",
            "Inception v3 of the Fréchet inception distance, weights of 2015-12-05",
            "arXiv:1512.00567, arXiv:1706.08500; weights of pytorch-fid or torch-fidelity",
            "tf1",
            _inception,
        ),
        Arch(
            "radimagenet-resnet50",
            "ResNet-50 trained on 1.35 million radiological images",
            "doi:10.1148/ryai.210315; weights of BMEII-AI/RadImageNet or of its conversion from "
            "Keras",
            "clean",
            _radimagenet,
        ),
    )
}
