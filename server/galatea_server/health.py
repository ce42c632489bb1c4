"""Whether the server of this container is ready: ``python -m galatea_server.health``.

For engines that ask by running a program; only the standard library is loaded.
"""

import http.client
import os
import sys


def is_ready(port: int, timeout: float = 4.0) -> bool:
    """Whether Triton on this machine says that all its models are ready."""
    connection = http.client.HTTPConnection("localhost", port, timeout=timeout)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if is_ready(int(os.environ.get("GALATEA_SERVE_HTTP_PORT", "8000"))) else 1)
