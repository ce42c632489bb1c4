"""Writing a release into a model repository: prepared beside it, moved in by rename."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from galatea._files import write_atomically
from galatea.errors import MachineError, RepositoryError
from galatea.repository import MANIFEST, Release, activate, releases, sha256_of

Content = bytes | Path  # of a file: what is in it, or another file


def draft(
    root: Path, models: tuple[str, ...], version: int, files: Mapping[str, Content]
) -> Release:
    """The release that `files` would make.

    Args:
        root: the repository.
        models: the release's Triton models, the public one last.
        files: path below the repository → content; all below ``<model>/<version>/``.
    """
    digests = {path: (size(data), sha256(data)) for path, data in files.items()}
    return Release(root, models[-1], version, models, digests)


def size(content: Content) -> int:
    """Bytes of a content."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


def sha256(content: Content) -> str:
    """sha256 of a content, in hexadecimal."""
    if isinstance(content, Path):
        return sha256_of(content)
    return hashlib.sha256(content).hexdigest()


def newest(root: Path, name: str) -> int:
    """The newest released version of a model; 0 when there is none."""
    everything = releases(root) if root.is_dir() else []
    return max((there.version for there in everything if there.name == name), default=0)


def is_there(release: Release) -> bool:
    """Whether the repository holds this very release, to the byte."""
    everything = releases(release.root) if release.root.is_dir() else []
    return any(there == release for there in everything)


def following(
    root: Path,
    name: str,
    make: Callable[[int], tuple[dict[str, Content], tuple[str, ...]]],
    version: int | None = None,
) -> tuple[Release, dict[str, Content]]:
    """The release of a model under its next version, with its files.

    Releasing the same thing again is no new version: the newest one is tried first.

    Args:
        make: from a version to the files and the Triton models, as for :func:`draft`.
        version: in place of these.
    """
    there = newest(root, name)
    for number in [version] if version else [there, there + 1] if there else [1]:
        files, models = make(number)
        release = draft(root, models, number, files)
        if is_there(release):
            break
    return release, files


def write(release: Release, files: Mapping[str, Content]) -> bool:
    """Writes a release and makes it the active one.

    Nothing is visible under the repository before it is complete on the disk, and a writer that is
    killed leaves at most models that serve nothing; the next export of the same name replaces them.

    Returns:
        False when the repository already held the very same release.

    Raises:
        RepositoryError: the version is there with other content.
        MachineError: the folder cannot be written, or the disk is full; nothing was released.
    """
    root = release.root
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root), _staging(root) as staging:
            if is_there(release):
                activate(release)
                return False
            if (release.folder / MANIFEST).exists():
                raise RepositoryError(
                    f"{release.folder}: version {release.version} of {release.name!r} is already "
                    "released with other content, and releases never change",
                    "leave out --version to release the next one",
                )
            for path, data in files.items():
                put(staging / path, data)
            public = staging / release.name / str(release.version)
            write_atomically(public / MANIFEST, release.to_json())
            _move_in(release, staging)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise MachineError(
            f"{root}: the release cannot be written: {error.strerror or error}",
            "free some space and export again" if full else "choose a folder that you may write to",
        ) from error
    return True


def put(path: Path, content: Content) -> None:
    """Writes a new file of a staging folder to the disk.

    Raises:
        OSError: it cannot be written, or is there.
    """
    if not isinstance(content, Path):
        write_atomically(path, content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with content.open("rb") as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())


def _move_in(release: Release, staging: Path) -> None:
    root, version = release.root, str(release.version)
    for model in release.models:
        target = root / model
        if newest(root, release.name):
            # Another version is served: the new one lies beside it until it is activated.
            shutil.rmtree(target / version, ignore_errors=True)
            os.rename(staging / model / version, target / version)
            continue
        # A model appears whole: its folder is renamed with the served copies already inside.
        copies = release.served_copies().items()
        for copy, source in ((c, s) for c, s in copies if c.split("/")[0] == model):
            write_atomically(staging / copy, (staging / source).read_bytes())
        shutil.rmtree(target, ignore_errors=True)
        os.rename(staging / model, target)
    activate(release)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One writer at a time; the lock goes with the process that holds it."""
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """A folder beside the repository, on the same file system, gone at the end."""
    resolved = root.resolve()
    prefix = f".galatea-staging-{resolved.name}-"
    for left in resolved.parent.glob(f"{prefix}*"):  # of a writer that was killed: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=resolved.parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
