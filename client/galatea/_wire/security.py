"""How connections are protected: TLS, certificates of the client, and bearer tokens."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

import grpc

from galatea.errors import InvalidInput, MachineError

__all__ = ["Security", "is_local"]


@dataclass(frozen=True)
class Security:
    """What protects a connection; nothing does by default.

    Attributes:
        tls: encrypt, and check the server's certificate.
        ca: PEM file of the authorities that the server's certificate is checked against; by default
            those that gRPC brings. Implies `tls`.
        certificate, key: PEM files by which the client proves who it is (mTLS). Imply `tls`.
        token: file with a bearer token, which is read again whenever it changes.
    """

    tls: bool = False
    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    token: str | Path | None = None

    @property
    def encrypted(self) -> bool:
        """Whether there is TLS."""
        return bool(self.tls or self.ca or self.certificate or self.key)

    def credentials(self) -> grpc.ChannelCredentials | None:
        """What gRPC needs for TLS; None without.

        Raises:
            InvalidInput: a certificate without its key, or the other way round.
            MachineError: a file cannot be read.
        """
        if bool(self.certificate) != bool(self.key):
            given, missing = ("certificate", "key") if self.certificate else ("key", "certificate")
            raise InvalidInput(f"a client {given} without its {missing}", f"give the {missing} too")
        if not self.encrypted:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca) if self.ca else None,
            private_key=_read(self.key) if self.key else None,
            certificate_chain=_read(self.certificate) if self.certificate else None,
        )

    def check(self, address: str) -> None:
        """Refuses to send a token in clear over a network.

        Raises:
            InvalidInput: there is a token, no TLS, and `address` is not on this machine.
        """
        if self.token and not self.encrypted and not is_local(address):
            raise InvalidInput(
                f"{address}: a token would travel in clear", "use TLS: tls=True, or --tls"
            )


class Token:
    """A bearer token in a file, such as the one that Kubernetes renews."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._stamp: tuple[int, int] | None = None
        self._text = ""

    def header(self) -> tuple[str, str]:
        """The entry ``authorization`` of a call's metadata.

        Raises:
            MachineError: the file cannot be read, or is empty.
        """
        try:
            status = os.stat(self._path)
            stamp = status.st_mtime_ns, status.st_ino
            if stamp != self._stamp:
                self._text, self._stamp = _read(self._path).decode("ascii").strip(), stamp
        except (OSError, UnicodeDecodeError) as error:
            raise MachineError(
                f"{self._path}: no token: {getattr(error, 'strerror', None) or error}",
                "give a text file that holds the token alone",
            ) from error
        if not self._text or not self._text.isprintable():
            raise MachineError(f"{self._path}: no token", "give a text file that holds it alone")
        return "authorization", f"Bearer {self._text}"


def is_local(address: str) -> bool:
    """Whether an address is surely one of this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition("/")[2].rpartition(":")[0].strip("[]")
    host = host.removeprefix("ipv4:").removeprefix("ipv6:").strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise MachineError(
            f"{path}: cannot be read: {error.strerror or error}", "name a file that can be read"
        ) from error
