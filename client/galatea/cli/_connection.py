"""Which servers a command talks to, and how."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from galatea._wire.endpoint import TransportName
from galatea._wire.security import Security
from galatea.client import DEFAULT_URL, Client

F = TypeVar("F", bound=Callable[..., Any])

path_type = click.Path(path_type=Path)


@dataclass(frozen=True)
class Connection:
    """What a client is made with; see :class:`galatea.Client`."""

    urls: tuple[str, ...]
    timeout: float | None
    patience: float
    security: Security
    transport: TransportName
    hedge: float | None

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Connection:
        """Takes the values of :func:`server_options` out of a command's parameters."""
        take = parameters.pop

        def file(name: str) -> Path | None:
            path: Path | None = take(name)
            # No shell resolves ~ in a settings file.
            return None if path is None else Path(os.path.expanduser(path))

        return cls(
            take("url"),
            take("timeout"),
            take("patience"),
            Security(take("tls"), file("ca"), file("cert"), file("key"), file("token_file")),
            take("transport"),
            take("hedge"),
        )

    @property
    def url(self) -> str:
        """All addresses, for messages."""
        return ", ".join(self.urls)

    def open(self) -> Client:
        """A client.

        Raises:
            InvalidInput, MachineError: see :class:`galatea.Client`.
        """
        return Client(
            self.urls, timeout=self.timeout, patience=self.patience, security=self.security,
            transport=self.transport, hedge=self.hedge,
        )  # fmt: skip


def server_options(command: F) -> F:
    """Adds the options of a connection, given as one argument ``connection``."""

    @functools.wraps(command)
    def connected(*args: Any, **parameters: Any) -> Any:
        connection = Connection.of(parameters)
        return command(*args, connection=connection, **parameters)

    run: Any = connected
    for decorate in SERVER_OPTIONS[::-1]:
        run = decorate(run)
    wrapped: F = run
    return wrapped


def _split(_: click.Context, __: click.Parameter, given: Iterable[str]) -> tuple[str, ...]:
    return tuple(url for entry in given for url in entry.replace(",", " ").split())


def _option(flag: str, help: str, **attributes: Any) -> Callable[[Any], Any]:
    """An option of all commands: one variable sets it for all of them."""
    name = flag.partition("/")[0].removeprefix("--")
    variable = f"GALATEA_{name.replace('-', '_').upper()}"
    return click.option(flag, envvar=variable, allow_from_autoenv=False, help=help, **attributes)


SERVER_OPTIONS = (
    _option("--url", "host:port of a server's gRPC port; again for further servers.",
            multiple=True, default=[DEFAULT_URL], show_default=True, callback=_split),
    _option("--timeout", "Seconds that one request may take.",
            type=float,
            show_default="60, and an hour for models that work in steps"),
    _option("--patience", "Seconds that a request is repeated while it fails for passing reasons.",
            type=float, default=20.0, show_default=True),
    _option("--transport", "How images travel; auto takes shared memory on one machine.",
            type=click.Choice(get_args(TransportName)), default="auto", show_default=True),
    _option("--hedge", "Ask another server too when one takes FACTOR times longer than usual.",
            type=float, metavar="FACTOR"),
    _option("--tls/--no-tls", "Encrypt, and check the server's certificate."),
    _option("--ca", "PEM file of the authorities to check it against.",
            type=path_type, metavar="FILE"),
    _option("--cert", "PEM file with the client's certificate.", type=path_type, metavar="FILE"),
    _option("--key", "PEM file with the key of that.", type=path_type, metavar="FILE"),
    _option("--token-file", "File with a bearer token.", type=path_type, metavar="FILE"),
)  # fmt: skip
