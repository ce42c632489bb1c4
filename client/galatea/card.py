"""The model card: what a served generator is, travelling inside its ``config.pbtxt``.

The exporter writes it, the client reads it, and nothing else carries facts about a model. In
``config.pbtxt`` it is the JSON text of the parameter ``galatea``.
"""

from __future__ import annotations

import json
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar

from galatea.errors import InvalidInput

__all__ = [
    "CARD_PARAMETER",
    "Input",
    "Metric",
    "ModelCard",
    "Output",
    "Parity",
    "Preparation",
    "ValueRange",
]

CARD_PARAMETER = "galatea"
SCHEMA = 1

T = TypeVar("T")

Task = Literal[
    "unconditional", "class-conditional", "image-to-image", "text-to-image", "extractor"
]  # fmt: skip


@dataclass(frozen=True)
class Input:
    """One input of the public model: one value per sample (``[1]``), or the picture ``source``.

    A class label has ``labels``, the names of the values 0, 1, …; a text may have ``choices``, the
    only ones that are valid; other conditions have a range. ``default`` None means that the caller
    must choose, or, where there are both a ``minimum`` and a ``maximum``, that the client may draw
    a value from them by the seed. A source has the ``shape`` [H, W, C] without the batch, -1 for a
    free axis, and ``channels``, what each channel means.
    """

    name: str
    dtype: Literal["INT64", "INT32", "FP32", "UINT8", "BYTES"]
    description: str = ""
    labels: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    default: int | float | str | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    shape: tuple[int, ...] = (1,)
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preparation:
    """What happens to a picture before it is sent as ``source``, in this order; upstream's way.

    The client does it; callers in other languages do the same.

    Attributes:
        scale: "levels" sends 8-bit levels 0 … 255 as uint8; "minmax" sends float32 and maps each
            picture's smallest value to 0 and its largest to 1 (each channel's, where they are
            other than 1 or 3), "minmax-after" does so after resizing.
        size: (height, width) to resize to; () keeps the picture's own.
        fit: "stretch" to exactly that size, or "inside" it, keeping the aspect ratio.
        resample: the filter of the resizing, by Pillow's names; "box" is the mean of an area.
        multiple: then height and width are cropped to a multiple of this; the top left stays.
        minimum: smaller sides than this are refused.
    """

    scale: Literal["levels", "minmax", "minmax-after"] = "levels"
    size: tuple[int, ...] = ()
    fit: Literal["stretch", "inside"] = "stretch"
    resample: Literal["nearest", "box", "bilinear", "bicubic"] = "bicubic"
    multiple: int = 1
    minimum: int = 1


@dataclass(frozen=True)
class Output:
    """One output: `shape` is [H, W, C] without the batch, `channels` what each channel means.

    A size of -1 is that of the source. A volume has the shape [X, Y, Z, C], and ``spacing``, the
    size of a voxel in mm along X, Y, Z.
    """

    name: str
    dtype: Literal["UINT8", "UINT16", "FP32"]
    shape: tuple[int, ...]
    channels: tuple[str, ...]
    spacing: tuple[float, ...] = ()


@dataclass(frozen=True)
class ValueRange:
    """How the network's floats become uint8: [low, high] → [0, 255], clamped.

    Where the image is float32: low → 0, high → 1, not clamped and not rounded.
    """

    low: float
    high: float
    rounding: Literal["truncate", "nearest"]


@dataclass(frozen=True)
class Metric:
    """A published or measured figure; comparable only at equal extractor, normalisation and n."""

    name: str
    value: float
    higher_is_better: bool
    extractor: str = ""
    normalisation: str = ""
    n: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Parity:
    """PyTorch against ONNX Runtime, over all batch sizes tried.

    ``max_abs`` is the most in units of the network's output, ``max_levels`` in uint8 levels,
    ``share_differing`` the share of uint8 values that differ at all, and ``psnr``, where it was
    measured, the images' peak signal-to-noise ratio in dB.
    """

    max_abs: float
    tolerance: float
    max_levels: int
    share_differing: float
    batches: tuple[int, ...]
    runtime: str
    tolerance_reason: str = ""
    psnr: float | None = None


