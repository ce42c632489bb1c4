"""Terms that restrict the use of weights: shown, and accepted once for each entry."""

from __future__ import annotations

import json
import os
from pathlib import Path

from galatea._files import write_atomically
from galatea.catalogue import Entry
from galatea.errors import InvalidInput, MachineError

__all__ = ["require_acceptance"]


def require_acceptance(entry: Entry, *, accept: bool) -> None:
    """Goes on where nothing restricts use, or the terms were or now are accepted.

    Args:
        accept: the user accepts them now; it is remembered until the terms change.

    Raises:
        InvalidInput: they were not accepted; the message shows them.
        MachineError: that they were accepted cannot be written down.
    """
    if not entry.terms or _read().get(entry.id) == _terms(entry):
        return
    if not accept:
        raise InvalidInput(
            f"{entry.id} restricts use. Licence: {_terms(entry)}",
            "if you accept that, run the command again with --accept-licence; see also "
            f"{entry.weights.page}",
        )
    accepted = {**_read(), entry.id: _terms(entry)}
    try:
        write_atomically(_file(), (json.dumps(accepted, indent=1, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise MachineError(
            f"{_file()}: cannot be written: {error.strerror or error}",
            "set XDG_CONFIG_HOME to a folder that you may write to",
        ) from error


def _terms(entry: Entry) -> str:
    return f"{entry.licence}. {entry.terms}"


def _file() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "galatea" / "licences.json"


def _read() -> dict[str, str]:
    """Id → terms as they were accepted; a file that cannot be read has accepted nothing."""
    try:
        accepted = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return accepted if isinstance(accepted, dict) else {}
