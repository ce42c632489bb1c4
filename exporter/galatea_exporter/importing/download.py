"""Downloading a package from its public record: resumed, measured, checked.

A record of Zenodo tells size and MD5 of its files at ``/api/records/<id>``: JSON with a list
``files`` of ``{"key": name, "size": bytes, "checksum": "md5:<hex>", …}``
(https://developers.zenodo.org). Repositories on InvenioRDM answer alike.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

import galatea
from galatea.catalogue import Entry
from galatea.errors import ExportError, MachineError, ServerError, ServerUnreachable

__all__ = ["cache_folder", "download"]

RECORD = re.compile(r"(?P<host>https?://[^/]+)/records?/(?P<id>\d+)/files/")
CHUNK = 1 << 18
ATTEMPTS = 4  # that bring nothing new, one after the other
LARGEST = 64 << 30  # no package is larger; more is never written
TIMEOUT = httpx.Timeout(30.0)

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is there: its size, and a digest by its algorithm."""

    size: int | None = None
    algorithm: str = ""
    digest: str = ""


def cache_folder() -> Path:
    """Where packages are kept; a package that is there is complete and was checked."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "galatea" / "packages"


def download(
    entry: Entry,
    url: str = "",
    *,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda news: None,
    pause: float = 1.0,
) -> Path:
    """The package of an entry, from the cache or from its record.

    What was interrupted goes on where it stopped, in this call or in the next one.

    Args:
        url: another place of the same package, such as a mirror.
        progress: called with the bytes that are there, and the bytes of the whole where known.
        say: called with a sentence when something is worth knowing.
        pause: seconds before another attempt, twice as many before each further one.

    Raises:
        ServerUnreachable: nobody answers, or the connection broke again and again.
        ServerError: the server refused.
        ExportError: size or checksum is not that of the record; the file was removed.
        MachineError: the cache cannot be written, or has too little room.
    """
    url = url or entry.weights.url
    name = unquote(Path(urlsplit(url).path).name) or "package.zip"
    folder = cache_folder() / entry.id
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            whole, part = folder / name, folder / f"{name}.part"
            if whole.is_file():
                say(f"{whole}: was downloaded before")
                return whole
            with _client() as client:
                expected = _expected(client, entry, url, name, say)
                _fetch(client, url, part, expected, progress, pause)
            _check(part, expected, url)
            os.replace(part, whole)  # what has this name is whole and was checked
            return whole
    except OSError as error:
        raise MachineError(
            f"{folder}: cannot be written: {error.strerror or error}",
            "free some space, or set XDG_CACHE_HOME to a folder with more",
        ) from error


def _client() -> httpx.Client:
    # Compressed on the way, a range would be one of other bytes.
    headers = {"User-Agent": f"galatea/{galatea.__version__}", "Accept-Encoding": "identity"}
    return httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers=headers)


def _expected(
    client: httpx.Client, entry: Entry, url: str, name: str, say: Callable[[str], None]
) -> Expected:
    """Size and digest: what the catalogue knows, else what the record says."""
    weights = entry.weights
    if weights.sha256:
        return Expected(weights.bytes, "sha256", weights.sha256)
    record = RECORD.match(url)
    try:
        if record is None:
            raise ValueError("no record is known for this address")
        answer = client.get(f"{record['host']}/api/records/{record['id']}").raise_for_status()
        file = next(file for file in answer.json()["files"] if file["key"] == name)
        algorithm, _, digest = str(file["checksum"]).partition(":")
        if algorithm not in ("md5", "sha256", "sha512") or not digest:
            raise ValueError(f"checksum {file['checksum']!r}")
        return Expected(int(file["size"]), algorithm, digest.lower())
    except (httpx.HTTPError, ValueError, KeyError, TypeError, StopIteration) as error:
        say(f"{name}: no checksum is known ({error}); only its size is compared")
        return Expected(weights.bytes)


def _fetch(
    client: httpx.Client,
    url: str,
    part: Path,
    expected: Expected,
    progress: Progress,
    pause: float,
) -> None:
    """Appends to the part until it is whole."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _append(client, url, part, before, expected.size, progress)
            return
        except httpx.TransportError as error:
            there = part.stat().st_size if part.exists() else 0
            failures = 0 if there > before else failures + 1
            if failures >= ATTEMPTS:
                raise ServerUnreachable(
                    f"{urlsplit(url).netloc}: the download of {part.stem} stopped at {there} of "
                    f"{expected.size or 'unknown'} bytes ({error or type(error).__name__})",
                    "run the command again: it goes on from there; or fetch the file elsewhere "
                    "and give it with --from",
                ) from error
            time.sleep(pause * 2**failures)


def _append(
    client: httpx.Client,
    url: str,
    part: Path,
    there: int,
    size: int | None,
    progress: Progress,
) -> None:
    if size is not None and there == size:
        return
    headers = {"Range": f"bytes={there}-"} if there else {}
    with client.stream("GET", url, headers=headers) as answer:
        if url.startswith("https:") and answer.url.scheme != "https":
            raise ServerError(f"{url}: leads to {answer.url}, which is not encrypted", _FETCH)
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and there:
            part.unlink()  # what is there is no beginning of it
            raise httpx.RemoteProtocolError("the server has no such range")
        if answer.status_code >= 500 or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise httpx.RemoteProtocolError(f"HTTP {answer.status_code}")
        if not answer.is_success:
            raise ServerError(f"{url}: HTTP {answer.status_code}", _FETCH)
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {there}-")
        if answer.status_code != httpx.codes.PARTIAL_CONTENT or not goes_on:
            there = 0  # the server sends it from the beginning
        length = answer.headers.get("Content-Length", "")
        total = size if size is not None else there + int(length) if length.isdecimal() else None
        _check_room(part.parent, url, (total or 0) - there)
        with part.open("r+b" if there else "wb") as file:
            file.seek(there)
            for chunk in answer.iter_raw(CHUNK):
                there += len(chunk)
                if there > (size if size is not None else LARGEST):
                    raise ExportError(f"{url}: sends more than the record says", _FETCH)
                file.write(chunk)
                progress(there, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and there < total:
        raise httpx.RemoteProtocolError("the connection was closed early")


_FETCH = "fetch the file by hand and give it with --from"


def _check_room(folder: Path, url: str, needed: int) -> None:
    if needed > LARGEST:
        raise ExportError(f"{url}: has {needed} bytes, more than any package", _FETCH)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MachineError(
            f"{folder}: {free / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB are needed",
            "free some space, or set XDG_CACHE_HOME to a folder with more",
        )


def _check(part: Path, expected: Expected, url: str) -> None:
    """Size and digest of a whole file; if they are not the expected ones it is removed."""
    problem = ""
    if expected.size is not None and part.stat().st_size != expected.size:
        problem = f"has {part.stat().st_size} bytes, the record says {expected.size}"
    elif expected.digest:
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, expected.algorithm).hexdigest()
        if digest != expected.digest:
            problem = f"has {expected.algorithm} {digest}, the record says {expected.digest}"
    if problem:
        part.unlink()
        raise ExportError(
            f"{url}: what came {problem}; it was removed", "run the command again to fetch it anew"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One download of an entry at a time; others wait and find it done."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
