"""Processor time of this process and of servers on this machine, by Linux' ``/proc``."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from galatea._wire.security import is_local

__all__ = ["cpu_seconds", "here", "server_processes"]

PROC = Path("/proc")
SERVER = "tritonserver"  # a proxy may listen in its place, such as Docker's
LISTENS = "0A"  # the state of a socket in /proc/net/tcp


def server_processes(urls: Iterable[str]) -> list[int] | None:
    """Process ids of the Triton servers behind addresses; None unless all are found here.

    Args:
        urls: gRPC addresses, ``host:port``.
    """
    ports = []
    for url in urls:
        port = url.rpartition(":")[2]
        if not is_local(url) or not port.isdecimal():
            return None
        ports.append(int(port))
    try:
        sockets = _listening(set(ports))
        found = {
            sockets[inode]: pid
            for pid in _pids()
            if _name(pid) == SERVER
            for inode in _sockets(pid)
            if inode in sockets
        }
    except OSError:  # no Linux
        return None
    return [found[port] for port in ports] if set(ports) <= set(found) else None


def cpu_seconds(roots: Iterable[int]) -> float | None:
    """User and system time of process trees; None where one of them has ended.

    It is counted in ticks of the kernel, 10 ms on most machines; ended children count.
    """
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for pid in _pids():
        with suppress(OSError):  # it has just ended
            # The name in parentheses may hold spaces; after it come state, ppid, …
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            parents[pid] = int(fields[1])
            ticks[pid] = sum(map(int, fields[11:15]))  # utime stime cutime cstime
    wanted = set(roots)
    if not wanted <= set(ticks):
        return None
    size = -1
    while size != len(wanted):
        size = len(wanted)
        wanted |= {pid for pid, parent in parents.items() if parent in wanted}
    return sum(ticks[pid] for pid in wanted) / os.sysconf("SC_CLK_TCK")


def here() -> tuple[str, int]:
    """This machine's processor and its cores in words, and the number of cores."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in (PROC / "cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {cores} core{'s' * (cores > 1)}", cores


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()]


def _name(pid: int) -> str:
    with suppress(OSError):
        return (PROC / str(pid) / "comm").read_text().strip()
    return ""


def _sockets(pid: int) -> list[str]:
    """Inodes of the sockets that a process has open, where we may look."""
    inodes = []
    with suppress(OSError):
        for entry in (PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                kind, _, inode = os.readlink(entry).partition(":")
                if kind == "socket":
                    inodes.append(inode.strip("[]"))
    return inodes


def _listening(ports: set[int]) -> dict[str, int]:
    """Inode of a socket that listens → its port."""
    found = {}
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):  # a kernel without IPv6
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                port = int(local.rpartition(":")[2], 16)
                if state == LISTENS and port in ports:
                    found[rest[5]] = port
    return found
