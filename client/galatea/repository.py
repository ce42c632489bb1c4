"""Reading and checking a Triton model repository that galatea released into.

A release is a public model with its stages at one version::

    <name>/config.pbtxt                 what Triton serves now: a copy from the active version
    <name>/<version>/config.pbtxt       of this release, with the card inside
    <name>/<version>/manifest.json      sha256 of every file of the release
    <name>.<stage>/config.pbtxt, configs/<variant>.pbtxt     copies from the active version
    <name>.<stage>/<version>/model.onnx, config.pbtxt, configs/<variant>.pbtxt

The files of a release never change. Those above the version folders do, when another version
becomes the active one; and a machine may add variants of its own, see
:mod:`galatea.local_variants`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galatea._files import write_atomically
from galatea._pbtxt import read_config
from galatea.card import CARD_PARAMETER, ModelCard
from galatea.errors import GalateaError, RepositoryError
from galatea.local_variants import LocalVariant, local_variants, stray_copies
from galatea.tensorrt_engines import misfits

__all__ = ["MANIFEST", "Release", "activate", "find", "releases", "verify"]

MANIFEST = "manifest.json"
SCHEMA = 1
CARD = f'key: "{CARD_PARAMETER}"'  # how a configuration with a card is told


@dataclass(frozen=True)
class Release:
    """One version of one public model in a repository.

    Attributes:
        root: the repository.
        models: names of its Triton models, stages first, the public one last.
        files: path below the repository → (bytes, sha256).
    """

    root: Path
    name: str
    version: int
    models: tuple[str, ...]
    files: dict[str, tuple[int, str]]

    @property
    def folder(self) -> Path:
        """The public model's version folder."""
        return self.root / self.name / str(self.version)

    @property
    def size(self) -> int:
        """Bytes of all files of the release."""
        return sum(size for size, _ in self.files.values())

    @property
    def active(self) -> bool:
        """Whether Triton serves this version."""
        config = self.root / self.name / "config.pbtxt"
        return config.is_file() and config.read_bytes() == self._frozen("config.pbtxt")

    def card(self) -> ModelCard:
        """The model card of this version.

        Raises:
            RepositoryError: the configuration is missing or holds no card.
        """
        path = self.folder / "config.pbtxt"
        try:
            config = read_config(path)
            return ModelCard.from_json(config.parameters[CARD_PARAMETER].string_value)
        except (OSError, ValueError, GalateaError) as error:
            raise RepositoryError(
                f"{path}: no model card can be read from it ({error})",
                f"run: galatea repo verify --repository {self.root}",
            ) from error

    def to_json(self) -> bytes:
        """The manifest's bytes."""
        manifest = {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "models": list(self.models),
            "files": {
                path: {"bytes": size, "sha256": sha256}
                for path, (size, sha256) in sorted(self.files.items())
            },
        }
        return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()

    def served_copies(self) -> dict[str, str]:
        """Path above the version folder → path of the file it is a copy of."""
        copies = {}
        for path in self.files:
            model, version, *rest = path.split("/")
            if version == str(self.version) and rest[0] in ("config.pbtxt", "configs"):
                copies["/".join((model, *rest))] = path
        return copies

    def variants(self) -> set[str]:
        """Names of the variants that the release has itself."""
        paths = map(Path, self.files)
        return {path.stem for path in paths if path.parent.name == "configs"}

    def local(self) -> list[LocalVariant]:
        """Variants that were added to this version.

        Raises:
            RepositoryError: a manifest of one cannot be read.
        """
        return local_variants(self.root, self.name, self.version, self.models)

    def _frozen(self, name: str) -> bytes | None:
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None


def releases(root: Path) -> list[Release]:
    """All releases of a repository, by name and version.

    Raises:
        RepositoryError: the folder or a manifest cannot be read.
    """
    if not root.is_dir():
        raise RepositoryError(
            f"{root}: no such folder", "name the model repository with --repository"
        )
    found = [_read(root, path) for path in root.glob(f"*/*/{MANIFEST}")]
    return sorted(found, key=lambda release: (release.name, release.version))


def find(root: Path, name: str, version: int | None = None) -> Release:
    """One release; without a version the active one, else the newest.

    Raises:
        RepositoryError: there is none; the message lists what there is.
    """
    everything = releases(root)
    named = [release for release in everything if release.name == name]
    chosen = [
        release
        for release in named
        if (version is None and release.active) or release.version == version
    ] or ([] if version is not None else named[-1:])
    if not chosen:
        there = sorted({release.name for release in everything}) if not named else None
        raise RepositoryError(
            f"{root}: no release of {name!r}" + (f" with version {version}" if named else ""),
            f"it holds: {', '.join(there) or 'nothing'}"
            if there is not None
            else f"versions: {', '.join(str(release.version) for release in named)}",
        )
    return chosen[-1]


