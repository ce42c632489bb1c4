"""What is checked and chosen before Triton is started, where it would fail late or in silence."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from galatea.errors import InvalidInput, MachineError, RepositoryError


def check_repository(repository: Path, variant: str | None) -> None:
    """There are models, and the named configuration exists for one of them at least.

    Raises:
        RepositoryError: there is no such folder, or no model in it.
        InvalidInput: no model has a configuration of that name.
    """
    if not repository.is_dir():
        raise RepositoryError(
            f"{repository}: no such folder",
            "name the model repository with --repository, or export a model into it",
        )
    models = [
        path for path in repository.iterdir() if path.is_dir() and not path.name.startswith(".")
    ]
    if not models:
        raise RepositoryError(
            f"{repository}: holds no model",
            "name the model repository with --repository, or export a model into it",
        )
    # Triton would serve config.pbtxt instead, without a word.
    variants = {path.stem for model in models for path in model.glob("configs/*.pbtxt")}
    if variant is not None and variant not in variants:
        raise InvalidInput(
            f"no model in {repository} has the configuration {variant!r}",
            f"there are: {', '.join(sorted(variants)) or 'none'}",
        )


def address(host: str) -> str:
    """The numeric address of a host; given a name, Triton's HTTP server listens nowhere.

    Raises:
        MachineError: it has none.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise MachineError(
            f"the host {host!r} has no address: {error.strerror or error}",
            "name an address of this machine with --host",
        ) from error
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])


def take_ports(host: str, wanted: Mapping[str, int]) -> dict[str, int]:
    """Ports that are free now, by protocol; a wanted port 0 is replaced by a free one.

    Args:
        host: a numeric address.

    Raises:
        MachineError: a wanted port is taken, or the address is not of this machine.
    """
    held: list[socket.socket] = []
    try:
        for protocol, port in wanted.items():
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            held.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port))
                sock.listen()  # without it, two of ours could have one port
            except OSError as error:
                raise MachineError(
                    f"the {protocol} port {port} on {host} cannot be used: "
                    f"{error.strerror or error}",
                    f"stop what listens there, or choose another --{protocol}-port",
                ) from error
        return {
            protocol: int(sock.getsockname()[1])
            for protocol, sock in zip(wanted, held, strict=True)
        }
    finally:
        for sock in held:
            sock.close()
