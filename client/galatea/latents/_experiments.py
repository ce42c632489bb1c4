"""The usual experiments with latents, from seeds to images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from galatea.errors import InvalidInput
from galatea.latents._calls import Space, check_space, latent, shared_out, synthesise
from galatea.latents._stages import Stages
from galatea.samples import Samples

if TYPE_CHECKING:
    from galatea.client import Client


def walk(
    client: Client,
    name: str,
    seeds: Iterable[int],
    frames: int = 24,
    *,
    closed: bool = False,
    space: Space = "z",
    **conditions: Any,
) -> Samples:
    """Images of a walk from seed to seed; see :meth:`galatea.latents.Latents.interpolate`.

    Args:
        seeds: at least two.
        frames: images, evenly spaced.
        closed: lead back to the first seed.
        space: "z", or "w" for a StyleGAN's styles.
        conditions: as of :meth:`galatea.Client.sample`; what is not given is that of the first. In
            space w, one that the styles hold, such as the class, may be a list with one value for
            each seed, and changes on the walk.

    Returns:
        `frames` images, without seeds; ``origins`` say where each lies.

    Raises:
        InvalidInput: fewer than two seeds or frames, no such space, or a condition that the card
            does not allow.
        ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
            see :mod:`galatea.errors`.
    """
    stages = Stages.of(client, name)
    check_space(stages, space)
    before, behind = shared_out(stages, space, conditions)
    keys = latent(client, name, seeds, space=space, **before)
    return synthesise(client, name, keys.interpolate(frames, closed=closed), **behind)


def truncation_sweep(
    client: Client,
    name: str,
    seeds: Iterable[int],
    truncations: Sequence[float],
    **conditions: Any,
) -> Samples:
    """The images of each seed under each truncation.

    Args:
        seeds: any.
        truncations: distances from the mean image, 1 is the generator's own.
        conditions: as of :meth:`galatea.Client.sample`.

    Returns:
        seeds × truncations images, those of the first seed first.

    Raises:
        InvalidInput: the model has no truncation, nothing is to be swept, or as :func:`walk`.
        ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
            see :mod:`galatea.errors`.
    """
    if not len(truncations):
        raise InvalidInput("there are no truncations", "give at least one, e.g. 0, 0.5, 1")
    keys = latent(client, name, seeds)
    cells = keys[np.repeat(np.arange(len(keys)), len(truncations))]
    swept = list(truncations) * len(keys)
    return synthesise(client, name, cells, truncation=swept, **conditions)


def style_mixing(
    client: Client, name: str, seeds: Iterable[int], layers: Iterable[int], **conditions: Any
) -> Samples:
    """Each seed with the styles of some layers from each other one.

    Args:
        seeds: any.
        layers: those that change places, counted from 0, the coarsest.
        conditions: as of :meth:`galatea.Client.sample`.

    Returns:
        seeds × seeds images, those with all other layers from the first seed first. On the diagonal
        are the images of the seeds themselves.

    Raises:
        InvalidInput: the model has no mapping stage or no such layers, or as :func:`walk`.
        ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
            see :mod:`galatea.errors`.
    """
    stages = Stages.of(client, name)
    check_space(stages, "w")
    before, behind = shared_out(stages, "w", conditions)
    keys = latent(client, name, seeds, space="w", **before)
    places = np.arange(len(keys))
    rows, columns = np.repeat(places, len(keys)), np.tile(places, len(keys))
    mixed = keys[rows].mix(keys[columns], layers)
    return synthesise(client, name, mixed, **behind)
