"""From seeds to latents, and from latents to images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from galatea import _conditions
from galatea.errors import InvalidInput
from galatea.latents._latents import Latents, Space, check_model
from galatea.latents._stages import FIRST, Stages
from galatea.samples import Samples

if TYPE_CHECKING:
    from galatea.client import Client

__all__ = ["Space", "latent", "synthesise"]

# The names that tensors have between the stages.
Z, W, NOISE = "latent", "ws", "noise"


def latent(
    client: Client, name: str, seeds: int | Iterable[int], *, space: Space = "z", **conditions: Any
) -> Latents:
    """The body of :meth:`galatea.Client.latent`."""
    stages = Stages.of(client, name)
    chosen = _seeds(seeds)
    check_space(stages, space)
    made = stages.run(client, {FIRST: chosen[:, None]}, stages.latents)
    index = np.arange(len(chosen))
    found = Latents(stages.card, chosen, index, made[Z], noise=made.get(NOISE))
    if space == "z":
        _values(stages, found, stages.latents, conditions)  # refuses what comes later
        return found
    values = _values(stages, found, [W], conditions)
    styles = stages.run(client, {Z: made[Z], **values}, [W])[W]
    return replace(found, ws=styles, conditions={key: value[:, 0] for key, value in values.items()})


def synthesise(client: Client, name: str, latents: Latents, **conditions: Any) -> Samples:
    """The body of :meth:`galatea.Client.synthesise`."""
    stages = Stages.of(client, name)
    card = stages.card
    check_model(latents, card)
    outputs = [output.name for output in card.outputs]
    values = _values(stages, latents, outputs, conditions)
    made = stages.run(client, {**_tensors(latents), **values}, outputs)
    settings = {**latents.conditions, **{key: value[:, 0] for key, value in values.items()}}
    noise = [f" with noise({seed})" if latents.noise is not None else "" for seed in latents.seeds]
    # Images that their seeds do not tell apart are numbered.
    alike = bool(latents.origins) or len(set(latents.seeds.tolist())) < len(latents)
    return Samples(
        made["image"],
        made.get("mask"),
        latents.seeds if not latents.origins else latents.seeds[:0],
        {entry.name: settings[entry.name] for entry in card.inputs if entry.name in settings},
        card,
        names=tuple(f"frame-{i:04d}" for i in range(len(latents))) if alike else (),
        origins=tuple(map("".join, zip(latents.origins, noise, strict=False))),
    )


def check_space(stages: Stages, space: Space) -> None:
    """Raises InvalidInput where a model has no such space."""
    if space not in ("z", "w"):
        raise InvalidInput(f"there is no space {space!r}", 'choose "z" or "w"')
    if space == "w" and not stages.makes(W):
        raise InvalidInput(
            f"{stages.card.name} has no mapping stage, and so no styles and no space w",
            "stay in space z, or take a StyleGAN",
        )


def shared_out(
    stages: Stages, space: Space, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Conditions that come before the latents of a space, and those that come behind."""
    before = stages.open({Z}, [W]) if space == "w" else set()
    return (
        {name: value for name, value in given.items() if name in before},
        {name: value for name, value in given.items() if name not in before},
    )


def _tensors(latents: Latents) -> dict[str, NDArray[Any]]:
    """What is there already; with the seed, so that nothing else can be missing."""
    there = {FIRST: latents.seeds[:, None], Z: latents.z, W: latents.ws, NOISE: latents.noise}
    return {name: array for name, array in there.items() if array is not None}


def _values(
    stages: Stages, latents: Latents, want: Sequence[str], given: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """The conditions that lead from latents to `want`, [n, 1] each.

    Raises:
        InvalidInput: one that the card does not allow, or that has no effect there.
    """
    card = stages.card
    given = {name: value for name, value in given.items() if value is not None}
    known = {entry.name for entry in card.inputs} - {FIRST}
    taken = stages.open(_tensors(latents), want)
    for name in given:
        if name in taken or name not in known:
            continue
        if name in latents.conditions:
            raise InvalidInput(
                f"{name} is in the styles already",
                f'give it to client.latent(…, space="w", {name}=…)',
            )
        raise InvalidInput(
            f"{name} acts behind the latents of space {latents.space}",
            f"give it to client.synthesise(…, {name}=…)",
        )
    # What an unknown name is answered with lists all of them.
    listed = taken if known.issuperset(given) else known
    part = replace(card, inputs=tuple(entry for entry in card.inputs if entry.name in listed))
    seeds = latents.seeds
    made = _conditions.conditions(part, given, len(seeds), lambda _: seeds[:, None])
    places = np.arange(len(seeds))
    return {
        name: value(places if _is_list(given.get(name)) else latents.index)
        for name, value in made.items()
    }


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _seeds(given: int | Iterable[int]) -> NDArray[np.int64]:
    """int64 [n].

    Raises:
        InvalidInput: none, or one that is no 64-bit integer.
    """
    listed = list(given) if isinstance(given, Iterable) else [given]
    if not listed:
        raise InvalidInput("there are no seeds", "give at least one")
    first = np.zeros(1, np.int64)
    return np.concatenate([_conditions.seeds(seed, 1)(first)[0] for seed in listed])
