"""``config.pbtxt``: a Triton model's configuration as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

__all__ = ["config_text", "read_config"]


def read_config(path: Path) -> Any:
    """The ModelConfig protobuf of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no configuration.
    """
    try:
        return text_format.Parse(path.read_text("utf-8"), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(str(error)) from error


def config_text(config: Any) -> bytes:
    """A configuration as it is written; equal bytes for equal configurations."""
    text: str = text_format.MessageToString(config, as_utf8=True)
    return text.encode()
