"""Reading checkpoints without ever executing what is in them.

Read are PyTorch's zip and pre-1.6 formats, through ``torch.load(weights_only=True)``, and
safetensors.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from galatea.errors import ExportError

State = Mapping[str, Tensor]

SHOWN = 6  # names listed in an error before "and n more"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file as read: nested containers of tensors, numbers and strings."""

    path: Path
    sha256: str
    content: Any

    def state(self, containers: Sequence[str] = ()) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """The generator's tensors, and the names of what the file holds beside them.

        Args:
            containers: keys under which the generator's state dict may lie, the best first; a bare
                state dict is always accepted. A ``module.`` prefix of DataParallel is dropped.

        Raises:
            ExportError: no state dict is found.
        """
        content = self.content
        beside: tuple[str, ...] = ()
        if isinstance(content, Mapping) and not _is_state(content):
            key = next((key for key in containers if _is_state(content.get(key))), None)
            if key is None:
                looked = f"under {', '.join(map(repr, containers))}" if containers else "at the top"
                raise ExportError(
                    f"{self.path}: no state dict {looked}; the file holds {listed(content)}",
                    "name the right family: galatea families",
                )
            beside = tuple(str(other) for other in content if other != key)
            content = content[key]
        if not _is_state(content):
            raise ExportError(
                f"{self.path}: holds a {type(content).__name__}, not a state dict of tensors",
                "save the generator with torch.save(generator.state_dict(), path)",
            )
        return {str(key).removeprefix("module."): value for key, value in content.items()}, beside


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint file; nothing in it is executed.

    Raises:
        ExportError: missing, truncated, of an unknown format, or a pickle that asks for code.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            start = file.read(16)
    except OSError as error:
        raise ExportError(
            f"{path}: {error.strerror or error}", "check the path of the checkpoint"
        ) from error
    is_safetensors = start[8:9] == b"{" and path.suffix == ".safetensors"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch speaks of its own storage classes here
            content = (
                load_file(path)
                if is_safetensors
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except (
        pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError,
        AttributeError, IndexError, TypeError, OSError, UnicodeDecodeError,
    ) as error:  # fmt: skip
        raise _refusal(path, error) from error
    return Checkpoint(path, digest, content)


def _refusal(path: Path, error: Exception) -> ExportError:
    """Why torch refused: code in the pickle, or a damaged file."""
    asked = re.search(r"(?:GLOBAL|Unsupported class|Unsupported operand) (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and asked:
        return ExportError(
            f"{path}: the pickle asks for {asked[1]}, which is code, and nothing was executed",
            "export only plain tensors: torch.save(generator.state_dict(), path)",
        )
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return ExportError(
        f"{path}: damaged, truncated, or no PyTorch or safetensors file ({reason[:120]})",
        "download it again and compare its size and checksum",
    )


def load_strictly(module: nn.Module, state: State, path: Path, family: str) -> None:
    """Copies `state` into `module`; every name and every shape must agree.

    Raises:
        ExportError: names what is missing, left over, or of another shape.
    """
    expected = module.state_dict()
    problems = [
        *_names("is missing", [key for key in expected if key not in state]),
        *_names("is left over", [key for key in state if key not in expected]),
        *_names(
            "has another shape",
            [
                f"{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}"
                for key in expected
                if key in state and state[key].shape != expected[key].shape
            ],
        ),
    ]
    if problems:
        raise ExportError(
            f"{path}: does not fit the family {family}: {'; '.join(problems)}",
            "name the right family or options: galatea families",
        )
    module.load_state_dict(dict(state))
    module.eval()


def listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    """The first names of many, for an error message."""
    shown = [str(name) for name in list(names)[:SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "") if shown else "nothing"


def _names(what: str, names: Sequence[str]) -> list[str]:
    return [f"{what}: {listed(names)}"] if names else []


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(entry, Tensor) for entry in value.values())
    )
