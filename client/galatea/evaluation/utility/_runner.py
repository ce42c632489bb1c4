"""The user's own training, as a command that is run once for each training of a study.

The command gets a folder as its last argument::

    job.json            task, arm, fraction, repeat and seed
    train/cases.csv     image, label, mask, kind ("real" or "synthetic"); files beside it
    test/cases.csv      image; neither classes nor masks are told

and leaves its answers in it: ``predictions.csv`` with the columns image and label, or the folder
``predictions`` with a mask for each image of the test, of the same file name and not 0 inside.
"""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.errors import InvalidInput, MachineError
from galatea.evaluation._frechet import Floats
from galatea.evaluation._intensity import Intensity
from galatea.evaluation.utility._cases import TABLE, Case, Cases
from galatea.evaluation.utility._scores import dice
from galatea.evaluation.utility._split import Indices, Training

__all__ = ["Runner"]


class Runner:
    """A command that trains, and answers for the images to test with.

    Args:
        command: as in a shell, which is not started.
        task: "classify" or "segment".
        intensity: how pixels become those of the PNG files that the command gets.
        test: indices of the real images to test with.
    """

    def __init__(
        self,
        command: str,
        real: Cases,
        synthetic: Cases,
        *,
        task: str,
        intensity: Intensity,
        test: Indices,
    ) -> None:
        self._command = shlex.split(command)
        if not self._command:
            raise InvalidInput("the command of the runner is empty", "give --runner COMMAND")
        self._real, self._synthetic, self._task = real, synthetic, task
        self._intensity = intensity
        self._test = [real.cases[i] for i in test]

    def facts(self) -> dict[str, Any]:
        """What it is, as plain JSON types."""
        return {"learner": "runner", "command": shlex.join(self._command)}

    def __call__(self, training: Training) -> Floats:
        """The outcome of each tested image, [n]: Dice, or 1 where its class is right.

        Raises:
            InvalidInput: the command failed, or its answers do not fit.
            MachineError: it cannot be started.
        """
        with tempfile.TemporaryDirectory(prefix="galatea-utility-") as name:
            folder = Path(name)
            self._write(folder, training)
            try:
                # What it prints must not get between the data that galatea prints.
                done = subprocess.run(
                    [*self._command, name], stdout=sys.stderr.fileno(), check=False
                )
            except OSError as error:
                raise MachineError(
                    f"{self._command[0]}: cannot be started: {error.strerror or error}",
                    "check the command of --runner",
                ) from error
            if done.returncode:
                raise InvalidInput(
                    f"{self._command[0]} ended with {done.returncode}",
                    "read what it said above, and mend it",
                )
            return self._masks(folder) if self._task == "segment" else self._classes(folder)

    def _write(self, folder: Path, training: Training) -> None:
        job = {
            "task": self._task, "arm": training.arm, "fraction": training.fraction,
            "repeat": training.repeat, "seed": training.seed,
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job, indent=1) + "\n")
        kinds = {"real": [self._real.cases[i] for i in training.real]}
        if training.synthetic:
            kinds["synthetic"] = list(self._synthetic.cases)
        train = folder / "train"
        train.mkdir()
        rows = []
        for kind, cases in kinds.items():
            for i, case in enumerate(cases):
                stem = f"{kind}-{i:06d}"
                self._image(train / f"{stem}.png", case)
                mask = f"{stem}-mask.png" if case.picture.mask is not None else ""
                if case.picture.mask is not None:
                    _save(train / mask, (case.picture.mask > 0).astype(np.uint8) * 255)
                rows.append([f"{stem}.png", case.label or "", mask, kind])
        _table(train / TABLE, ("image", "label", "mask", "kind"), rows)
        test = folder / "test"
        test.mkdir()
        for name, case in zip(self._names(), self._test, strict=True):
            self._image(test / name, case)
        _table(test / TABLE, ("image",), [[name] for name in self._names()])

    def _image(self, path: Path, case: Case) -> None:
        pixels = self._intensity.apply(case.picture)
        grey = (pixels == pixels[..., :1]).all()
        _save(path, np.ascontiguousarray(pixels[..., 0] if grey else pixels))

    def _names(self) -> list[str]:
        return [f"{i:06d}.png" for i in range(len(self._test))]

    def _classes(self, folder: Path) -> Floats:
        path = folder / "predictions.csv"
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                answers = {row["image"]: row["label"] for row in csv.DictReader(file)}
            found = [answers[name] for name in self._names()]
        except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
            raise _unfit("predictions.csv", error) from error
        return np.array(
            [label == case.label for label, case in zip(found, self._test, strict=True)], np.float64
        )

    def _masks(self, folder: Path) -> Floats:
        from PIL import Image

        outcomes = []
        for name, case in zip(self._names(), self._test, strict=True):
            try:
                with Image.open(folder / "predictions" / name) as image:
                    found = np.asarray(image)
            except OSError as error:
                raise _unfit(f"predictions/{name}", error) from error
            assert case.picture.mask is not None
            truth = case.picture.mask > 0
            if found.shape != truth.shape:
                raise _unfit(
                    f"predictions/{name}", f"it is {list(found.shape)}, not {list(truth.shape)}"
                )
            outcomes.append(dice(found[None] > 0, truth[None])[0])
        return np.array(outcomes)


def _table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path)


def _unfit(name: str, reason: object) -> InvalidInput:
    what = f"{reason} is missing" if isinstance(reason, KeyError) else reason
    return InvalidInput(
        f"{name} of the runner cannot be used: {what}",
        "let it answer for every image of test/cases.csv",
    )
