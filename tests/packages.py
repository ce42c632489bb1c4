"""Packages as medigan publishes them, and a record that serves them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from galatea.catalogue import Entry, find
from galatea_exporter.family import find_family

CALCIFICATIONS = find("00001")
NAME = "00001_DCGAN_MMG_CALC_ROI.zip"


def weights(family: str = "dcgan_mammo") -> bytes:
    """A small checkpoint as upstream saves it."""
    chosen = find_family(family)
    state = chosen.example()
    buffer = io.BytesIO()
    torch.save({chosen.containers[0]: state}, buffer)
    return buffer.getvalue()


def pack(path: Path, content: bytes, *, name: str = "DCGAN.pt", padding: int = 0) -> Path:
    """A package as medigan publishes them, with code beside the weights."""
    trap = f"import pathlib; pathlib.Path({str(path.with_suffix('.trap'))!r}).touch()"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for code in ("__init__.py", "src/networks.py", "setup.py"):
            archive.writestr(f"{path.stem}/{code}", trap)
        archive.writestr(f"{path.stem}/metadata.json", "{}")
        archive.writestr(f"{path.stem}/images/example.bin", os.urandom(padding))
        archive.writestr(f"{path.stem}/{name}", content)
    return path


@dataclass
class Record:
    """A record of a repository like Zenodo, on a real port, that can be told to misbehave.

    Attributes:
        cut: bytes after which the connection breaks, for each answer in turn.
        hold: wait for `release` after that many bytes.
        answers: whether the record's description is there.
    """

    name: str
    content: bytes
    cut: list[int] = field(default_factory=list)
    hold: int | None = None
    release: threading.Event = field(default_factory=threading.Event)
    ranges: bool = True
    answers: bool = True
    status: int = 200
    claims: bytes = b""
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/records/7/files/{self.name}?download=1"

    def entry(self, sha256: str = "") -> Entry:
        weights = replace(CALCIFICATIONS.weights, url=self.url, sha256=sha256)
        return replace(CALCIFICATIONS, weights=weights)

    @contextmanager
    def served(self) -> Iterator[Record]:
        """Serves it inside the block."""
        handler = type("Served", (Handler,), {"record": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            self.port = server.server_port
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield self
            self.release.set()
            server.shutdown()
            thread.join()

    def describe(self) -> bytes:
        claimed = self.claims or self.content
        file = {
            "key": self.name,
            "size": len(claimed),
            "checksum": f"md5:{hashlib.md5(claimed).hexdigest()}",
        }
        return json.dumps({"id": 7, "files": [{"key": "other.txt"}, file]}).encode()


class Handler(BaseHTTPRequestHandler):
    record: Record

    def do_GET(self) -> None:
        record = self.record
        if self.path.startswith("/api/"):
            self.send_response(200 if record.answers else 404)
            self.end_headers()
            self.wfile.write(record.describe() if record.answers else b"")
            return
        record.asked.append(self.headers.get("Range", ""))
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(begin[1]) if begin and record.ranges else 0
        if record.status != 200 or start >= len(record.content):
            self.send_response(record.status if record.status != 200 else 416)
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            size = len(record.content)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(len(record.content) - start))
        self.end_headers()
        body = record.content[start:]
        if record.hold is not None:
            self.wfile.write(body[: record.hold])
            self.wfile.flush()
            record.release.wait(30)
            return
        self.wfile.write(body[: record.cut.pop(0)] if record.cut else body)

    def log_message(self, format: str, *args: object) -> None:
        pass
