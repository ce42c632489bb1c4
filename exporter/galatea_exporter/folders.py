"""The folders of one model that diffusers and transformers write: weights and texts by known names.

Which of several files with the same weights is taken is decided here; the weights themselves are
read by :mod:`galatea_exporter.checkpoint`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from galatea.errors import ExportError

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
ENDINGS = (".safetensors", ".bin")  # the better one first
VARIANTS = ("", ".fp16")  # others, as non_ema, are other weights
TEXTS = (
    "config.json",
    "scheduler_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def weights_of(folder: Path) -> list[str]:
    """Names of the files that together hold the weights, none in a folder without weights.

    Raises:
        ExportError: the index of weights in several files is damaged.
    """
    for variant in VARIANTS:
        for ending in ENDINGS:
            for stem in STEMS:
                whole = f"{stem}{variant}{ending}"
                if (folder / whole).is_file():
                    return [whole]
                index = folder / f"{stem}{ending}.index{variant}.json"
                if index.is_file():
                    return _indexed(index)
    return []


def texts_of(folder: Path) -> list[str]:
    """Names of the configurations and vocabularies that are there."""
    return [name for name in TEXTS if (folder / name).is_file()]


def text_of(path: Path) -> str:
    """A text file.

    Raises:
        ExportError: it is not there, or no UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ExportError(
            f"{path}: {error.strerror or error}", "check the path of the checkpoint"
        ) from error
    except UnicodeDecodeError as error:
        raise ExportError(f"{path}: is no text ({error})", "download it again") from error


def read_config(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ExportError: it is not there, or holds none.
    """
    try:
        config = json.loads(text_of(path))
    except ValueError as error:
        raise ExportError(f"{path}: is no JSON ({error})", "download it again") from error
    if not isinstance(config, dict):
        raise ExportError(f"{path}: holds no names", "download it again")
    return config


def _indexed(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        if not names or any(name != Path(name).name for name in names):
            raise ValueError("it names no files of its own folder")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ExportError(
            f"{index}: is no index of weights ({error})", "download it again"
        ) from error
    return names
