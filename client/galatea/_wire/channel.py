"""gRPC channels: addresses, retries, load balancing, keepalive and message sizes."""

from __future__ import annotations

import json
import re

import grpc

from galatea._wire.security import Security
from galatea.errors import InvalidInput

__all__ = ["check_address", "open_channel"]

SERVICE = "inference.GRPCInferenceService"

# Every call may be repeated: what a server makes depends on the request alone. gRPC repeats a few
# times within half a second; what takes longer is the pool's.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": SERVICE}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 4,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}

OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.primary_user_agent", "galatea"),
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    ("grpc.per_rpc_retry_buffer_size", 64 << 20),  # pictures of one request
    # A server that comes back is found within two seconds; gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.dns_min_time_between_resolutions_ms", 5000),
    # A peer that vanished without a word is noticed while a request is on its way. Triton takes
    # pings more often than every five minutes for an attack after the second one.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 2),
    # Channels of one process to one address would share a connection otherwise.
    ("grpc.use_local_subchannel_pool", 1),
]

SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract):")


def check_address(address: str) -> str:
    """An address as gRPC takes it: ``host:port``, or with a scheme such as ``dns:///host:port``.

    Raises:
        InvalidInput: it is something else.
    """
    if not isinstance(address, str) or not _is_address(address):
        raise InvalidInput(
            f"{address!r} is no address of a gRPC port", "give host:port, e.g. localhost:8001"
        )
    return address


def open_channel(address: str, security: Security) -> grpc.Channel:
    """A channel to an address; nothing is sent yet.

    Raises:
        InvalidInput, MachineError: see :class:`Security`.
    """
    security.check(address)
    credentials = security.credentials()
    if credentials is None:
        return grpc.insecure_channel(address, options=OPTIONS)
    return grpc.secure_channel(address, credentials, options=OPTIONS)


def _is_address(address: str) -> bool:
    if SCHEME.match(address):
        return True
    if "://" in address:
        return False
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536 and not re.search(r"\s", host)
