"""Variants of a release that a machine adds to it: tuned configurations and TensorRT engines.

They lie beside the release's own files, which never change, and have a manifest of their own::

    <name>/<version>/local/<variant>.json      what it is, and sha256 of its files; written last
    <name>/<version>/local/<variant>.pbtxt     a configuration of the public model
    <name>.<stage>/<version>/local/<variant>.pbtxt
    <name>.<stage>/<version>/model.….plan      where the variant has engines

While their version is the active one, the configurations are copied to
``<model>/configs/<variant>.pbtxt``, where Triton looks for a variant.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from galatea._files import write_atomically
from galatea.errors import InvalidInput, MachineError, RepositoryError

__all__ = [
    "FOLDER", "LocalVariant", "add", "check_name", "check_writable", "local_variants", "remove",
    "stray_copies",
]  # fmt: skip

FOLDER = "local"
ENGINE = ".plan"  # of files beside a graph, where Triton wants them
SCHEMA = 1
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class LocalVariant:
    """One variant that was added to one version of a public model.

    Attributes:
        root: the repository.
        name: the public model.
        variant: what ``--model-config`` calls it.
        files: path below the repository → (bytes, sha256).
        facts: how it was made and for what machine, as plain JSON; ``engines`` lists what fits
            one kind of GPU alone.
    """

    root: Path
    name: str
    version: int
    variant: str
    files: dict[str, tuple[int, str]]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def manifest(self) -> str:
        """Path of its manifest, below the repository."""
        return f"{self.name}/{self.version}/{FOLDER}/{self.variant}.json"

    def copies(self) -> dict[str, str]:
        """Path above the version folder → path of the configuration it is a copy of.

        The public model comes last.
        """
        sources = [file for file in self.files if file.split("/")[2] == FOLDER]
        sources.sort(key=lambda file: (file.split("/")[0] == self.name, file))
        return {f"{file.split('/')[0]}/configs/{self.variant}.pbtxt": file for file in sources}


def check_name(variant: str, released: set[str]) -> None:
    """A name that a local variant may have.

    Raises:
        InvalidInput: it is no name, or the release has a variant of this name itself.
    """
    if not NAME.fullmatch(variant):
        raise InvalidInput(
            f"{variant!r} is no name of a variant",
            "use lower-case letters, digits, '-' and '_', at most 63, starting with no sign",
        )
    if variant in released:
        raise InvalidInput(
            f"{variant!r} is a variant of the release, and releases never change",
            "choose another name",
        )


def check_writable(root: Path, name: str, version: int) -> None:
    """A variant can be added to this version; to know before hours are spent on it.

    Raises:
        MachineError: it cannot.
    """
    folder = root / name / str(version)
    if not os.access(folder, os.W_OK):
        raise MachineError(
            f"{folder}: cannot be written", "check the permissions of the repository"
        )


def local_variants(
    root: Path, name: str, version: int, models: tuple[str, ...]
) -> list[LocalVariant]:
    """The local variants of one version, by name.

    Args:
        models: the Triton models of the release, in whose version folders files may lie.

    Raises:
        RepositoryError: a manifest cannot be read, or names files of something else.
    """
    folder = root / name / str(version) / FOLDER
    return [_read(root, name, version, models, path) for path in sorted(folder.glob("*.json"))]


def add(
    root: Path,
    name: str,
    version: int,
    variant: str,
    contents: Mapping[str, bytes],
    facts: Mapping[str, Any],
    *,
    active: bool,
    kept: Mapping[str, tuple[int, str]] | None = None,
) -> LocalVariant:
    """Writes a variant, in the place of one of the same name.

    Killed in between, it leaves files that :func:`galatea.repository.verify` names, and that
    adding it again replaces.

    Args:
        contents: path below the repository → content, all in version folders of the release.
        active: whether the version is the one that Triton serves.
        kept: files of the variant that is replaced, which belong to this one too.

    Raises:
        MachineError: the repository cannot be written.
        RepositoryError: the manifest of the variant that is replaced cannot be read.
    """
    digests = {
        path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in contents.items()
    } | dict(kept or {})
    made = LocalVariant(root, name, version, variant, digests, dict(facts))
    manifest = {
        "schema": SCHEMA,
        "name": name,
        "version": version,
        "variant": variant,
        "files": {
            path: {"bytes": size, "sha256": sha256}
            for path, (size, sha256) in sorted(digests.items())
        },
        "facts": made.facts,
    }
    before = root / made.manifest
    models = tuple({path.split("/")[0] for path in digests})
    replaced = _read(root, name, version, models, before).files if before.is_file() else {}
    try:
        before.unlink(missing_ok=True)
        for path in {*replaced} - {*digests}:
            (root / path).unlink(missing_ok=True)
        for path, data in contents.items():
            write_atomically(root / path, data)
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        write_atomically(root / made.manifest, text.encode())
        for copy, source in made.copies().items() if active else ():
            write_atomically(root / copy, contents[source])
    except OSError as error:
        raise _unwritable(root, variant, error) from error
    return made


def remove(variant: LocalVariant, *, active: bool) -> None:
    """Takes a variant out of the repository: what is served, then its manifest, then its files.

    Args:
        active: whether its version is the one that Triton serves.

    Raises:
        MachineError: a file cannot be removed.
    """
    served = variant.copies() if active else ()
    try:
        for path in (*served, variant.manifest, *variant.files):
            (variant.root / path).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(variant.root, variant.variant, error) from error


def _read(root: Path, name: str, version: int, models: tuple[str, ...], path: Path) -> LocalVariant:
    try:
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
        files = {
            str(file): (int(entry["bytes"]), str(entry["sha256"]))
            for file, entry in manifest["files"].items()
        }
        made = LocalVariant(
            root, name, version, str(manifest["variant"]), files, dict(manifest["facts"])
        )
        if root / made.manifest != path or (manifest["name"], manifest["version"]) != (
            name,
            version,
        ):
            raise ValueError("it is of another release or variant")
        outside = [file for file in files if not _is_inside(file, version, models)]
        if outside:
            raise ValueError(f"{outside[0]!r} is no file of a local variant")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RepositoryError(
            f"{path}: no manifest can be read from it ({error})",
            "delete it, and make the variant again",
        ) from error
    return made


def _unwritable(root: Path, variant: str, error: OSError) -> MachineError:
    return MachineError(
        f"{root}: the variant {variant!r} cannot be written: {error.strerror or error}",
        "check the permissions of the repository and the room on its disk",
    )


def _is_inside(file: str, version: int, models: tuple[str, ...]) -> bool:
    """Whether it is a configuration or an engine of a local variant, and no file of the release."""
    parts = file.split("/")
    ours = parts[2:3] == [FOLDER] if len(parts) == 4 else file.endswith(ENGINE)
    return (
        ours
        and len(parts) in (3, 4)
        and parts[0] in models
        and parts[1] == str(version)
        and not {"", ".", ".."} & set(parts)
    )


def stray_copies(root: Path, models: tuple[str, ...], known: set[str]) -> Iterator[str]:
    """Paths of configurations above the version folders that no release and no variant has."""
    for model in models:
        for path in sorted((root / model / "configs").glob("*.pbtxt")):
            file = path.relative_to(root).as_posix()
            if file not in known:
                yield file
