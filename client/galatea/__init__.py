"""Synthetic medical images from a Triton server.

>>> from galatea import Client
>>> with Client("localhost:8001") as client:
...     batch = client.sample("phantom", 64, seed=7)
>>> batch.images.shape
(64, 128, 128, 1)
"""

from galatea._wire.security import Security
from galatea.aio import AsyncClient
from galatea.card import Input, Metric, ModelCard, Output, Parity, ValueRange
from galatea.client import Client
from galatea.errors import (
    DeadlineExceeded,
    ExportError,
    GalateaError,
    InvalidInput,
    MachineError,
    ModelUnavailable,
    RepositoryError,
    ServerError,
    ServerUnreachable,
)
from galatea.samples import Samples

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Client",
    "DeadlineExceeded",
    "ExportError",
    "GalateaError",
    "Input",
    "InvalidInput",
    "MachineError",
    "Metric",
    "ModelCard",
    "ModelUnavailable",
    "Output",
    "Parity",
    "RepositoryError",
    "Samples",
    "Security",
    "ServerError",
    "ServerUnreachable",
    "ValueRange",
]
