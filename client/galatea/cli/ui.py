"""``galatea ui``."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from functools import partial
from pathlib import Path

import click

from galatea.aio import AsyncClient
from galatea.cli._options import Connection, server_options
from galatea.cli._output import emit, output_options, say
from galatea.errors import InvalidInput, MachineError
from galatea.extras import needs_extra
from galatea.ui._security import is_loopback


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, help="0 takes a free one.")
@click.option(
    "--page-token", type=click.Path(path_type=Path), metavar="FILE",
    help="File with the token that visitors need; default: none on this machine's own addresses, "
    "and elsewhere a random one.",
)  # fmt: skip
@click.option(
    "--report", "reports", type=click.Path(path_type=Path), multiple=True, metavar="PATH",
    help="Folder or report.json of an evaluation with --train, whose nearest images are shown; "
    "again for further ones.",
)  # fmt: skip
@click.option(
    "--beside", multiple=True, metavar="HOST:PORT",
    help="Another server, for instance with another version, whose images may stand beside those "
    "of the first; again for further ones.",
)  # fmt: skip
@server_options
@output_options
def ui(
    host: str,
    port: int,
    page_token: Path | None,
    reports: tuple[Path, ...],
    beside: tuple[str, ...],
    connection: Connection,
) -> None:
    """Look at what the generators of a server make, in a browser.

    Prints the address to open. On an address that others can reach, it has a token.
    """
    with needs_extra("ui"):
        import uvicorn

        from galatea.ui import application

    def connect(urls: tuple[str, ...]) -> AsyncClient:
        return AsyncClient(
            urls, timeout=connection.timeout, patience=connection.patience,
            security=connection.security, transport=connection.transport, hedge=connection.hedge,
        )  # fmt: skip

    token = _token(host, page_token)
    app = application(
        partial(connect, connection.urls), beside=[partial(connect, (url,)) for url in beside],
        token=token, urls=connection.urls, reports=reports,
    )  # fmt: skip
    listening = _listen(host, port)
    address = f"http://{_reached_as(host)}:{listening.getsockname()[1]}/"

    # galatea's own log tells what matters; a line for each tile does not.
    config = uvicorn.Config(
        app, log_level="error", access_log=False, server_header=False, lifespan="on",
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    opened = f"{address}?token={token}" if token else address
    emit({"url": opened}, lambda: click.echo(opened))
    say("stop with Ctrl-C")
    uvicorn.Server(config).run(sockets=[listening])


def _token(host: str, file: Path | None) -> str | None:
    if file is None:
        return None if is_loopback(host) else secrets.token_urlsafe(24)
    try:
        token = file.expanduser().read_text().strip()
    except OSError as error:
        raise MachineError(
            f"{file}: cannot be read: {error.strerror or error}", "name a file with a token"
        ) from error
    if len(token) < 16 or not all(c.isalnum() or c in "-_" for c in token):
        raise InvalidInput(
            f"{file} holds no token", "write at least 16 letters, digits, - and _ into it"
        )
    return token


def _reached_as(host: str) -> str:
    """What a browser calls an address that is listened on."""
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host
    return socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        raise MachineError(
            f"{host} port {port} cannot be listened on: {getattr(error, 'strerror', '') or error}",
            "choose another one: --port 0 takes a free one",
        ) from error
    return listening
