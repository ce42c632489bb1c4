"""The winner, written as a variant of the release that this machine has added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from galatea._pbtxt import config_text
from galatea.local_variants import FOLDER, add, check_name
from galatea.measured import MEASURED_PARAMETER
from galatea.repository import Release
from galatea_server.configurations import configurations, heavy
from galatea_server.tuning.result import Tuned
from galatea_server.tuning.settings import tuned

__all__ = ["write"]


def write(release: Release, outcome: Tuned, variant: str) -> Tuned:
    """Adds the best settings to the release, with their figures.

    Args:
        outcome: of the tuning, with a best.
        variant: its name, for ``galatea serve --model-config``.

    Returns:
        The outcome, with what was written.

    Raises:
        InvalidInput: `variant` is no name, or one that the release has.
        MachineError: the repository cannot be written; nothing half is served.
    """
    check_name(variant, release.variants())
    assert outcome.best is not None
    assert outcome.measured is not None
    measured = replace(outcome.measured, variant=variant)
    configs = tuned(configurations(release, outcome.best.variant), heavy(release), outcome.best)
    configs[release.name].parameters[MEASURED_PARAMETER].string_value = measured.to_json()
    contents = {
        f"{model}/{release.version}/{FOLDER}/{variant}.pbtxt": config_text(config)
        for model, config in configs.items()
    }
    added = add(
        release.root, release.name, release.version, variant, contents, _facts(outcome),
        active=release.active,
    )  # fmt: skip
    return replace(outcome, measured=measured, written=tuple(added.copies()))


def _facts(outcome: Tuned) -> Mapping[str, Any]:
    assert outcome.best is not None
    return {
        "made_by": "galatea tune",
        "target": outcome.target,
        "settings": asdict(outcome.best),
        "baseline": asdict(outcome.baseline),
        "gain": outcome.gain,
        "noise": outcome.noise,
        "measured": outcome.measured.to_dict() if outcome.measured else None,
    }
