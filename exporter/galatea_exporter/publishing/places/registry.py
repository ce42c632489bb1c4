"""A publication as an artifact of an OCI registry: a layer for each file, its path as the title.

``oras pull`` gives the same files.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from galatea.errors import InvalidInput, MachineError, RepositoryError, ServerUnreachable
from galatea.extras import needs_extra
from galatea_exporter.publishing.places.place import Place
from galatea_exporter.release import Content, put, sha256, size

__all__ = ["Registry"]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.galatea.release.v1"
EMPTY = "application/vnd.oci.empty.v1+json"
FILE = "application/octet-stream"
TITLE = "org.opencontainers.image.title"
HERE = ("localhost", "127.0.0.1")  # registries without TLS, as Docker has it


class Registry(Place):
    """``REGISTRY/NAME:TAG``; the tag appears when all files are there.

    Credentials are those of ``docker login`` and ``oras login``.

    Raises:
        InvalidInput: that names no artifact.
        MachineError: oras is not installed.
    """

    def __init__(self, name: str) -> None:
        self.url = f"oci://{name}"
        host, slash, rest = name.partition("/")
        if not slash or ":" not in rest:
            raise InvalidInput(f"{self.url}: names no artifact", "give oci://REGISTRY/NAME:TAG")
        with needs_extra("oci"):
            import oras.container
            import oras.provider
        self._registry: Any = oras.provider.Registry(
            hostname=host, insecure=host.partition(":")[0] in HERE
        )
        self._container: Any = oras.container.Container(name)

    def read(self, path: str) -> bytes | None:
        with self._told("read"):
            digest = self._layers.get(path)
            if digest is None:
                return None
            reply = self._registry.get_blob(self._container, digest)
            reply.raise_for_status()
            content: bytes = reply.content
            return content

    def fetch(self, path: str, target: Path) -> None:
        with self._told("read"):
            if path not in self._layers:
                raise RepositoryError(f"{self.url}: {path} is missing", "publish the release again")
            self._registry.download_blob(self._container, self._layers[path], str(target))

    def put(self, files: Mapping[str, Content]) -> None:
        with self._told("written"), tempfile.TemporaryDirectory() as scratch:
            self._registry.auth.load_configs(self._container)
            config = self._uploaded(b"{}", EMPTY, Path(scratch))
            layers = []
            for path, content in files.items():
                layer = self._uploaded(content, FILE, Path(scratch))
                layers.append({**layer, "annotations": {TITLE: path}})
            manifest = {
                "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT,
                "config": config, "layers": layers,
            }  # fmt: skip
            self._registry.upload_manifest(manifest, self._container).raise_for_status()

    @cached_property
    def _layers(self) -> dict[str, str]:
        """Digest of each file by its path; nothing where there is no such artifact."""
        self._registry.auth.load_configs(self._container)
        url = f"{self._registry.prefix}://{self._container.manifest_url()}"
        reply = self._registry.do_request(url, "GET", headers={"Accept": MANIFEST})
        if reply.status_code == 404:
            return {}
        reply.raise_for_status()
        layers = json.loads(reply.content).get("layers", [])
        return {layer.get("annotations", {}).get(TITLE): layer["digest"] for layer in layers}

    def _uploaded(self, content: Content, media_type: str, scratch: Path) -> dict[str, Any]:
        """The descriptor of a blob that is in the registry."""
        digest = sha256(content)
        path = content if isinstance(content, Path) else scratch / digest
        if not path.exists():
            put(path, content)
        layer = {"mediaType": media_type, "size": size(content), "digest": f"sha256:{digest}"}
        self._registry.upload_blob(str(path), self._container, layer).raise_for_status()
        return layer

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        import requests

        try:
            yield
        except requests.ConnectionError as error:
            raise ServerUnreachable(
                f"{self.url}: the registry does not answer: {error}", "check its address"
            ) from error
        except (requests.RequestException, OSError, ValueError) as error:
            raise MachineError(
                f"{self.url}: cannot be {done}: {error}",
                "check the name, and log in: docker login REGISTRY",
            ) from error
