"""What a generator family is, and the registry of all of them.

A family is one file in :mod:`galatea_exporter.families`: its network, its facts and a subclass of
:class:`Family`, registered by being defined there.
"""

from __future__ import annotations

import importlib
import pkgutil
import types
import typing
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from galatea.card import ValueRange
from galatea.errors import ExportError, InvalidInput
from galatea_exporter.checkpoint import Checkpoint, State, listed
from galatea_exporter.pixels import Pixels
from galatea_exporter.stages import StagedGenerator


@dataclass(frozen=True)
class Options:
    """What a checkpoint does not tell about itself; families add their own fields.

    The value range is a property of the model, not of its family: training code changed it over
    time while the network stayed.

    Attributes:
        low, high: the network's outputs that become 0 and 255.
        rounding: how levels become integers.
        pixel_type: uint8 levels, or float32 intensities from 0 (`low`) to 1 (`high`), not clamped;
            auto takes levels for images of 1 or 3 channels.
        mask_channel: the output channel that is a segmentation mask.
        mask_threshold: above it the mask is 255, in units of the network's output.
        labels: names of the classes 0, 1, …
        channels: what each output channel means.
    """

    low: float = -1.0
    high: float = 1.0
    rounding: Literal["truncate", "nearest"] = "truncate"
    pixel_type: Literal["auto", "uint8", "float32"] = "auto"
    mask_channel: int | None = None
    mask_threshold: float = 0.0
    labels: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()

    def pixels(self, channels: int) -> Pixels:
        """The rule for a network with this many output channels.

        Raises:
            InvalidInput: the range is empty or the mask channel does not exist.
        """
        if not self.low < self.high:
            raise InvalidInput(
                f"the value range [{self.low}, {self.high}] is empty", "set low below high"
            )
        if self.mask_channel is not None and not 0 <= self.mask_channel < channels:
            raise InvalidInput(
                f"mask_channel {self.mask_channel} does not exist, the network has {channels}",
                f"choose 0 … {channels - 1}",
            )
        rule = ValueRange(self.low, self.high, self.rounding)
        image = channels - (self.mask_channel is not None)
        levels = image in (1, 3) if self.pixel_type == "auto" else self.pixel_type == "uint8"
        return Pixels(rule, levels, self.mask_channel, self.mask_threshold)

    def channel_names(self, channels: int) -> tuple[str, ...]:
        """The meanings given, or those of grey and RGB images.

        Raises:
            InvalidInput: not one name for each channel.
        """
        if not self.channels:
            image = [c for c in range(channels) if c != self.mask_channel]
            usual = {1: ["intensity"], 3: ["red", "green", "blue"]}.get(
                len(image), [f"channel {c}" for c in image]
            )
            names = dict(zip(image, usual, strict=True))
            return tuple(names.get(c, "mask") for c in range(channels))
        if len(self.channels) != channels:
            raise InvalidInput(
                f"{len(self.channels)} channel names for a network with {channels} channels",
                "set channels to one name each, separated by commas",
            )
        return self.channels


