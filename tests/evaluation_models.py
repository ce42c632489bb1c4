"""Weights of small extractors in the published layouts, and a server that has them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from galatea_exporter.export import export
from galatea_exporter.extractors.inception import Inception
from galatea_exporter.extractors.release import import_extractor
from galatea_exporter.extractors.resnet50 import Layout, ResNet50
from galatea_exporter.family import find_family, random_weights

EXTRACTORS = {
    "inception": ("inception-fid", "tf1"),
    "radimagenet": ("radimagenet-resnet50", "clean"),
}


def inception_state() -> dict[str, Tensor]:
    """As pytorch-fid saves it, a sixteenth as wide."""
    state = random_weights(Inception(width=2, classes=12))
    # So deep a network would make large numbers of weights that double the variance.
    return {key: value / 2**0.5 if value.ndim == 4 else value for key, value in state.items()}


def radimagenet_state(*, keras: bool) -> dict[str, Tensor]:
    """Of one block a layer; without Keras' biases as a Sequential, the way RadImageNet does."""
    state = random_weights(ResNet50(Layout(keras, width=4, blocks=(1, 1, 1, 1))))
    if keras:
        return state
    places = {"conv1": "0", "bn1": "1", **{f"layer{k}": str(k + 3) for k in range(1, 5)}}
    return {
        f"backbone.{places[key.partition('.')[0]]}.{key.partition('.')[2]}": value
        for key, value in state.items()
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_repository(folder: Path) -> Path:
    """``masses``, which makes images of two classes, and the extractors."""
    torch.manual_seed(0)  # of what random_weights leaves as PyTorch makes it
    root = folder / "models"
    masses = find_family("dcgan_mammo")
    torch.save({masses.containers[0]: masses.example()}, folder / "masses.pt")
    export(masses.name, folder / "masses.pt", name="masses", repository=root,
           settings={"labels": "benign,malignant", "mask_channel": "1"}, max_batch=8)  # fmt: skip
    states = {"inception": inception_state(), "radimagenet": radimagenet_state(keras=True)}
    for name, (arch, resize) in EXTRACTORS.items():
        path = folder / f"{name}.pth"
        torch.save(states[name], path)
        import_extractor(path, arch=arch, sha256=sha256(path), name=name, repository=root,
                         resize=resize, max_batch=8)  # fmt: skip
    return root
