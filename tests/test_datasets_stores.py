"""Where data sets are written: full disks, read-only folders, object stores that go away."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_sets import command_line, files
from galatea import Client, datasets
from galatea.errors import MachineError
from galatea_server.server import EmbeddedServer
from support import ROOT, wait_until

N = 64


def make(client: Client, folder: Path) -> datasets.Outcome:
    return datasets.generate(client, "masses", N, folder, seed=7, shard_size=8)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mounts a disk of 200 kB there."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_on_a_full_disk_it_stops_and_goes_on_when_there_is_room(
    client: Client, tmp_path: Path
) -> None:
    make(client, tmp_path / "whole")
    with small_disk(tmp_path / "disk"):
        with pytest.raises(MachineError, match="No space left on device; free some space"):
            make(client, tmp_path / "disk")
        assert not (tmp_path / "disk" / "dataset.json").exists()
        remount(tmp_path / "disk", "size=20m")
        outcome = make(client, tmp_path / "disk")
        assert 0 < outcome.found < N
        assert files(tmp_path / "disk") == files(tmp_path / "whole")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_turns_read_only_is_named_and_a_whole_data_set_on_it_is_fine(
    client: Client, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk):
        remount(disk, "size=20m")
        make(client, disk)
        remount(disk, "ro")
        assert make(client, disk).found == N
        assert datasets.verify(disk) == []
        remount(disk, "rw")
        (disk / "shards" / "000003.json").unlink()
        remount(disk, "ro")
        with pytest.raises(MachineError, match="cannot be written: Read-only file system"):
            make(client, disk)


def test_a_folder_that_cannot_be_made_is_named(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"file/out.*cannot be written: Not a directory"):
        make(client, tmp_path / "file" / "out")


@dataclass(frozen=True)
class Bucket:
    """A bucket in the S3-compatible server of ``s3_server.py``."""

    process: subprocess.Popen[str]
    url: str

    def order(self, word: str) -> None:
        """Closes or opens the server's port: "stop" or "start"."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(word, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline().strip() == word

    def listing(self) -> str:
        """Names of what is in it, as XML."""
        with urllib.request.urlopen(f"{self.url}/bucket?list-type=2") as reply:
            text: str = reply.read().decode()
        return text

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Runs galatea with this server as its S3."""
        environment = {
            **os.environ, "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "2",
        }  # fmt: skip
        return subprocess.Popen(
            command_line(*arguments), env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def galatea(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a run of galatea."""
        process = self.start(*arguments)
        out, error = process.communicate()
        return process.returncode, out, error


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "s3_server.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
        yield Bucket(process, url)
        process.kill()


@pytest.fixture
def command(server: EmbeddedServer) -> list[object]:
    """The data set of :func:`make` on the command line, but for where it goes."""
    return ["generate", "masses", "-n", N, "--seed", 7, "--shard-size", 8,
            "--url", server.grpc_url]  # fmt: skip


def test_in_an_object_store_it_is_the_same(
    client: Client, bucket: Bucket, command: list[object], tmp_path: Path
) -> None:
    make(client, tmp_path / "local")
    code, out, error = bucket.galatea(*command, "-o", "s3://bucket/same")
    assert code == 0, error
    assert "complete: 64 images" in out
    assert bucket.galatea("dataset", "verify", "s3://bucket/same")[0] == 0
    code, _, error = bucket.galatea("dataset", "merge", tmp_path / "copy", "s3://bucket/same")
    assert code == 0, error
    assert files(tmp_path / "copy") == files(tmp_path / "local")


def test_an_object_store_that_goes_away_is_named_and_the_same_command_goes_on(
    client: Client, bucket: Bucket, command: list[object], tmp_path: Path
) -> None:
    make(client, tmp_path / "local")
    process = bucket.start(*command, "-o", "s3://bucket/gone")
    wait_until(lambda: "gone/shards/000001.json" in bucket.listing())
    bucket.order("stop")
    _, error = process.communicate()
    assert process.returncode == 3, error
    assert "s3://bucket/gone: the store does not answer" in error
    assert "the same command goes on" in error
    assert "Traceback" not in error
    bucket.order("start")
    assert "gone/dataset.json" not in bucket.listing()
    code, out, error = bucket.galatea(*command, "-o", "s3://bucket/gone")
    assert code == 0, error
    assert "were there already" in out
    assert bucket.galatea("dataset", "merge", tmp_path / "copy", "s3://bucket/gone")[0] == 0
    assert files(tmp_path / "copy") == files(tmp_path / "local")


def test_a_bucket_that_is_not_there_is_named(bucket: Bucket, command: list[object]) -> None:
    code, _, error = bucket.galatea(*command, "-o", "s3://pail/x")
    assert code == 1
    assert "s3://pail/x: " in error
    assert "make the bucket" in error


def test_an_unknown_kind_of_store_is_refused(bucket: Bucket, command: list[object]) -> None:
    code, _, error = bucket.galatea(*command, "-o", "cupboard://x")
    assert code == 5
    assert "s3://BUCKET/PREFIX" in error
