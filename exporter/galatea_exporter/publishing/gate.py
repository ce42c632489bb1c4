"""The gate: runs every check on a release, and writes down what it found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import onnxruntime

import galatea
from galatea.card import ModelCard
from galatea.errors import InvalidInput, RepositoryError
from galatea.evaluation import Report
from galatea.repository import Release
from galatea_exporter.publishing import evaluations
from galatea_exporter.publishing.checks import CHECKS, Candidate, Limits, Problem
from galatea_exporter.publishing.golden import SEEDS, Golden, compute
from galatea_exporter.publishing.publication import SCHEMA

__all__ = ["Verdict", "check"]


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the gate found.

    Attributes:
        problems: by the check's name; empty lists where all is well.
        golden: the golden samples, where they could be made.
    """

    release: Release
    card: ModelCard
    report: Report | None
    problems: dict[str, list[Problem]]
    golden: Golden | None

    @property
    def passed(self) -> bool:
        """Whether nothing is to be mended."""
        return not any(self.problems.values())

    def document(self) -> dict[str, Any]:
        """The content of ``check.json`` as plain JSON types."""
        golden, report = self.golden, self.report
        return {
            "schema": SCHEMA,
            "galatea": galatea.__version__,
            "name": self.release.name,
            "version": self.release.version,
            "manifest": sha256(self.release.to_json()).hexdigest(),
            "passed": self.passed,
            "checks": [
                {
                    "name": check.name,
                    "asks": check.asks,
                    "passed": not self.problems[check.name],
                    "problems": [vars(problem) for problem in self.problems[check.name]],
                }
                for check in CHECKS
            ],
            "measured": {
                "bytes": self.release.size,
                "seconds_per_sample": None if golden is None else round(golden.seconds, 4),
                "memory_bytes": None if golden is None else golden.memory,
                "runtime": f"onnxruntime {onnxruntime.__version__} CPU",
            },
            "golden": None if golden is None else _digests(golden),
            "evaluation": None if report is None else evaluations.summary(report),
            "memorisation": evaluations.memorisation(report),
        }

    def to_json(self) -> bytes:
        """``check.json``."""
        return (json.dumps(self.document(), indent=1, ensure_ascii=False) + "\n").encode()


def check(
    release: Release,
    *,
    report: Report | None = None,
    limits: Limits | None = None,
    steps: int | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Verdict:
    """Checks a release by all of :data:`galatea_exporter.publishing.checks.CHECKS`.

    Args:
        report: of ``galatea evaluate run`` on this release.
        limits: what it may cost.
        steps: of a diffusion model's golden samples; default is what its card says.

    Raises:
        InvalidInput: it is an extractor, which is not published; or `steps` does not fit.
        RepositoryError: its card cannot be read.
    """
    card = release.card()
    if card.task == "extractor":
        raise InvalidInput(
            f"{release.name} is an extractor, and galatea publishes generators",
            "point to the publisher of its weights instead",
        )
    golden, failure = None, ""
    try:
        golden = compute(release, card, steps=steps, progress=progress)
    except RepositoryError as error:
        failure = error.problem
    candidate = Candidate(release, card, limits or Limits(), report, golden, failure)
    problems = {}
    progress("checking files, texts and figures")
    for rule in CHECKS:
        problems[rule.name] = list(rule.find(candidate))
    return Verdict(release, card, report, problems, golden)


def _digests(golden: Golden) -> dict[str, Any]:
    outputs = golden.alone
    return {
        "seeds": list(SEEDS),
        "batches": [1, golden.batch],
        "equal_bytes": all(
            np.array_equal(made, golden.together[name]) for name, made in outputs.items()
        ),
        "conditions": {
            name: [value.decode() if isinstance(value, bytes) else value for value in values.flat]
            if values.dtype == np.object_
            else values.ravel().tolist()
            for name, values in golden.inputs.items()
            if name not in ("seed", "source")
        },
        "sha256": {
            name: [sha256(np.ascontiguousarray(one).tobytes()).hexdigest() for one in made]
            for name, made in outputs.items()
        },
    }
