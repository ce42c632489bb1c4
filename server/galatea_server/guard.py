"""Replaces itself by tritonserver, and sees to it that nothing of it outlives it.

Run as a script: ``python -I -S guard.py PARENT_PID REGIONS COMMAND…``. Two things happen before
the command is executed:

- The kernel is asked for a signal at the parent's death. That survives ``exec``, so that not even
  ``kill -9`` of the parent leaves a server behind.
- A process on its own waits for the server's end and calls :func:`clean`. A Triton that ends while
  it loads leaves the Python processes of its models waiting for ever.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the kernel's, not a temporary file


def clean(group: int, regions: str) -> None:
    """Ends what is left of a process group, and frees its shared memory.

    Args:
        group: id of the process group, which is that of its tritonserver.
        regions: what the names of its shared memory regions begin with.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    for name in os.listdir(SHARED_MEMORY):
        if name.startswith(regions):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(SHARED_MEMORY, name))


def leave_cleaner(regions: str) -> None:
    """Starts the process that cleans up after this one; no child of ours, so Triton is not told."""
    server = os.getpid()
    try:
        ended = os.pidfd_open(server)
    except OSError:  # a kernel before 5.3; the parent still cleans up while it lives
        return
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os.close(ended)
        return
    try:
        os.setsid()  # out of the group that it will end
        if os.fork() == 0:
            select.select([ended], [], [])
            clean(server, regions)
    finally:
        os._exit(0)


if __name__ == "__main__":
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent has gone")  # before the signal was armed
    leave_cleaner(sys.argv[2])
    os.execv(sys.argv[3], sys.argv[3:])  # noqa: S606 - a program and its arguments, no shell
