"""What a data set is made of: everything that decides its bytes, and nothing else."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

import galatea
from galatea._conditions import seeds
from galatea._requests import whole
from galatea._wire.messages import DTYPES
from galatea.card import ModelCard, from_plain
from galatea.datasets._prompts import Row, deal, differences, make
from galatea.datasets.formats import Format
from galatea.errors import InvalidInput

__all__ = ["JOB", "Job"]

JOB = "job.json"
SCHEMA = 1
SHARD_SAMPLES, SHARD_BYTES = 1000, 16 << 20  # of the default shard, whichever is less


@dataclass(frozen=True)
class Job:
    """An order for a data set; equal orders give equal files, whoever carries them out and when.

    Attributes:
        card: the model, one version of it.
        n: number of samples.
        seed: of sample 0; sample i has ``seed + i``.
        conditions: by name, as they were asked for. ``label`` is a class by name, ``"balanced"``,
            weights by class, or a list with a class for each sample.
        format: name of the format.
        shard_size: samples a shard; the last one may have fewer.
        encoders: package → version, of those that decide how samples become bytes.
        prompts: rows that the samples are dealt to, see :func:`galatea.datasets._prompts.deal`;
            their conditions are those that differ by sample.
    """

    card: ModelCard
    n: int
    seed: int
    conditions: dict[str, Any]
    format: str
    shard_size: int
    encoders: dict[str, str]
    schema: int = SCHEMA
    prompts: tuple[Row, ...] = ()

    @property
    def shards(self) -> int:
        """Number of shards."""
        return math.ceil(self.n / self.shard_size)

    def start(self, shard: int) -> int:
        """Index of the first sample of a shard; of shard :attr:`shards`, the number of samples."""
        return min(shard * self.shard_size, self.n)

    def count(self, shard: int) -> int:
        """Number of samples of a shard."""
        return self.start(shard + 1) - self.start(shard)

    def arguments(self, stop: int | None = None) -> dict[str, Any]:
        """The conditions as :meth:`galatea.Client.stream` takes them, for samples before `stop`."""
        cut = {
            name: value[:stop] if isinstance(value, list) else value
            for name, value in self.conditions.items()
        }
        for name in self.prompts[0].conditions if self.prompts else ():
            values = [row.conditions[name] for row in self.prompts]
            cut[name] = [values[k] for k in self._dealt[:stop]]
        return {("labels" if name == "label" else name): value for name, value in cut.items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes 0, 1, …: the model's, or the labels of the prompts; () without."""
        if self.card.label is not None:
            return self.card.label.labels
        return tuple(dict.fromkeys(row.label for row in self.prompts if row.label is not None))

    @cached_property
    def own_labels(self) -> NDArray[np.int64] | None:
        """Class of each sample, int64 [n], by the labels of the prompts; None without."""
        if not self.prompts or self.prompts[0].label is None:
            return None
        numbers = {name: k for k, name in enumerate(self.classes)}
        of_row = [numbers[row.label] for row in self.prompts if row.label is not None]
        labels: NDArray[np.int64] = np.array(of_row, np.int64)[self._dealt]
        return labels

    @cached_property
    def _dealt(self) -> NDArray[np.int64]:
        """The row of each sample."""
        return deal(self.prompts)

    @cached_property
    def digest(self) -> str:
        """Short name of the data set: equal for equal samples in equal files, 32 hex digits.

        The versions of the encoders play no part in it.
        """
        told = {**self.to_plain(), "encoders": None}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]

    def to_plain(self) -> dict[str, Any]:
        """The job as plain JSON types."""
        plain = {**asdict(self), "card": self.card.to_dict()}
        if not self.prompts:
            del plain["prompts"]
        return plain

    def to_json(self) -> bytes:
        """The content of ``job.json``, equal bytes for equal jobs."""
        return to_json(self.to_plain())

    @classmethod
    def from_plain(cls, plain: Any) -> Job:
        """Reads what :meth:`to_plain` gives.

        Raises:
            TypeError, ValueError: it is no job, or of another schema.
        """
        job = from_plain(cls, plain)
        if job.schema != SCHEMA:
            raise ValueError(f"it has schema {job.schema}, this galatea reads schema {SCHEMA}")
        if job.n < 1 or job.shard_size < 1:
            raise ValueError("it has no samples")
        if job.prompts and not make(job.prompts, job.n):
            raise ValueError("its prompts are not those of its samples")
        return job

    def differences(self, other: Job) -> list[str]:
        """What another job has otherwise, as ``"seed 1, not 0"``; nothing where they are equal."""

        def told(job: Job) -> dict[str, Any]:
            card = job.card
            return {
                "model": card.name,
                "version": card.version,
                "weights": f"sha256:{card.checkpoint_sha256}",
                "n": job.n,
                "seed": job.seed,
                **{name: _short(value) for name, value in job.conditions.items()},
                "format": job.format,
                "shard size": job.shard_size,
                **job.encoders,
            }

        mine, its = told(self), told(other)
        found = [
            f"{name} {its.get(name, 'none')}, not {mine.get(name, 'none')}"
            for name in {**mine, **its}
            if mine.get(name) != its.get(name)
        ]
        found += differences(self.prompts, other.prompts)
        return found or (["another model card"] if self.card != other.card else [])


