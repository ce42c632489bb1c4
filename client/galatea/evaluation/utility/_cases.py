"""Images with what a training needs of them: a class, a mask, and of real ones the patient."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.client import Client
from galatea.datasets import info
from galatea.errors import InvalidInput
from galatea.evaluation._shards import shard_items
from galatea.evaluation._sources import DataSet, Item, Served, Source
from galatea.evaluation.utility._masks import shard_masks
from galatea.pictures import Picture, read

__all__ = ["TABLE", "Case", "Cases", "from_data_set", "from_model", "from_table"]

TABLE = "cases.csv"
COLUMNS = ("image", "patient", "label", "mask")


@dataclass(frozen=True, eq=False)
class Case:
    """An image to train or to test with.

    Attributes:
        picture: with its mask, uint8 [H, W] and not 0 inside, where there is one.
        label: its class, where one is known.
        patient: whose it is; "" of synthetic images.
    """

    picture: Picture
    label: str | None = None
    patient: str = ""


class Cases(Source):
    """Cases in memory.

    Raises:
        InvalidInput: there are none.
    """

    def __init__(self, cases: Sequence[Case], title: str, facts: dict[str, Any]) -> None:
        if not cases:
            raise InvalidInput(f"{title}: there are no images", "give some")
        self.cases = tuple(cases)
        self._title, self._facts = title, facts

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def title(self) -> str:
        return self._title

    @cached_property
    def digest(self) -> str:
        found = hashlib.sha256()
        for case in self.cases:
            picture = case.picture
            found.update(f"{picture.name}\n{case.label}\n{case.patient}\n".encode())
            for array in (picture.pixels, picture.levels, picture.mask):
                if array is not None:
                    found.update(f"{array.dtype} {array.shape}\n".encode())
                    found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def facts(self) -> dict[str, Any]:
        return {**self._facts, "n": len(self), "digest": self.digest}

    def items(self) -> Iterator[Item]:
        return (Item(case.picture, case.label) for case in self.cases)

    def labels(self) -> list[str]:
        """The class of each.

        Raises:
            InvalidInput: that of one is not known; it is named.
        """
        found = []
        for case in self.cases:
            if case.label is None:
                raise InvalidInput(
                    f"{self.title}: the class of {case.picture.name} is not known",
                    f"give a column 'label' in {TABLE}, or a generator with classes",
                )
            found.append(case.label)
        return found

    def masks(self) -> list[NDArray[np.uint8]]:
        """The mask of each, uint8 [H, W].

        Raises:
            InvalidInput: one has none; it is named.
        """
        found = []
        for case in self.cases:
            if case.picture.mask is None:
                raise InvalidInput(
                    f"{self.title}: {case.picture.name} has no mask",
                    f"give a column 'mask' in {TABLE}, or a generator that makes masks",
                )
            found.append(case.picture.mask)
        return found


def from_table(path: Path) -> Cases:
    """The cases of ``cases.csv``, or of the one in a folder.

    Its columns are ``image`` and, as far as they are needed, ``patient``, ``label`` and ``mask``;
    files are named from the folder that the table is in.

    Raises:
        InvalidInput: the table or a file cannot be read, or does not fit; it is named.
        MachineError: an extra is missing; says which.
    """
    table = path / TABLE if path.is_dir() else path
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(
            f"{table}: cannot be read: {getattr(error, 'strerror', '') or error}",
            f"write a table with the columns {', '.join(COLUMNS)}",
        ) from error
    columns = reader.fieldnames or ()
    if "image" not in columns:
        raise InvalidInput(
            f"{table}: there is no column 'image'",
            f"write a table with the columns {', '.join(COLUMNS)}",
        )
    title = table.parent.name or str(table.parent)
    return Cases([_case(table, row) for row in rows], title, {"kind": "table", "path": str(path)})


def from_model(
    client: Client,
    name: str,
    n: int,
    seed: int = 0,
    progress: Callable[[int], None] = lambda images: None,
    **conditions: Any,
) -> Cases:
    """Images of a served generator, with their masks; arguments are those of :class:`Served`.

    Args:
        progress: called with the number of images that are newly made.

    Raises:
        InvalidInput, ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError: see
            :mod:`galatea.errors`.
    """
    served = Served(client, name, n, seed, **conditions)
    cases = []
    for batch in client.stream(name, n, seed=seed, **conditions):
        for i, image in enumerate(batch.images):
            mask = None if batch.masks is None else batch.masks[i, :, :, 0].copy()
            picture = Picture(f"seed {batch.seeds[i]}", image.copy(), mask=mask)
            cases.append(Case(picture, batch.label_name(i)))
        progress(len(batch.images))
    return Cases(cases, served.title, served.facts())


def from_data_set(path: Path) -> Cases:
    """The images of a data set that ``galatea generate`` made, with their masks.

    Raises:
        InvalidInput: it is not finished, or damaged.
        MachineError: an extra is missing; says which.
    """
    found, job = DataSet(path), info(path).job
    cases = []
    for k in range(job.shards):
        items = list(shard_items(path, job, k))
        masks: list[NDArray[np.uint8] | None] = [*shard_masks(path, job, k)]
        masks = masks or [None] * len(items)
        for (picture, label), mask in zip(items, masks, strict=True):
            cases.append(Case(replace(picture, mask=mask), label))
    return Cases(cases, found.title, found.facts())


def _case(table: Path, row: dict[str, str]) -> Case:
    picture = _read(table, row["image"] or "")
    if row.get("mask"):
        mask = _read(table, row["mask"]).pixels
        if mask.ndim != 2 or mask.shape != picture.pixels.shape[:2]:
            raise InvalidInput(
                f"{table}: the mask {row['mask']} is {list(mask.shape)}, its image "
                f"{list(picture.pixels.shape)}",
                "give masks of one channel, of the size of their images",
            )
        picture = replace(picture, mask=(mask > 0).astype(np.uint8))
    return Case(picture, row.get("label") or None, row.get("patient") or "")


def _read(table: Path, name: str) -> Picture:
    pictures = list(read(table.parent / name)) if name else []
    if len(pictures) != 1:
        raise InvalidInput(
            f"{table}: {name!r} holds {len(pictures)} pictures", "name a file with one in each row"
        )
    return replace(pictures[0], name=name)
