"""The catalogue: known generators, on what terms they may be used, and where their weights are.

One file ``models/<id>.toml`` for each, in the schema of :class:`Entry`. An entry is what people
have published or found out about a generator; what is served has a model card.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from galatea.card import Input, Metric, Output, Task, from_plain
from galatea.errors import InvalidInput

__all__ = ["Entry", "Weights", "entries", "find", "parse"]


@dataclass(frozen=True)
class Weights:
    """Where the weights of a generator are, and what they are called there.

    Attributes:
        page: where a person finds them.
        url: the zip file that ``galatea import`` downloads; "" where a person must fetch it.
        bytes: of that zip file, where it is known.
        sha256: of that zip file, where it is known.
        files: of the checkpoint, as the zip file names them (the end of the path is enough);
            ``{member}`` stands for the chosen member.
        members: where the zip file holds several checkpoints: the name of each → what ``{member}``
            stands for. The first is the default.
        numbered: or the members are the numbers 1 … this.
        largest: a file of the checkpoint with more bytes than this is refused unread.
    """

    page: str = ""
    url: str = ""
    bytes: int | None = None
    sha256: str = ""
    files: tuple[str, ...] = ()
    members: dict[str, str] = field(default_factory=dict)
    numbered: int = 0
    largest: int = 1 << 30

    def member_names(self) -> tuple[str, ...]:
        """Names of the members, the default first; none where there is one checkpoint."""
        return tuple(self.members) or tuple(str(k + 1) for k in range(self.numbered))

    def member_files(self, member: str | None = None) -> tuple[str, ...]:
        """The files of one member's checkpoint.

        Raises:
            InvalidInput: there is no such member; the message says which there are.
        """
        names = self.member_names()
        if member is None:
            member = names[0] if names else ""
        elif member not in names:
            span = f"1 … {self.numbered}" if self.numbered else ", ".join(names)
            raise InvalidInput(
                f"no member {member!r}",
                f"choose one of: {span}" if names else "leave out --member: there is only one",
            )
        stands_for = self.members.get(member, member)
        return tuple(name.replace("{member}", stands_for) for name in self.files)


@dataclass(frozen=True)
class Entry:
    """One generator of the catalogue.

    Attributes:
        id: medigan's, or a speaking one.
        family: of the exporter; "" where no family can ever read the published checkpoint.
        unsupported: why the published weights cannot be exported, where that is so.
        instead: what to try then.
        conditions: inputs besides the seed.
        outputs: -1 in a shape is what is not known before the weights are read.
        configuration: options of the family that belong to this model.
        licence: of the weights, SPDX where there is one; NOASSERTION where none is stated.
        terms: how the licence, or the lack of one, restricts use; it must be accepted before an
            import.
        doi: of the paper, else of the record.
        source: repository of the code that trained it, where it is known.
        notes: what the source says wrongly, and what was inferred and not checked.
    """

    id: str
    title: str
    description: str
    family: str
    task: Task
    modality: str
    organ: str
    outputs: tuple[Output, ...]
    training_dataset: str
    licence: str
    weights: Weights
    unsupported: str = ""
    instead: str = ""
    generates: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    conditions: tuple[Input, ...] = ()
    configuration: dict[str, Any] = field(default_factory=dict)
    terms: str = ""
    source: str = ""
    doi: str = ""
    citation: str = ""
    year: int | None = None
    metrics: tuple[Metric, ...] = ()
    notes: tuple[str, ...] = ()


@cache
def entries() -> dict[str, Entry]:
    """All entries by id, in alphabetical order.

    Raises:
        InvalidInput: a file of the catalogue is not valid; it is named with the reason.
    """
    files = {path.name: path for path in resources.files(__name__).joinpath("models").iterdir()}
    names = sorted(name for name in files if name.endswith(".toml"))
    return {name[:-5]: parse(name[:-5], files[name].read_text("utf-8")) for name in names}


def parse(id_: str, text: str) -> Entry:
    """An entry from the TOML text of its file.

    Raises:
        InvalidInput: not TOML, a field that an entry does not have, or one of the wrong type.
    """
    try:
        return from_plain(Entry, {"id": id_, **tomllib.loads(text)})
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise InvalidInput(
            f"the catalogue's entry {id_}: {error}", "run: pip install --force-reinstall galatea"
        ) from error


def find(id_: str) -> Entry:
    """The entry of this id, or of the only id that begins so.

    Raises:
        InvalidInput: there is none, or more than one; the message lists the near ones.
    """
    there = entries()
    wanted = id_.casefold()
    begun = [name for name in there if name.casefold().startswith(wanted)] if wanted else []
    exact = [name for name in begun if name.casefold() == wanted]
    if len(exact or begun) == 1:
        return there[(exact or begun)[0]]
    if begun:
        raise InvalidInput(f"{id_!r} begins several ids", f"choose one of: {', '.join(begun)}")
    # An id is known by its parts, so a slip in one of them is enough to be asked for.
    parts = {name: {name.casefold(), *re.split("[-_]", name.casefold())} for name in there}
    close = difflib.get_close_matches(wanted, set().union(*parts.values()), 3, 0.7)
    near = [name for part in close for name in there if part in parts[name]]
    raise InvalidInput(
        f"the catalogue has no {id_!r}",
        f"did you mean {' or '.join(dict.fromkeys(near[:3]))}?" if near else "run: galatea catalog",
    )