def new_job(
    card: ModelCard,
    n: int | None,
    seed: int,
    conditions: Mapping[str, Any],
    form: Format,
    shard_size: int | None,
    prompts: tuple[Row, ...] = (),
) -> Job:
    """The job that a caller's arguments mean, written in one way only.

    Raises:
        InvalidInput: `n` or the shard size is no count, or `n` is not that of the prompts; a seed
            is none; the model does not start from seeds; or the format cannot keep its images.
    """
    if card.source_picture is not None:
        raise InvalidInput(
            f"{card.name} makes pictures from pictures, not from seeds",
            f"run: galatea translate {card.name} INPUTS -o FOLDER",
        )
    form.check(card)
    ordered = sum(row.n for row in prompts)
    if prompts and n not in (None, ordered):
        raise InvalidInput(
            f"n is {n}, and the prompts make {ordered} images together",
            "leave n out, or change the numbers of the prompts",
        )
    total = ordered if prompts else whole(n)
    seeds(seed, total)
    size = _default_shard(card) if shard_size is None else whole(shard_size, "the shard size")
    told = {name: _plain(value) for name, value in conditions.items() if value is not None}
    if card.label is not None and not (prompts and "label" in prompts[0].conditions):
        told["label"] = _plan(card.label.labels, told.get("label", "balanced"))
    return Job(
        card, total, int(seed), told, form.name, size, encoders(form), prompts=prompts
    )  # fmt: skip


def encoders(form: Format) -> dict[str, str]:
    """The packages that decide how samples become bytes, with the versions of this machine."""
    installed = {name: version(name) for name in sorted(form.packages)}
    return {"galatea": galatea.__version__, **installed}


def to_json(plain: Any) -> bytes:
    """JSON for people and programs: equal bytes for equal content."""
    return (json.dumps(plain, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _default_shard(card: ModelCard) -> int:
    kept = [output for output in card.outputs if output.name in ("image", "mask")]
    sample = sum(math.prod(out.shape) * DTYPES[out.dtype].itemsize for out in kept)
    return max(1, min(SHARD_SAMPLES, SHARD_BYTES // sample))


def _plan(classes: tuple[str, ...], asked: Any) -> Any:
    """Labels with every class by its name, but in a list with one for each sample by its number.

    What is no class stays as it is, for the client to refuse.
    """

    def number(value: Any) -> Any:
        if isinstance(value, str):
            if value in classes:
                return classes.index(value)
            return int(value) if value.isdecimal() else value
        return value

    def name(value: Any) -> Any:
        k = number(value)
        return classes[k] if isinstance(k, int) and 0 <= k < len(classes) else value

    if isinstance(asked, dict):
        return {str(name(value)): weight for value, weight in asked.items()}
    if isinstance(asked, list):
        return [number(value) for value in asked]
    return name(asked)


def _plain(value: Any) -> Any:
    """Plain JSON types for what NumPy and Python have several of."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return value


def _short(value: Any) -> Any:
    """A value as a message can hold it."""
    return f"a list of {len(value)}" if isinstance(value, list) else value
