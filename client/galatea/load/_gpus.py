"""What Triton's metrics tell of GPUs."""

from __future__ import annotations

import http.client
import re
from urllib.parse import urlsplit

from galatea.errors import InvalidInput

__all__ = ["Gpus", "utilisations"]

PORT = 8002  # of Triton's metrics, unless told otherwise
PATIENCE = 1.0  # seconds
UTILISATION = re.compile(r"^nv_gpu_utilization\{[^}]*\} (\S+)", re.MULTILINE)


class Gpus:
    """Utilisation of a server's GPUs, as often as it is read.

    Triton measures it every 2 s by itself, so a short load sees few values of it.

    Args:
        url: of the metrics; None: port 8002 of the host in `address`.
        address: the server's gRPC address.
        model: a page of metrics without it is of another server.

    Raises:
        InvalidInput: the URL is none.
    """

    def __init__(self, url: str | None, address: str, model: str) -> None:
        self._url = _checked(url) if url is not None else _beside(address)
        self._model = f'model="{model}"'
        self._readings: list[list[float]] = []

    def read(self) -> None:
        """Takes a reading; a server that cannot be read is not asked again."""
        page = _get(self._url) if self._url else None
        if page is None or self._model not in page:
            self._url = ""
            return
        if shares := utilisations(page):
            self._readings.append(shares)

    def __len__(self) -> int:
        """Number of readings so far."""
        return len(self._readings)

    def utilisation(self, since: int) -> tuple[float, int] | None:
        """Mean utilisation from 0 to 1, and the number of GPUs; None is not available.

        Args:
            since: readings that do not count, from the first on.
        """
        counted = self._readings[since:]
        if not counted:
            return None
        values = [share for shares in counted for share in shares]
        return sum(values) / len(values), max(map(len, counted))


def utilisations(page: str) -> list[float]:
    """Of each GPU, from 0 to 1, in a page of Triton's metrics."""
    return [float(share) for share in UTILISATION.findall(page)]


def _beside(address: str) -> str:
    """The page of the metrics on the host of a gRPC address; "" where that names no host."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    return f"http://{host}:{PORT}/metrics" if host and port.isdecimal() else ""


def _checked(url: str) -> str:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"{url!r} is no URL of metrics", "give http://host:8002/metrics")
    return parts._replace(path=parts.path if parts.path not in ("", "/") else "/metrics").geturl()


def _get(url: str) -> str | None:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
        try:
            connection.request("GET", parts.path)
            reply = connection.getresponse()
            return reply.read().decode("utf-8", "replace") if reply.status == 200 else None
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException):
        return None
