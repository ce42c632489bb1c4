"""The whole way from an entry of the catalogue to a release."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path

from galatea.card import ModelCard
from galatea.catalogue import Entry
from galatea.errors import ExportError, InvalidInput
from galatea_exporter.export import Exported, Facts, export
from galatea_exporter.family import families, parse_options
from galatea_exporter.importing import package
from galatea_exporter.importing.download import Progress, download
from galatea_exporter.importing.licences import require_acceptance

__all__ = ["default_name", "differences", "import_entry"]


def import_entry(
    entry: Entry,
    source: str = "",
    *,
    repository: Path,
    member: str | None = None,
    name: str = "",
    settings: Mapping[str, str] | None = None,
    accept_licence: bool = False,
    max_batch: int | None = None,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda step: None,
    downloading: Progress = lambda done, total: None,
) -> Exported:
    """Exports an entry's published weights with its configuration; its facts go onto the card.

    Args:
        source: path of the package (zip file or folder) or of the checkpoint, or the address of a
            copy of the package; by default it is downloaded from its record.
        repository: folder of the model repository, made if it is not there.
        member: which checkpoint of a package that holds several; see :class:`Weights`.
        name: public name of the model; default is :func:`default_name`.
        settings: family options as texts; they win over the entry's configuration.
        accept_licence: accept the terms that restrict use.
        max_batch, dry_run: see :func:`export`.
        progress: called with a sentence at each step.
        downloading: called with the bytes that are there, and those of the whole where known.

    Raises:
        InvalidInput: the terms were not accepted, or an argument is not valid.
        ExportError: the weights cannot be exported, or the package is damaged or unsafe.
        ServerUnreachable, ServerError, MachineError: see :func:`download`.
        RepositoryError: see :func:`export`.
    """
    _check_support(entry, source)
    entry.weights.member_files(member)
    family = families()[entry.family]
    facts = _facts(entry, member)
    parse_options(family.options, dict(settings or {}))  # a mistake is told before a long download
    require_acceptance(entry, accept=accept_licence)
    is_address = bool(re.match("https?://", source))
    if is_address or not source:
        progress(f"getting the package of {entry.id}")
        path = download(entry, source if is_address else "", progress=downloading, say=progress)
    else:
        path = Path(source)
    with package.checkpoint(path, entry, member) as checkpoint:
        return export(
            entry.family,
            checkpoint,
            name=name or default_name(entry, member),
            repository=repository,
            facts=facts,
            settings=settings,
            max_batch=max_batch,
            dry_run=dry_run,
            progress=progress,
        )


def default_name(entry: Entry, member: str | None = None) -> str:
    """The id as a public name, with the member where it is not the default one."""
    names = entry.weights.member_names()
    suffix = f"-{member}" if member is not None and names and member != names[0] else ""
    return f"{entry.id}{suffix}".lower()


def differences(entry: Entry, card: ModelCard) -> list[str]:
    """What the weights turned out to be otherwise than the catalogue says, a sentence for each."""
    made = {"task": card.task, **{output.name: list(output.shape) for output in card.outputs}}
    told = {"task": entry.task, **{output.name: list(output.shape) for output in entry.outputs}}
    return [
        f"the catalogue says that the {what} is {told[what]}, it is {made.get(what, 'missing')}"
        for what in told
        if not _agree(told[what], made.get(what))
    ]


def _agree(told: str | list[int], made: str | list[int] | None) -> bool:
    """Whether two facts are equal; -1 in a shape agrees with everything."""
    if isinstance(told, list) and isinstance(made, list):
        return all(a == b or min(a, b) < 0 for a, b in zip(told, made, strict=True))
    return told == made


def _check_support(entry: Entry, source: str) -> None:
    if entry.unsupported and (not source or not entry.family):
        raise ExportError(f"{entry.id} cannot be exported: {entry.unsupported}", entry.instead)
    if entry.family not in families():
        raise ExportError(
            f"{entry.id}: this galatea has no family {entry.family}",
            "run: pip install --upgrade galatea",
        )
    if not source and not entry.weights.url:
        raise InvalidInput(
            f"{entry.id}: its weights cannot be downloaded by a program",
            f"get them from {entry.weights.page}, then: galatea import {entry.id} --from FILE",
        )


def _facts(entry: Entry, member: str | None) -> Facts:
    names = entry.weights.member_names()
    title = f"{entry.title}, member {member or names[0]}" if names else entry.title
    alike = {field.name for field in fields(Facts)} & {field.name for field in fields(Entry)}
    facts = Facts(**{name: getattr(entry, name) for name in alike})
    return replace(
        facts,
        title=title,
        description=f"{entry.description} {entry.terms}".strip(),
        catalogue_id=entry.id,
        options=entry.configuration,
    )
