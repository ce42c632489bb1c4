"""Where tests publish to: a registry, and a service that takes what Zenodo's documentation says."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from support import wait_until

CONFIGURATION = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Runs the registry of the CNCF project Distribution; yields HOST:PORT.

    Skips the test where the program (Debian's package docker-registry) is not installed.
    """
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    configuration = folder / "registry.yml"
    configuration.write_text(
        CONFIGURATION.format(folder=folder / "data", port=address.partition(":")[2])
    )
    with subprocess.Popen(
        [program, "serve", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: _answers(f"http://{address}/v2/"))
        yield address
        process.terminate()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url).close()
    except urllib.error.URLError:
        return False
    return True


@dataclass
class Depositions:
    """Drafts as the documentation of Zenodo's depositions has them.

    Attributes:
        files: of the one draft, by name.
        metadata: of it.
        published: whether somebody published it.
    """

    token: str
    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    published: bool = False

    @contextmanager
    def served(self) -> Iterator[str]:
        """Yields HOST:PORT."""
        own = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.answer(*own.post(self.path, self.json()) if self.allowed() else (401, {}))

            def do_PUT(self) -> None:
                if not self.allowed():
                    self.answer(401, {})
                elif self.path.startswith("/api/files/draft-bucket/"):
                    own.files[self.path.rpartition("/")[2]] = self.body()
                    self.answer(201, {"key": self.path.rpartition("/")[2]})
                else:
                    self.answer(*own.put(self.path, self.json()))

            def allowed(self) -> bool:
                return self.headers["Authorization"] == f"Bearer {own.token}"

            def json(self) -> Any:
                assert self.headers["Content-Type"] == "application/json"
                return json.loads(self.body())

            def body(self) -> bytes:
                if self.headers["Transfer-Encoding"] != "chunked":
                    return self.rfile.read(int(self.headers["Content-Length"]))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def answer(self, status: int, document: Any) -> None:
                content = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.address = f"127.0.0.1:{server.server_address[1]}"
            Thread(target=server.serve_forever, daemon=True).start()
            yield self.address
            server.shutdown()

    def post(self, path: str, document: Any) -> tuple[int, Any]:
        """Makes the draft, or publishes it."""
        if path == "/api/deposit/depositions" and document == {}:
            links = {
                "bucket": f"http://{self.address}/api/files/draft-bucket",
                "html": f"http://{self.address}/deposit/17",
            }
            return 201, {"id": 17, "links": links}
        self.published = path.endswith("/actions/publish")
        return 404, {}

    def put(self, path: str, document: Any) -> tuple[int, Any]:
        """Takes metadata with all that the documentation calls required."""
        metadata = document["metadata"]
        required = ("upload_type", "title", "creators", "description", "access_right", "license")
        missing = [key for key in required if not metadata.get(key)]
        if path != "/api/deposit/depositions/17" or missing:
            return 400, {"message": "Validation error.", "errors": missing}
        self.metadata = metadata
        return 200, {"id": 17}
