"""An S3-compatible server for the tests, which can be gone for a while.

It prints its port. A line ``stop`` on stdin closes the port and ``start`` opens it again, answered
by the same word; what was put stays.
"""

from __future__ import annotations

import sys

from moto.server import ThreadedMotoServer

HOST = "127.0.0.1"


def main() -> None:
    server = ThreadedMotoServer(HOST, 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    print(port, flush=True)
    for line in sys.stdin:
        if line.strip() == "stop":
            server.stop()
        else:
            server = ThreadedMotoServer(HOST, port, verbose=False)
            server.start()
        print(line.strip(), flush=True)


if __name__ == "__main__":
    main()
