"""Features of images by a served extractor, and a cache of them by digest."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea._files import write_atomically
from galatea.client import Client
from galatea.errors import InvalidInput, MachineError
from galatea.evaluation._intensity import Intensity
from galatea.evaluation._sources import Source

__all__ = ["Cache", "Extractor", "Features", "default_cache"]

log = logging.getLogger(__name__)

SCHEMA = 1
BATCH_BYTES = 32 << 20  # of images that are sent together
BATCH = 64

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Features:
    """What an extractor makes of the images of a source, in their order.

    Attributes:
        features: float32 [n, d].
        logits: float32 [n, classes], or None where the extractor has none.
        names: of the images.
        labels: their classes, "" where none is known.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32] | None
    names: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.features)

    def of(self, label: str) -> Features:
        """Those of one class."""
        rows = np.array([own == label for own in self.labels])
        return Features(
            self.features[rows],
            None if self.logits is None else self.logits[rows],
            tuple(name for name, own in zip(self.names, rows, strict=True) if own),
            (label,) * int(rows.sum()),
        )


class Extractor:
    """A served model of the task "extractor".

    Raises:
        InvalidInput: the model is none.
        ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError: see
            :mod:`galatea.errors`.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.card = client.model(name)
        if self.card.task != "extractor":
            raise InvalidInput(
                f"{name} makes images ({self.card.task}) and no features",
                "name a model that galatea extractor import made",
            )
        self._outputs = [output.name for output in self.card.outputs]

    def facts(self) -> dict[str, Any]:
        """What it is, as plain JSON types."""
        card = self.card
        return {
            "name": card.name,
            "version": card.version,
            "arch": card.family,
            "weights": f"sha256:{card.checkpoint_sha256}",
            "graphs": dict(card.graphs),
            "configuration": dict(card.configuration),
        }

    def key(self, source: Source, intensity: Intensity) -> str:
        """What the features of a source are known by in a cache."""
        decisive = [SCHEMA, source.digest, str(intensity), dict(self.card.graphs)]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def extract(
        self, source: Source, intensity: Intensity, progress: Progress = lambda images: None
    ) -> Features:
        """The features of all images of a source.

        Args:
            progress: called with the number of images that are newly done.

        Raises:
            InvalidInput: an image cannot be read or does not suit, or there is none.
            ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError: see
                :mod:`galatea.errors`.
        """
        made: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self._outputs}
        names: list[str] = []
        labels: list[str] = []
        for batch in _batches(source, intensity, names, labels):
            reply = self._client._session.run(
                self.card.name, self.card.version, {"image": batch}, self._outputs, self.card
            )
            for name, array in reply.items():
                made[name].append(array)
            progress(len(batch))
        if not names:
            raise InvalidInput(f"{source.title}: there are no images", "give some")
        arrays = {name: np.concatenate(parts) for name, parts in made.items()}
        return Features(arrays["features"], arrays.get("logits"), tuple(names), tuple(labels))


class Cache:
    """Features in files, by what decides them; ``None`` as the folder keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str) -> Features | None:
        """What was kept; None where nothing was, or where it is damaged."""
        if self._folder is None:
            return None
        try:
            with self._path(key).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                logits = arrays.get("logits")
                names, labels = (tuple(arrays[key].tolist()) for key in ("names", "labels"))
                return Features(arrays["features"], logits, names, labels)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            log.warning("%s cannot be read and is made again: %s", self._path(key), error)
            return None

    def put(self, key: str, features: Features) -> None:
        """Keeps features.

        Raises:
            MachineError: the folder cannot be written.
        """
        if self._folder is None:
            return
        arrays: dict[str, NDArray[Any]] = {
            "features": features.features,
            "names": np.array(features.names),
            "labels": np.array(features.labels),
        }
        if features.logits is not None:
            arrays["logits"] = features.logits
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        try:
            write_atomically(self._path(key), buffer.getbuffer(), durable=False)
        except OSError as error:
            raise MachineError(
                f"{self._path(key)}: cannot be written: {error.strerror or error}",
                "name another folder with --cache, or give --no-cache",
            ) from error

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}.npz"


def default_cache() -> Path:
    """Where features are kept: below ``XDG_CACHE_HOME``, by default ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "galatea" / "features"


def _batches(
    source: Source, intensity: Intensity, names: list[str], labels: list[str]
) -> Iterator[NDArray[np.uint8]]:
    """Runs of images of one size, uint8 [b, H, W, 3]; what they are called is added to lists."""
    run: list[NDArray[np.uint8]] = []
    for item in source.items():
        pixels = intensity.apply(item.picture)
        full = len(run) == BATCH or (run and len(run) * run[0].size >= BATCH_BYTES)
        if run and (full or run[0].shape != pixels.shape):
            yield np.stack(run)
            run = []
        run.append(pixels)
        names.append(item.picture.name)
        labels.append(item.label or "")
    if run:
        yield np.stack(run)
