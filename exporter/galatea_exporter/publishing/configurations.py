"""The configurations that a release gives its Triton models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from galatea.repository import Release

__all__ = ["configuration", "configuration_of"]


def configuration(release: Release, model: str) -> Any:
    """ModelConfig protobuf of a model of the release.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    return configuration_of(release.root / model / str(release.version) / "config.pbtxt")


def configuration_of(path: Path) -> Any:
    """ModelConfig protobuf of a file; errors as of :func:`configuration`."""
    try:
        return text_format.Parse(path.read_text("utf-8"), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"{path}: {error}") from error