class Family(ABC):
    """One architecture with the layouts of its checkpoints."""

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]  # paper and repository
    aliases: ClassVar[tuple[str, ...]] = ()  # other names of the same layout
    containers: ClassVar[tuple[str, ...]] = ()  # keys under which its state dict may lie
    files: ClassVar[tuple[str, ...]] = ()  # of a checkpoint that is a folder; names join the keys
    modules: ClassVar[tuple[str, ...]] = ()  # patterns of classes that upstream pickles whole
    options: ClassVar[type[Options]] = Options

    @abstractmethod
    def recognises(self, state: State) -> bool:
        """Whether the names of the tensors look like this family's."""

    @abstractmethod
    def build(self, state: State, options: Any, path: Path) -> StagedGenerator:
        """The generator with these weights; `path` names the checkpoint in errors.

        Raises:
            ExportError: a tensor is missing, left over or of the wrong shape.
            InvalidInput: an option does not fit the checkpoint.
        """

    @abstractmethod
    def example(self, published: bool = False) -> dict[str, Tensor]:
        """A state dict with random weights, as upstream would save it: small, or as published."""

    def arguments(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Options that the checkpoint itself tells, as plain values; what a user sets wins."""
        return {}

    def state(
        self, checkpoint: Checkpoint, options: Any
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """The generator's tensors, and the names of what the file holds beside them."""
        return (checkpoint.flat(), ()) if self.files else checkpoint.state(self.containers)

    def load(self, checkpoint: Checkpoint, options: Options) -> StagedGenerator:
        """The generator of a checkpoint.

        Raises:
            ExportError: the file is of another family, or does not fit strictly.
        """
        try:
            state, beside = self.state(checkpoint, options)
        except ExportError as error:
            remedy = self._look_elsewhere(checkpoint, error.remedy)
            raise ExportError(error.problem, remedy) from error
        if not self.recognises(state):
            raise ExportError(
                f"{checkpoint.path}: not a checkpoint of the family {self.name}; "
                f"it holds {listed(state)}",
                self._look_elsewhere(checkpoint, "see: galatea families"),
            )
        generator = self.build(state, options, checkpoint.path)
        ignored = (*[f"{key}: not the generator" for key in beside], *generator.ignored)
        return replace(generator, ignored=ignored)

    def save(self, state: State, folder: Path) -> Path:
        """Writes a checkpoint as upstream lays it out into `folder`, which is made.

        Returns:
            The file, with the state dict in the family's first container, or the folder itself for
            checkpoints of several files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if not self.files:
            path = folder / "model.pt"
            whole = dict(state)
            torch.save({self.containers[0]: whole} if self.containers else whole, path)
            return path
        for name in self.files:
            stem = Path(name).stem + "."
            part = {k.removeprefix(stem): v for k, v in state.items() if k.startswith(stem)}
            torch.save(part, folder / name)
        return folder

    def _look_elsewhere(self, checkpoint: Checkpoint, otherwise: str) -> str:
        """Which other families a checkpoint looks like, as a next step."""
        fitting = recognising(checkpoint)
        if self.name in fitting or not fitting:
            return otherwise
        return f"it looks like: {', '.join(fitting)}"


F = TypeVar("F", bound=type[Family])
_families: dict[str, Family] = {}


def register(family: F) -> F:
    """Class decorator that puts a family into the registry."""
    _families[family.name] = family()
    return family


@cache
def families() -> dict[str, Family]:
    """All families by name, in alphabetical order."""
    package = importlib.import_module("galatea_exporter.families")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_families.items()))


def recognising(checkpoint: Checkpoint) -> list[str]:
    """Names of the families that a checkpoint looks like."""
    fitting = []
    for family in families().values():
        with suppress(ExportError):
            state, _ = family.state(checkpoint, family.options())
            fitting += [family.name] if family.recognises(state) else []
    return fitting


def random_weights(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A state dict with weights large enough that every seed gives another image."""
    generator = torch.Generator().manual_seed(seed)
    state = dict(network.state_dict())
    for key, tensor in state.items():
        if tensor.ndim >= 2:
            fan_in = tensor[0].numel()
            state[key] = torch.randn(tensor.shape, generator=generator) * (4 / fan_in) ** 0.5
    return state


def find_family(name: str) -> Family:
    """The family of this name or alias.

    Raises:
        InvalidInput: there is none; the message lists the names.
    """
    for family in families().values():
        if name == family.name or name in family.aliases:
            return family
    raise InvalidInput(f"no family {name!r}", f"choose one of: {', '.join(families())}")


def describe(family: Family) -> dict[str, Any]:
    """A family as plain JSON types: names, source and options with their defaults."""
    return {
        "name": family.name,
        "aliases": list(family.aliases),
        "title": family.title,
        "source": family.source,
        "options": {entry.name: entry.default for entry in fields(family.options)},
    }


def parse_options(kind: type[Options], settings: dict[str, str]) -> Options:
    """Options from ``key=value`` texts.

    Raises:
        InvalidInput: an unknown key or a value of the wrong type; the message lists what is valid.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, text in settings.items():
        if key not in hints:
            known = ", ".join(entry.name for entry in fields(kind))
            raise InvalidInput(f"no option {key!r}", f"choose one of: {known}")
        values[key] = _parse(hints[key], text, key)
    return kind(**values)


def _parse(hint: Any, text: str, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none":
            return None
        return _parse(next(entry for entry in arguments if entry is not type(None)), text, key)
    if origin is tuple:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return tuple(_parse(arguments[0], part, key) for part in parts)
    if origin is Literal:
        if text in arguments:
            return text
        expected = " or ".join(arguments)
    elif hint is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        expected = "true or false"
    else:
        try:
            return hint(text)
        except ValueError:
            expected = {"int": "a whole number", "float": "a number"}[hint.__name__]
    raise InvalidInput(f"option {key} is {text!r}", f"give {expected}")
