"""Making a data set again from its manifest alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from galatea.card import ModelCard
from galatea.client import Client
from galatea.datasets._check import read_manifest
from galatea.datasets._generate import Outcome, Progress, carry_out
from galatea.datasets._job import Job, encoders
from galatea.datasets._manifest import Manifest
from galatea.datasets._stores import open_store
from galatea.datasets.formats import find_format
from galatea.errors import ModelUnavailable

__all__ = ["Regenerated", "regenerate"]


@dataclass(frozen=True)
class Regenerated:
    """How a data set that was made again compares with the one of its manifest.

    Attributes:
        outcome: what was made.
        other_files: numbers of the shards that have the same samples in files of other bytes.
        other_samples: numbers of the shards that have other samples.
        other_encoders: of the packages that write the files, those with another version than then,
            as ``"Pillow 12.0, not 11.3"``.
    """

    outcome: Outcome
    other_files: tuple[int, ...]
    other_samples: tuple[int, ...]
    other_encoders: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether every file has the same bytes."""
        return not self.other_files and not self.other_samples


def regenerate(
    client: Client,
    manifest: str | Path,
    output: str | Path,
    *,
    batch_size: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Regenerated:
    """Makes the data set that a manifest describes, and compares the two shard by shard.

    Like :func:`generate` it goes on where it was interrupted. Files have the same bytes where the
    packages that write them have the same versions. Samples have the same pixels where the servers'
    build of the runtime and kind of processor are the same; otherwise a few pixels may differ by a
    level.

    Args:
        client: of the servers to sample from.
        manifest: ``dataset.json`` wherever it lies, or the folder or URL of a data set.
        output, batch_size, progress: see :func:`generate`.

    Raises:
        ModelUnavailable: another version of the model is served, or other weights or graphs.
        InvalidInput: there is no manifest, or `output` holds something else.
        MachineError, ServerUnreachable, DeadlineExceeded, ServerError: see :func:`generate`.
    """
    wanted = read_manifest(manifest)
    form = find_format(wanted.job.format)
    _same_model(client.model(wanted.job.card.name), wanted.job.card)
    job = replace(wanted.job, encoders=encoders(form))
    outcome = carry_out(client, job, open_store(output), shard=(0, 1), batch_size=batch_size,
                        progress=progress)  # fmt: skip
    assert outcome.manifest is not None
    return _compared(outcome, outcome.manifest, wanted)


def _same_model(served: ModelCard, wanted: ModelCard) -> None:
    if served == wanted:
        return
    facts = (
        ("version", str(served.version), str(wanted.version)),
        ("weights", served.checkpoint_sha256[:12], wanted.checkpoint_sha256[:12]),
        ("graphs", served.graphs, wanted.graphs),
        ("exporter", served.exporter, wanted.exporter),
    )
    name, its, then = next((fact for fact in facts if fact[1] != fact[2]), ("card", None, None))
    what = f"{name} {its}, not {then}" if isinstance(its, str) else f"another {name}"
    raise ModelUnavailable(
        f"the {wanted.name} that is served is not the one of the data set: {what}",
        f"serve version {wanted.version} with the weights sha256:{wanted.checkpoint_sha256}",
    )


def _compared(outcome: Outcome, made: Manifest, wanted: Manifest) -> Regenerated:
    pairs = list(zip(made.shards, wanted.shards, strict=True))
    samples = [one.index for one, two in pairs if one.samples_sha256 != two.samples_sha256]
    files = [one.index for one, two in pairs if one.sha256 != two.sha256]
    return Regenerated(
        outcome,
        tuple(k for k in files if k not in set(samples)),
        tuple(samples),
        tuple(_other_encoders(made.job, wanted.job)),
    )


def _other_encoders(made: Job, wanted: Job) -> list[str]:
    return [
        f"{name} {version}, not {wanted.encoders.get(name, 'none')}"
        for name, version in made.encoders.items()
        if wanted.encoders.get(name) != version
    ]
