"""Where publications lie: folders, object stores, model hubs, registries."""

from __future__ import annotations

from pathlib import Path

from galatea.errors import InvalidInput
from galatea_exporter.publishing.places.folder import Folder
from galatea_exporter.publishing.places.place import Place

__all__ = ["Folder", "Place", "open_place"]

KINDS = "give a folder, s3://BUCKET/PREFIX, oci://REGISTRY/NAME:TAG or hf://OWNER/NAME"


def open_place(url: str | Path) -> Place:
    """The place of a folder's path or of a URL.

    Raises:
        InvalidInput: there is no such kind of place.
        MachineError: the package for it is not installed.
    """
    scheme, colon, rest = str(url).partition("://")
    if not colon or isinstance(url, Path):
        return Folder(Path(url))
    if scheme == "file":
        return Folder(Path(rest))
    if scheme == "zenodo":
        raise InvalidInput(
            f"{url}: archives of Zenodo are not read from there",
            "download the archive, unzip it, and name the folder",
        )
    if scheme == "hf":
        from galatea_exporter.publishing.places.hub import Hub

        return Hub(rest)
    if scheme == "oci":
        from galatea_exporter.publishing.places.registry import Registry

        return Registry(rest)
    if not rest:
        raise InvalidInput(f"{url!r} names no place", KINDS)
    from galatea_exporter.publishing.places.store import Store

    return Store(str(url))
