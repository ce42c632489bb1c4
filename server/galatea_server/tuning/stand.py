"""A server with one configuration of one generator, to be measured and asked for images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea._pbtxt import config_text
from galatea.client import Client
from galatea.load import Load, closed_loop, server_version, synthetic
from galatea.repository import Release
from galatea_server.server import EmbeddedServer

__all__ = ["Images", "Stand"]

EXIT_SECONDS = 2  # for requests of a measurement that is given up

Images = dict[str, NDArray[Any]]


class Stand:
    """The real server on a repository of its own, whose version folders are those of the release.

    Args:
        folder: an empty one for that repository.
        release: the generator.
        configs: ModelConfig of each of its Triton models.
    """

    def __init__(self, folder: Path, release: Release, configs: Mapping[str, Any]) -> None:
        self.release = release
        for model, config in configs.items():
            (folder / model).mkdir(parents=True)
            (folder / model / "config.pbtxt").write_bytes(config_text(config))
            version = str(release.version)
            source = (release.root / model / version).resolve()
            (folder / model / version).symlink_to(source, target_is_directory=True)
        self.server = EmbeddedServer(folder, exit_timeout=EXIT_SECONDS)

    def __enter__(self) -> Stand:
        """Starts the server.

        Raises:
            RepositoryError: Triton refuses the configuration.
            GalateaError: as :meth:`EmbeddedServer.start`.
        """
        self.server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.server.stop()

    def triton(self) -> str:
        """Name and version of the server."""
        with Client(self.server.grpc_url) as client:
            return server_version(client)

    def measure(
        self, batch: int, callers: int, seconds: float, conditions: Mapping[str, Any]
    ) -> Load:
        """What the generator gives under a load.

        Raises:
            GalateaError: no request succeeded.
        """
        return closed_loop(
            self._client, self.release.name,
            batch=batch, callers=callers, seconds=seconds, warmup=seconds / 4,
            metrics_url=f"http://{self.server.metrics_url}/metrics", **conditions,
        )  # fmt: skip

    def images(self, n: int, conditions: Mapping[str, Any]) -> Images:
        """The outputs of the seeds 0 … n − 1, or of as many synthetic pictures; by name.

        Raises:
            GalateaError: whatever the client raises.
        """
        with self._client() as client:
            card = client.model(self.release.name)
            if card.source_picture is not None:
                pictures = synthetic(card, n, seed=0)
                made = client.translate(card.name, pictures, seed=0, **conditions)
            else:
                made = client.sample(card.name, n, seed=0, **conditions)
        images: Images = {"image": np.asarray(made.images)}
        if card.mask is not None and made.masks is not None:
            images["mask"] = np.asarray(made.masks)
        return images

    def _client(self) -> Client:
        return Client(self.server.grpc_url, patience=0.0)
