"""Where a server listens, and what it says there about itself."""

from __future__ import annotations

import http.client
import json

__all__ = ["Reachable"]


class Reachable:
    """A Triton server at a host, by its three ports.

    Attributes:
        host: address it listens on.
        ports: by protocol: http, grpc, metrics.
    """

    host: str
    ports: dict[str, int]

    @property
    def grpc_url(self) -> str:
        """host:port for the client."""
        return self._url("grpc")

    @property
    def http_url(self) -> str:
        """host:port of the KServe v2 HTTP API."""
        return self._url("http")

    @property
    def metrics_url(self) -> str:
        """host:port of the Prometheus metrics, under ``/metrics``."""
        return self._url("metrics")

    def models(self) -> list[tuple[str, int]]:
        """(name, version) of every Triton model that is ready, stages included."""
        index = json.loads(self._ask("http", "POST", "/v2/repository/index")[1])
        ready = [entry for entry in index if entry.get("state") == "READY"]
        return sorted((entry["name"], int(entry["version"])) for entry in ready)

    def is_ready(self) -> bool:
        """Whether all models are ready and the metrics can be read."""
        try:
            # The metrics come last, some time after Triton says that it is ready.
            return (
                self._ask("http", "GET", "/v2/health/ready")[0] == 200
                and self._ask("metrics", "GET", "/metrics")[0] == 200
            )
        except (OSError, http.client.HTTPException):
            return False

    def _url(self, protocol: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.ports[protocol]}"

    def _ask(self, protocol: str, method: str, path: str) -> tuple[int, bytes]:
        reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - asked, not bound
        connection = http.client.HTTPConnection(reach, self.ports[protocol], timeout=5)
        try:
            connection.request(method, path)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()