@dataclass(frozen=True)
class ModelCard:
    """Everything a user or a client needs to know about one version of a served generator.

    ``intended_use`` says what it may be used for, ``limitations`` what it is known to do badly.
    ``generates`` and ``tags`` are words that a search finds; ``year`` is that of publication, and
    ``catalogue_id`` the entry of the catalogue that the model was imported by. ``parity`` is of the
    graphs one by one, ``parity_sampling`` of some steps of a diffusion model from noise to image,
    and ``parity_fp16`` of the graphs in float16, where there are some.
    """

    name: str
    version: int
    family: str
    task: Task
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    title: str = ""
    description: str = ""
    intended_use: str = ""
    limitations: str = ""
    modality: str = ""
    organ: str = ""
    generates: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    year: int | None = None
    catalogue_id: str = ""
    training_dataset: str = ""
    licence: str = ""
    doi: str = ""
    citation: str = ""
    source: str = ""
    checkpoint_sha256: str = ""
    configuration: dict[str, Any] = field(default_factory=dict)
    value_range: ValueRange | None = None
    preparation: Preparation | None = None
    noise: str = ""
    metrics: tuple[Metric, ...] = ()
    parity: Parity | None = None
    parity_sampling: Parity | None = None
    parity_fp16: Parity | None = None
    graphs: dict[str, str] = field(default_factory=dict)
    exporter: str = ""
    schema: int = SCHEMA

    @property
    def image(self) -> Output:
        """The output ``image``."""
        return self._output("image")

    @property
    def mask(self) -> Output | None:
        """The output ``mask``, where the generator makes one."""
        return next((output for output in self.outputs if output.name == "mask"), None)

    @property
    def source_picture(self) -> Input | None:
        """The input ``source``, where the model translates pictures."""
        return next((entry for entry in self.inputs if entry.name == "source"), None)

    @property
    def label(self) -> Input | None:
        """The class label, where the generator is class-conditional."""
        return next((entry for entry in self.inputs if entry.name == "label"), None)

    @property
    def steps(self) -> Input | None:
        """The number of denoising steps, where the generator is a diffusion model."""
        return next((entry for entry in self.inputs if entry.name == "steps"), None)

    def _output(self, name: str) -> Output:
        return next(output for output in self.outputs if output.name == name)

    def to_dict(self) -> dict[str, Any]:
        """The card as plain JSON types."""
        plain: dict[str, Any] = json.loads(self.to_json())
        return plain

    def to_json(self) -> str:
        """The card as one line of JSON, equal bytes for equal cards."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Reads a card.

        Raises:
            InvalidInput: not a card, or of a schema that this version of galatea does not know.
        """
        try:
            plain = json.loads(text)
            schema = plain.get("schema")
            if schema != SCHEMA:
                raise InvalidInput(
                    f"the model card has schema {schema!r}, this galatea reads schema {SCHEMA}",
                    "run: pip install --upgrade galatea",
                )
            return from_plain(cls, plain)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"the model card cannot be read: {error}", "export the model again"
            ) from error


def from_plain(kind: type[T], value: Any) -> T:
    """Builds the dataclass `kind` from plain JSON or TOML types.

    Raises:
        TypeError: an unknown or missing field, or a value of the wrong type; it is named.
    """
    hints = typing.get_type_hints(kind)
    if not isinstance(value, dict):
        raise TypeError(f"{kind.__name__} is {value!r}, not a table")
    known = [entry.name for entry in fields(typing.cast("Any", kind))]
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise TypeError(f"{kind.__name__} has no field {unknown[0]!r}; it has {', '.join(known)}")
    return kind(**{key: _convert(hints[key], entry, key) for key, entry in value.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        choices = [entry for entry in arguments if entry is not type(None)]
        exact = [entry for entry in choices if type(value) is entry]
        return _convert((exact or choices)[0], value, where)
    if origin is Literal:
        if value not in arguments:
            raise TypeError(f"{where} is {value!r}, not one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{where} is {value!r}, not a list")
        return tuple(_convert(arguments[0], entry, where) for entry in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise TypeError(f"{where} is {value!r}, not a table")
        return {str(key): _convert(arguments[1], entry, where) for key, entry in value.items()}
    if is_dataclass(hint) and isinstance(hint, type):
        return from_plain(hint, value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TypeError(f"{where} is {value!r}, not of type {hint.__name__}")
    return value
