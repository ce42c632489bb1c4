"""The errors of galatea.

::

    GalateaError                 exit code
    ├── MachineError             1   this machine lacks something: an extra, a library, a free port,
    │                                room on the disk, a folder that can be written
    ├── ServerError              1   the server answered with a failure of its own
    ├── ServerUnreachable        3   nobody answers, or the connection broke
    ├── ModelUnavailable         4   the server has no such model (or version), or it is not ready
    ├── InvalidInput             5   an argument, a setting or a file that does not fit, such as one
    │                                that the model's card does not allow
    ├── ExportError              5   a checkpoint that is unsafe, damaged or of another family, or
    │                                a graph that does not compute what the checkpoint does
    ├── RepositoryError          5   a release that is missing, changed or damaged
    └── DeadlineExceeded         6   the time allowed has passed

Every message names the thing and the reason; :attr:`GalateaError.remedy` is the next step.
"""

from __future__ import annotations

__all__ = [
    "DeadlineExceeded",
    "ExportError",
    "GalateaError",
    "InvalidInput",
    "MachineError",
    "ModelUnavailable",
    "RepositoryError",
    "ServerError",
    "ServerUnreachable",
]


class GalateaError(Exception):
    """Root of all errors that galatea raises on purpose.

    Args:
        problem: the thing and the reason, in one sentence without a full stop.
        remedy: what to do or which command to run next.

    Attributes:
        exit_code: of the command that ends with it.
        passing: whether the same call may succeed soon.
    """

    exit_code = 1
    passing = False

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


class MachineError(GalateaError):
    """This machine lacks something: an extra, a library, a port, disk space, permission."""


class ServerError(GalateaError):
    """The server answered with a failure of its own."""


class ServerUnreachable(GalateaError):
    """Nobody answers at the address, or the connection broke before the answer."""

    exit_code = 3
    passing = True


class ModelUnavailable(GalateaError):
    """The server has no such model or version, or the model is not ready."""

    exit_code = 4


class InvalidInput(GalateaError):
    """An argument, a setting or a file that does not fit."""

    exit_code = 5


class ExportError(GalateaError):
    """A checkpoint is unsafe, damaged or of another family, or its graph failed parity."""

    exit_code = 5


class RepositoryError(GalateaError):
    """A model repository or a release in it is missing, changed or damaged."""

    exit_code = 5


class DeadlineExceeded(GalateaError):
    """The time allowed has passed before the answer."""

    exit_code = 6
