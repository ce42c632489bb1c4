"""Publishing a release that passed the gate."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from galatea import _tiles
from galatea.errors import RepositoryError
from galatea_exporter.publishing.gate import Verdict
from galatea_exporter.publishing.golden import SEEDS
from galatea_exporter.publishing.places import open_place
from galatea_exporter.publishing.places.zenodo import deposit
from galatea_exporter.publishing.publication import CHECK, README, SAMPLES, SIGNATURE, Label
from galatea_exporter.publishing.readme import readme
from galatea_exporter.publishing.signatures import sign
from galatea_exporter.release import Content

__all__ = ["Published", "publication", "publish"]

ACROSS = 4  # samples in a row of the sheet


@dataclass(frozen=True)
class Published:
    """Where a release lies now, and whether it did not before."""

    place: str
    new: bool


def publish(
    verdict: Verdict, target: str | Path, *, key: Path | None = None, creators: Sequence[str] = ()
) -> Published:
    """Publishes a release with its card for people, its samples and ``check.json``.

    Args:
        target: a folder, or the URL of a place, see :func:`open_place`; ``zenodo://HOST`` makes a
            draft there.
        key: private key to sign with.
        creators: of the model, for a draft.

    Raises:
        RepositoryError: it did not pass, or something else is published there.
        InvalidInput, MachineError, ServerUnreachable: see :class:`Place`.
    """
    name, version = verdict.release.name, verdict.release.version
    if not verdict.passed:
        failed = [rule for rule, problems in verdict.problems.items() if problems]
        raise RepositoryError(
            f"{name} version {version} is not ready to be published: {', '.join(failed)}",
            f"run: galatea publish {name} --check",
        )
    scheme, _, host = str(target).partition("://")
    if scheme == "zenodo":
        return Published(deposit(host, verdict.card, publication(verdict, key), creators), True)
    place = open_place(target)
    there = place.read(CHECK)
    if there is not None:
        label, own = Label.read(place.url, there), Label.read("", verdict.to_json())
        if label == own:
            return Published(place.url, False)
        raise RepositoryError(
            f"{place.url}: holds {label.name} version {label.version} with other content, and "
            "publications never change",
            "choose another place, such as one with the version in its name",
        )
    place.put(publication(verdict, key))
    return Published(place.url, True)


def publication(verdict: Verdict, key: Path | None = None) -> dict[str, Content]:
    """The files of a publication by their path, ``check.json`` last; `key` to sign them with."""
    release = verdict.release
    files: dict[str, Content] = {path: release.root / path for path in release.files}
    files[Label.read("", verdict.to_json()).manifest] = release.to_json()
    files[SAMPLES] = _sheet(verdict)
    files[README] = readme(verdict).encode()
    head = verdict.to_json()
    if key is not None:
        files[SIGNATURE] = sign({**files, CHECK: head}, key)
    return {**files, CHECK: head}


def _sheet(verdict: Verdict) -> bytes:
    """The golden samples in one PNG, masks as outlines, translations beside their sources."""
    assert verdict.golden is not None
    made, sources = verdict.golden.alone, verdict.golden.inputs.get("source")
    tiles = []
    for i in range(len(SEEDS)):
        mask = made["mask"][i, ..., 0] if "mask" in made else None
        before = [] if sources is None else [_tiles.panels(sources[i])]
        tiles.append(_tiles.tile([*before, _tiles.panels(made["image"][i], mask)]))
    buffer = io.BytesIO()
    _tiles.sheet(tiles, ACROSS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
