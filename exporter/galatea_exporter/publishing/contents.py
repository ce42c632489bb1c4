"""Whether a release holds anything that a server would execute, other than galatea's own code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

from galatea._pbtxt import read_config
from galatea.repository import Release
from galatea_exporter.sampler.contexts import TOKENIZER

__all__ = ["OLD_SAMPLER", "code"]

PLAIN = re.compile(
    rf"model(\.fp16)?\.onnx(\.data)?|config\.pbtxt|configs/[\w.-]+\.pbtxt|{re.escape(TOKENIZER)}"
)
BACKENDS = ("", "onnxruntime", "python")
OLD_SAMPLER = "is not the sampler of this galatea, and servers execute it"


def code(release: Release, *, any_sampler: bool = False) -> Iterator[tuple[str, str]]:
    """Files that are executed or unpickled, or that let a server do it: path and reason.

    Args:
        any_sampler: the sampler may be that of another galatea.
    """
    own = {
        entry.name: entry.read_bytes()
        for entry in files("galatea_exporter.sampler").iterdir()
        if entry.is_file() and entry.name != "__init__.py"
    }
    for file in release.files:
        name, path = file.split("/", 2)[2], release.root / file
        if not path.is_file():
            continue
        if file.endswith(".pbtxt"):
            for reason in _calls(release, file):
                yield file, reason
        if PLAIN.fullmatch(name):
            continue
        if name not in own:
            yield file, "belongs to no release of galatea"
        elif not any_sampler and path.read_bytes() != own[name]:
            yield file, OLD_SAMPLER


def _calls(release: Release, file: str) -> Iterator[str]:
    """What a configuration has servers execute besides graphs and the sampler."""
    try:
        config = read_config(release.root / file)
    except (OSError, ValueError) as error:
        yield f"cannot be read ({error})"
        return
    if config.backend not in BACKENDS:
        yield f"asks for the backend {config.backend!r}"
    if config.model_operations.op_library_filename:
        yield "loads a library of operators"
    python = config.backend == "python"
    names = ("", "model.py") if python else ("", "model.onnx", "model.fp16.onnx")
    if config.default_model_filename not in names:
        yield f"serves the file {config.default_model_filename!r}"
    if python and (more := sorted({*config.parameters} - {"galatea", "sampler"})):
        yield f"sets {more[0]!r} of the Python backend"