def verify(root: Path, name: str | None = None, variant: str | None = None) -> list[str]:
    """Checks every release (or those of one name) against its manifest, and what was added to it.

    Args:
        variant: that shall be served here: engines of other variants need not fit this machine, and
            those of this one need a GPU. None: where there is a GPU, all must fit it.

    Returns:
        One sentence for each thing that is wrong; none when all is well.

    Raises:
        RepositoryError: there is no such repository or release.
    """
    chosen = [release for release in releases(root) if name is None or release.name == name]
    if name is not None and not chosen:
        find(root, name)
    problems = [problem for release in chosen for problem in _check(release, variant)]
    for public in sorted({release.name for release in chosen}):
        if not any(release.active for release in chosen if release.name == public):
            problems.append(
                f"{public}/config.pbtxt: is of no released version; "
                f"run: galatea repo activate {public} VERSION"
            )
    return problems if name is not None else [*problems, *_unfinished(root, chosen)]


def activate(release: Release) -> None:
    """Makes a version the one that Triton serves from its next start on.

    Variants that were added to it are served with it, and those of other versions no longer. Stages
    come first and the public model last. Interrupted in between, the repository is refused
    by Triton (versions are pinned) and by :func:`verify`; activating again completes it.

    Raises:
        OSError: a file cannot be written.
        RepositoryError: a manifest cannot be read.
    """
    local = [copy for added in release.local() for copy in added.copies().items()]
    copies = {**release.served_copies(), **dict(local)}
    for other in releases(release.root):
        if other.name == release.name:
            for path in {path for added in other.local() for path in added.copies()} - {*copies}:
                (release.root / path).unlink(missing_ok=True)
    public = f"{release.name}/"
    for path in sorted(copies, key=lambda path: (path.startswith(public), path)):
        write_atomically(release.root / path, (release.root / copies[path]).read_bytes())


def sha256_of(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(root: Path, path: Path) -> Release:
    try:
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
        release = Release(
            root=root,
            name=str(manifest["name"]),
            version=int(manifest["version"]),
            models=tuple(map(str, manifest["models"])),
            files={
                str(file): (int(entry["bytes"]), str(entry["sha256"]))
                for file, entry in manifest["files"].items()
            },
        )
        outside = [file for file in release.files if not _is_inside(file, release.models)]
        if outside:
            raise ValueError(f"{outside[0]!r} lies outside the release")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RepositoryError(
            f"{path}: no manifest can be read from it ({error})", "export the model again"
        ) from error
    if release.folder != path.parent:
        raise RepositoryError(
            f"{path}: is of {release.name!r} version {release.version}, which lies elsewhere",
            "restore the folder's name, or export the model again",
        )
    return release


def _is_inside(file: str, models: tuple[str, ...]) -> bool:
    parts = file.split("/")
    return len(parts) >= 3 and parts[0] in models and not {"", ".", ".."} & set(parts)


def _check(release: Release, variant: str | None) -> Iterator[str]:
    root, local = release.root, release.local()
    added = {file: facts for entry in local for file, facts in entry.files.items()}
    for file, (size, sha256) in {**added, **release.files}.items():
        path = root / file
        if not path.is_file():
            yield f"{file}: is missing"
        elif path.stat().st_size != size:
            yield f"{file}: has {path.stat().st_size} bytes, the manifest says {size}"
        elif sha256_of(path) != sha256:
            yield f"{file}: was changed after the release"
    manifest = f"{release.name}/{release.version}/{MANIFEST}"
    known = {*release.files, manifest, *added, *(entry.manifest for entry in local)}
    for model in release.models:
        folder = root / model / str(release.version)
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            file = path.relative_to(root).as_posix()
            if path.is_file() and file not in known:
                yield f"{file}: is not in the manifest"
    for entry in local:
        yield from misfits(entry, to_be_served=variant)
    if release.active:
        copies = release.served_copies()
        for entry in local:
            copies |= entry.copies()
        for file in stray_copies(root, release.models, {*copies}):
            yield f"{file}: belongs to no variant of version {release.version}, which is active"
        for copy, source in copies.items():
            path, frozen = root / copy, root / source
            if not path.is_file():
                yield f"{copy}: is missing"
            elif frozen.is_file() and path.read_bytes() != frozen.read_bytes():
                yield f"{copy}: differs from {source}"


def _unfinished(root: Path, known: list[Release]) -> Iterator[str]:
    """What is there in part: of an export that was killed, or of a copy that still goes on."""
    public = {release.name for release in known}
    for config in sorted(root.glob("*/config.pbtxt")):
        name = config.parent.name
        if name not in public and CARD in config.read_text("utf-8", "replace"):
            yield f"{name}: has a card but no {MANIFEST}: an unfinished copy"
    for config in sorted(root.glob("*.*/config.pbtxt")):
        name = config.parent.name.partition(".")[0]
        if name not in public and not (root / name / "config.pbtxt").is_file():
            yield f"{config.parent.name}: belongs to an unfinished export of {name!r}"
