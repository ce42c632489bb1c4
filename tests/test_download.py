"""A package is fetched once, goes on where it stopped, and is what its record says."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from galatea import ExportError, MachineError, ServerError, ServerUnreachable
from galatea.repository import verify
from galatea_exporter.importing.download import cache_folder, download
from packages import CALCIFICATIONS, NAME, Record
from support import wait_until

pytestmark = pytest.mark.usefixtures("home")


def test_a_package_is_fetched_checked_and_kept(record: Record) -> None:
    told: list[tuple[int, int | None]] = []
    path = download(record.entry(), progress=lambda *there: told.append(there))
    assert path == cache_folder() / CALCIFICATIONS.id / NAME
    assert path.read_bytes() == record.content
    assert told[-1] == (len(record.content), len(record.content))
    assert len(told) > 3
    assert download(record.entry()) == path
    assert record.asked == [""]
    assert [file.name for file in path.parent.iterdir()] == [NAME]


def test_an_interrupted_download_goes_on_where_it_stopped(record: Record) -> None:
    record.cut = [1 << 20, 1 << 20]
    path = download(record.entry(), pause=0)
    assert path.read_bytes() == record.content
    starts = [int(asked.removeprefix("bytes=").removesuffix("-") or 0) for asked in record.asked]
    assert starts[0] == 0
    assert len(starts) == 3
    assert starts[0] < starts[1] < starts[2]


def test_a_killed_import_goes_on_where_it_stopped(record: Record, tmp_path: Path) -> None:
    record.hold = 2 << 20
    command = [sys.executable, "-m", "galatea", "import", "00001", "--from", record.url,
               "--repository", str(tmp_path / "models"), "--max-batch", "2", "--json"]  # fmt: skip
    part = cache_folder() / CALCIFICATIONS.id / f"{NAME}.part"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        wait_until(lambda: part.is_file() and part.stat().st_size > 1 << 20, 60)
        first.send_signal(signal.SIGKILL)
    there = part.stat().st_size
    record.hold = None
    record.release.set()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert record.asked == ["", f"bytes={there}-"]
    assert json.loads(done.stdout)["card"]["catalogue_id"] == CALCIFICATIONS.id
    assert not part.exists()
    assert verify(tmp_path / "models") == []


def test_a_server_without_ranges_starts_again(record: Record) -> None:
    record.ranges = False
    record.cut = [1 << 20]
    assert download(record.entry(), pause=0).read_bytes() == record.content
    assert len(record.asked) == 2


def test_what_is_no_beginning_of_the_file_is_thrown_away(record: Record) -> None:
    part = cache_folder() / CALCIFICATIONS.id / f"{NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(len(record.content) + 1))
    assert download(record.entry(), pause=0).read_bytes() == record.content


@pytest.mark.parametrize(
    ("claims", "words"), [(b"x" * 10, "more than the record says"), (b"", "has md5")]
)
def test_a_package_that_is_not_the_records_is_refused_and_removed(
    record: Record, claims: bytes, words: str
) -> None:
    record.claims = claims or bytes(len(record.content))
    with pytest.raises(ExportError, match=words):
        download(record.entry(), pause=0)
    left = [path for path in (cache_folder() / CALCIFICATIONS.id).iterdir() if path.name == NAME]
    assert left == []


def test_the_sha256_of_the_catalogue_counts_where_it_is_known(record: Record) -> None:
    right = hashlib.sha256(record.content).hexdigest()
    record.answers = False
    assert download(record.entry(sha256=right)).is_file()
    (cache_folder() / CALCIFICATIONS.id / NAME).unlink()
    with pytest.raises(ExportError, match="has sha256"):
        download(record.entry(sha256="0" * 64))


def test_a_record_that_tells_no_checksum_is_said_to(record: Record) -> None:
    record.answers = False
    news: list[str] = []
    assert download(record.entry(), say=news.append).read_bytes() == record.content
    assert any("no checksum is known" in sentence for sentence in news)


def test_a_refusal_of_the_server_names_the_address(record: Record) -> None:
    record.status = 404
    with pytest.raises(ServerError, match=r"HTTP 404; fetch the file by hand"):
        download(record.entry(), pause=0)


def test_a_server_that_fails_again_and_again_is_given_up(record: Record) -> None:
    record.status = 503
    with pytest.raises(ServerUnreachable, match=r"stopped at 0 of \d+ bytes \(HTTP 503\)"):
        download(record.entry(), pause=0)
    assert len(record.asked) == 4


def test_a_server_that_nobody_answers_at_is_unreachable() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/records/7/files/{NAME}"
        with pytest.raises(ServerUnreachable, match="run the command again"):
            download(CALCIFICATIONS, url, pause=0)


def test_a_cache_that_cannot_be_written_is_named(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="XDG_CACHE_HOME"):
        download(record.entry())
