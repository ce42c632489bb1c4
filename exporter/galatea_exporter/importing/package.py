"""The weights inside a published package, and nothing else of it.

A package is foreign: a zip file with code beside its weights. Only the files that the catalogue
names are read, each into a folder that is removed afterwards, counted byte by byte.
"""

from __future__ import annotations

import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from galatea.catalogue import Entry
from galatea.errors import ExportError, GalateaError, InvalidInput, MachineError
from galatea_exporter.checkpoint import listed

__all__ = ["checkpoint"]

CHUNK = 1 << 20
EXPANSION = 100  # weights are nearly random numbers: nothing honest shrinks that much
# The others decompress without a bound on what a few bytes may become.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
REMEDY = "fetch the package again from its own page, or give the checkpoint itself with --from"


@contextmanager
def checkpoint(source: Path, entry: Entry, member: str | None = None) -> Iterator[Path]:
    """The entry's checkpoint as the exporter takes it: a file, or the folder of several.

    Args:
        source: the package as a zip file or an unpacked folder, or the checkpoint itself; it is
            told by looking inside.
        member: which checkpoint of a package that holds several.

    Raises:
        InvalidInput: nothing is there, or there is no such member.
        ExportError: the package is damaged or unsafe, or does not hold the weights; the message
            lists what it holds. Errors raised inside the block name the package instead of the
            folder that is removed.
        MachineError: there is no room to unpack.
    """
    wanted = entry.weights.member_files(member)
    if source.is_dir():
        with _from_folder(source, wanted) as path:
            yield path
        return
    if not source.is_file():
        raise InvalidInput(f"{source}: no such file or folder", "check what --from names")
    if wanted and zipfile.is_zipfile(source):
        with _opened(source) as archive:
            members = {info.filename: info for info in archive.infolist()}
            # PyTorch's own format is a zip file, too.
            if _matches(wanted[0], list(members)) or not _is_checkpoint(list(members)):
                with _from_zip(source, archive, wanted, entry.weights.largest) as path:
                    yield path
                return
    names = [PurePosixPath(name).name for name in wanted]
    if len(wanted) > 1 and source.name not in names:
        raise InvalidInput(
            f"{source}: the checkpoint of {entry.id} consists of {', '.join(names)}",
            "give the folder that holds them, or the package",
        )
    if source.stat().st_size > entry.weights.largest:
        raise ExportError(
            f"{source}: has {source.stat().st_size} bytes, more than any checkpoint of {entry.id}",
            "check that it is the right file",
        )
    yield source


@contextmanager
def _from_folder(source: Path, wanted: Sequence[str]) -> Iterator[Path]:
    root = source.resolve()
    # Links that leave the folder are followed by nobody.
    files = {
        path.as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.resolve().is_relative_to(root)
    }
    chosen = []
    for name in wanted:
        top = root / PurePosixPath(name).name
        found = _matches(name, list(files)) or ([str(top)] if str(top) in files else [])
        chosen.append(files[_only(source, name, found, [f[len(str(root)) + 1 :] for f in files])])
    if not chosen:
        raise InvalidInput(f"{source}: is a folder", "give the checkpoint's file itself")
    if len(chosen) == 1:
        yield chosen[0]
        return
    with _temporary(source) as folder:
        for path in chosen:
            (folder / path.name).symlink_to(path)
        yield folder


@contextmanager
def _from_zip(
    source: Path, archive: zipfile.ZipFile, wanted: Sequence[str], largest: int
) -> Iterator[Path]:
    for info in archive.infolist():
        _check_path(source, info.filename)
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    names.sort(key=lambda name: -archive.getinfo(name).file_size)
    found = [_only(source, name, _matches(name, names), names) for name in wanted]
    with _temporary(source) as folder:
        targets = []
        for name in found:
            info = archive.getinfo(name)
            _check_member(source, info, largest)
            targets.append(folder / PurePosixPath(name).name)
            _copy(source, archive, info, targets[-1])
        yield targets[0] if len(targets) == 1 else folder


@contextmanager
def _temporary(source: Path) -> Iterator[Path]:
    """A folder that is removed; errors that name it name the package instead."""
    with tempfile.TemporaryDirectory(prefix="galatea-import-") as name:
        try:
            yield Path(name)
        except GalateaError as error:
            if name not in error.problem:
                raise
            problem = error.problem.replace(f"{name}/", f"{source}: ").replace(name, str(source))
            raise type(error)(problem, error.remedy) from error


@contextmanager
def _opened(source: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:
        raise _damaged(source, error) from error
    with archive:
        yield archive


def _matches(wanted: str, names: Sequence[str]) -> list[str]:
    """Names that are, or end with, the wanted path; the case doesn't count."""
    end = f"/{wanted}".casefold()
    return [name for name in names if f"/{name}".casefold().endswith(end)]


def _only(source: Path, wanted: str, found: Sequence[str], there: Sequence[str]) -> str:
    if len(found) == 1:
        return found[0]
    if not found:
        raise ExportError(
            f"{source}: holds no {wanted}; it holds {listed(there)}",
            "check that it is the package of this id: galatea catalog --show ID",
        )
    raise ExportError(
        f"{source}: holds {wanted} {len(found)} times: {listed(found)}",
        "unpack the right one and give that file with --from",
    )


def _is_checkpoint(names: Sequence[str]) -> bool:
    return any(PurePosixPath(name).name == "data.pkl" for name in names)


def _check_path(source: Path, name: str) -> None:
    plain = name.replace("\\", "/")
    if plain.startswith("/") or re.match("[A-Za-z]:", plain) or ".." in plain.split("/"):
        raise ExportError(
            f"{source}: holds {name!r}, a path out of its folder; nothing was unpacked", REMEDY
        )


def _check_member(source: Path, info: zipfile.ZipInfo, largest: int) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    reason = ""
    if kind not in (0, stat.S_IFREG):
        reason = "is a link or a special file"
    elif info.flag_bits & 1:
        reason = "is encrypted"
    elif info.compress_type not in METHODS:
        reason = "is compressed in an unusual way"
    elif info.file_size > largest:
        reason = f"claims {info.file_size} bytes, where {largest} is the most"
    elif info.file_size > CHUNK and info.file_size > EXPANSION * info.compress_size:
        reason = f"claims to become {info.file_size // max(1, info.compress_size)} times as large"
    if reason:
        raise ExportError(f"{source}: {info.filename} {reason}; nothing was unpacked", REMEDY)


def _copy(source: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    written = 0
    try:
        with archive.open(info) as reader, target.open("xb") as file:
            while chunk := reader.read(CHUNK):
                written += file.write(chunk)
                if written > info.file_size:
                    raise ValueError(f"{info.filename} is longer than it claims")
        if written < info.file_size:
            raise ValueError(f"{info.filename} ends early")
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise _damaged(source, error) from error
    except OSError as error:
        raise MachineError(
            f"{target.parent}: cannot unpack {info.filename}: {error.strerror or error}",
            "free some space, or set TMPDIR to a folder with more",
        ) from error


def _damaged(source: Path, error: Exception) -> ExportError:
    return ExportError(f"{source}: damaged, truncated, or no zip file ({str(error)[:120]})", REMEDY)
