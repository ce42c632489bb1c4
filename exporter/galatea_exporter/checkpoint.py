"""Reading checkpoints without ever executing what is in them.

Read are safetensors and PyTorch's zip and pre-1.6 formats, by ``torch.load(weights_only=True)`` or,
for families whose upstream pickles whole modules, by :mod:`galatea_exporter.pickles`.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from galatea.errors import ExportError
from galatea_exporter.folders import texts_of, weights_of
from galatea_exporter.pickles import PickledModule, read_pickled

State = Mapping[str, Tensor]

TEXTS = (".json", ".txt")
SHOWN = 6  # names listed in an error before "and n more"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: nested containers of tensors, numbers and strings.

    Attributes:
        path: the file, or the folder of several.
        sha256: of the file; of a folder, that of the lines ``<sha256>  <name>`` of its files.
        content: what the file holds; of a folder, what each file holds by its name without ending,
            and what the weights of each of its folders hold by the folder's name. Texts are hashed
            and not held.
    """

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
        return {key.removeprefix("module."): value for key, value in _tensors(content)}, beside

    def flat(self) -> dict[str, Tensor]:
        """Every tensor and number of all files, its name the way to it: ``file.key.0.weight``."""
        return dict(_tensors(self.content))


def read_checkpoint(
    path: Path, files: Sequence[str] = (), modules: tuple[str, ...] = ()
) -> Checkpoint:
    """Reads a checkpoint; nothing in it is executed.

    Args:
        path: the file, or the folder that holds `files`.
        files: names of the files of a checkpoint that has several; one of them may be named in
            place of the folder. A name that ends with a slash is a folder of one model: its weights
            and texts, as :mod:`galatea_exporter.folders` finds them.
        modules: patterns of the classes whose pickled instances are read as their tensors.

    Raises:
        ExportError: missing, truncated, of an unknown format, or a pickle that asks for code.
    """
    if not files:
        return Checkpoint(path, _sha256(path), _read(path, modules))
    folder = path.parent if path.name in files and not path.is_dir() else path
    lines: list[str] = []
    content: dict[str, Any] = {}
    for key, file in (part for name in files for part in _parts(folder, name)):
        lines.append(f"{_sha256(folder / file)}  {file}\n")
        if Path(file).suffix not in TEXTS:
            read = _read(folder / file, modules)
            # Weights that are cut into several files join under the name of their folder.
            content[key] = {**content[key], **dict(_tensors(read))} if key in content else read
    return Checkpoint(folder, hashlib.sha256("".join(lines).encode()).hexdigest(), content)


def _parts(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """(key in the content, name) of the files that a name of a checkpoint's folder stands for."""
    if not name.endswith("/"):
        yield Path(name).stem, name
        return
    found = [*weights_of(folder / name), *texts_of(folder / name)]
    if not found:
        raise ExportError(
            f"{folder / name}: no such folder, or no weights and no configuration in it",
            "check the path of the checkpoint",
        )
    for file in found:
        yield name[:-1], name + file


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ExportError(
            f"{path}: {error.strerror or error}", "check the path of the checkpoint"
        ) from error


def _read(path: Path, modules: tuple[str, ...]) -> Any:
    try:
        with path.open("rb") as file:
            start = file.read(16)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch speaks of its own storage classes here
            if start[8:9] == b"{" and path.suffix == ".safetensors":
                return load_file(path)
            if start.startswith(b"PK"):
                _check_claims(path)
            if modules:
                return read_pickled(path, modules)
            return torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, LookupError,
        AttributeError, TypeError, OSError, MemoryError, RecursionError, OverflowError,
        ImportError, AssertionError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise _refusal(path, error) from error


def _check_claims(path: Path) -> None:
    """PyTorch's zip files are not compressed: what they claim to hold is what they are long.

    Raises:
        ValueError: the file claims more than it has.
    """
    with zipfile.ZipFile(path) as archive:
        claimed, there = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
    if claimed > there:
        raise ValueError(f"claims {claimed} bytes of content and has {there}")


def _refusal(path: Path, error: Exception) -> ExportError:
    """Why torch refused: code in the pickle, or a damaged file."""
    asked = re.search(r"(?:GLOBAL|Unsupported class) (\S+)", str(error))
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
    if isinstance(value, PickledModule):
        return True
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(entry, Tensor) for entry in value.values())
    )


def _tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of everything in nested containers that is a tensor or a number."""
    if isinstance(value, PickledModule):
        yield from value.state_dict(prefix)
    elif isinstance(value, Mapping | list | tuple):
        entries = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, entry in entries:
            yield from _tensors(entry, f"{prefix}{key}" + ("" if _is_leaf(entry) else "."))
    elif _is_leaf(value):
        yield prefix, torch.as_tensor(value)


def _is_leaf(value: Any) -> bool:
    return isinstance(value, Tensor | int | float)
