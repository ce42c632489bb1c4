"""Pulling a publication into a model repository: the inverse of publishing."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from galatea.errors import MachineError, RepositoryError
from galatea.repository import Release, find, releases, sha256_of
from galatea_exporter import release as releasing
from galatea_exporter.publishing.contents import OLD_SAMPLER, code
from galatea_exporter.publishing.places import open_place
from galatea_exporter.publishing.places.place import Place
from galatea_exporter.publishing.publication import CHECK, README, SAMPLES, SIGNATURE, Label
from galatea_exporter.publishing.signatures import verify

__all__ = ["pull"]

MODEL = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)?")


def pull(
    source: str | Path,
    repository: Path,
    *,
    key: Path | None = None,
    any_sampler: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> tuple[Release, bool]:
    """Takes a published release into a repository, and makes it the active version.

    Everything is fetched beside the repository and compared with its digests first; Triton sees
    nothing before.

    Args:
        source: a folder, or the URL of a place.
        key: public key that the publication must be signed with the counterpart of.
        any_sampler: take a diffusion model whose sampler is that of another galatea; servers
            execute it.

    Returns:
        The release, and whether it is new there.

    Raises:
        RepositoryError: there is no publication, a file is missing, changed or would be executed,
            the signature does not hold, or the repository has this version with other content.
        InvalidInput, MachineError, ServerUnreachable: see :class:`Place`.
    """
    place = open_place(source)
    head = place.read(CHECK)
    if head is None:
        raise RepositoryError(
            f"{place.url}: nothing is published there ({CHECK} is missing)",
            "check the address; galatea publish NAME --to PLACE makes a publication",
        )
    label = Label.read(place.url, head)
    try:
        repository.mkdir(parents=True, exist_ok=True)
        beside = repository.resolve().parent
        with tempfile.TemporaryDirectory(prefix=".galatea-pull-", dir=beside) as staging:
            fetched = _fetched(place, label, Path(staging) / "files", progress)
            if key is not None:
                _verify_signature(place, fetched.root, head, key)
            _refuse_names(place, fetched)
            _refuse_code(place, fetched, any_sampler)
            release = replace(fetched, root=repository)
            _refuse_change(release)
            progress(f"writing {label.name} version {label.version}")
            files: dict[str, releasing.Content] = {p: fetched.root / p for p in fetched.files}
            return release, releasing.write(release, files)
    except OSError as error:
        raise MachineError(
            f"{repository}: cannot be written: {error.strerror or error}",
            "free some space, or choose a folder that you may write to",
        ) from error


def _fetched(place: Place, label: Label, staging: Path, progress: Callable[[str], None]) -> Release:
    """The release in a folder of its own, every file as its manifest says."""
    manifest = place.read(label.manifest)
    if manifest is None or sha256(manifest).hexdigest() != label.sha256:
        raise RepositoryError(
            f"{place.url}: {label.manifest} is missing or not the one that was checked",
            "publish the release again",
        )
    path = staging / label.manifest
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest)
    release = find(staging, label.name, label.version)
    for file, (size, digest) in release.files.items():
        progress(f"fetching {file}")
        target = staging / file
        target.parent.mkdir(parents=True, exist_ok=True)
        place.fetch(file, target)
        if target.stat().st_size != size or sha256_of(target) != digest:
            raise RepositoryError(
                f"{place.url}: {file} was changed after it was published",
                "nothing was taken over; publish the release again",
            )
    return release


def _verify_signature(place: Place, folder: Path, head: bytes, key: Path) -> None:
    signature = folder.with_name(SIGNATURE)
    for path, target in (
        (SIGNATURE, signature), (README, folder / README), (SAMPLES, folder / SAMPLES),
    ):  # fmt: skip
        place.fetch(path, target)
    (folder / CHECK).write_bytes(head)
    verify(folder, signature, key)


def _refuse_names(place: Place, release: Release) -> None:
    """Refuses what would replace other models, or folders that are none."""
    name, version = release.name, str(release.version)
    own = {model for model in release.models if MODEL.fullmatch(model)}
    foreign = {m for m in release.models if m not in own or m.partition(".")[0] != name}
    stray = {file for file in release.files if file.split("/")[1] != version}
    if foreign or stray or release.models[-1:] != (name,):
        raise RepositoryError(
            f"{place.url}: would write {min(foreign | stray, default='no public model')!r}, which "
            f"is not of {name} version {version}",
            "do not serve it, and tell who published it",
        )


def _refuse_code(place: Place, release: Release, any_sampler: bool) -> None:
    for file, reason in code(release, any_sampler=any_sampler):
        card = release.card()
        old = reason == OLD_SAMPLER
        raise RepositoryError(
            f"{place.url}: {file} {reason}",
            f"install {card.exporter}, or add --any-sampler if you trust who published it"
            if old
            else "do not serve it, and tell who published it",
        )


def _refuse_change(release: Release) -> None:
    there = [
        other
        for other in releases(release.root)
        if (other.name, other.version) == (release.name, release.version)
    ]
    if there and there[0] != release:
        raise RepositoryError(
            f"{release.root}: has {release.name} version {release.version} with other content",
            "pull into another repository with --repository",
        )
