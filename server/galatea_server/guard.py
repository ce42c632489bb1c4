"""Replaces itself by a command that is told to end when its parent does.

Run as a script: ``python -I -S guard.py PARENT_PID COMMAND…``. The kernel's parent-death signal
survives ``exec``, so that not even ``kill -9`` of the parent leaves a server behind.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent has gone")  # before the signal was armed
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - a program and its arguments, no shell
