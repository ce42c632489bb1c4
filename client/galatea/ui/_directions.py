"""Directions in a model's latents along which its images change most."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea.aio import AsyncClient
from galatea.card import ModelCard
from galatea.latents import Latents
from galatea.ui._tile import SLIDERS, space

__all__ = ["find", "moved"]

Floats = NDArray[np.float32]

MAPPED, SEEN, AT_ONCE = 2048, 256, 16  # latents, images, images a call
SIDE = 32  # pixels, of an image's side, that are looked at


async def find(client: AsyncClient, card: ModelCard) -> Floats:
    """The first directions, one standard deviation long, [SLIDERS or fewer, d].

    Of styles w the principal components of many of them (Härkönen et al. 2020, arXiv:2004.02546).
    Of latents z, which are alike in every direction, those along which the pixels change most on
    average: the left singular vectors of the covariance of z and pixels, which for normal z is the
    mean Jacobian of the generator (Stein 1981). The signs are such that the largest element is
    positive.

    Raises:
        InvalidInput, ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
            see :mod:`galatea.errors`.
    """
    if space(card) == "w":
        styles = await client.latent(card.name, range(MAPPED), space="w")
        assert styles.ws is not None
        first = styles.ws[:, 0].astype(np.float64)
        _, lengths, rows = np.linalg.svd(first - first.mean(axis=0), full_matrices=False)
        found = rows * (lengths / np.sqrt(len(first)))[:, None]
    else:
        z, pixels = await _seen(client, card)
        columns, _, _ = np.linalg.svd(z.T @ pixels / len(z), full_matrices=False)
        found = columns.T
    found = found[:SLIDERS]
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
    signed: Floats = (found * np.sign(largest)).astype(np.float32)
    return signed


async def _seen(client: AsyncClient, card: ModelCard) -> tuple[NDArray[Any], NDArray[Any]]:
    """Latents and the pixels made of them, both centred; of classes each on its own."""
    latents = await client.latent(card.name, range(SEEN))
    seen = []
    for start in range(0, SEEN, AT_ONCE):
        made = await client.synthesise(card.name, latents[start : start + AT_ONCE])
        thin = tuple(slice(None, None, max(1, side // SIDE)) for side in made.images.shape[1:-1])
        seen.append(made.images[(slice(None), *thin)].reshape(len(made), -1).astype(np.float64))
    pixels = np.concatenate(seen)
    classes = len(card.label.labels) if card.label else 1
    for k in range(classes):  # dealt out in turn
        pixels[k::classes] -= pixels[k::classes].mean(axis=0)
    assert latents.z is not None
    return latents.z - latents.z.mean(axis=0), pixels


def moved(latents: Latents, directions: Floats, moves: tuple[float, ...]) -> Latents:
    """Latents that many standard deviations away; styles of all layers alike."""
    amounts = np.array(moves[: len(directions)], np.float32)
    step = amounts @ directions[: len(amounts)]
    return latents.moved_to(latents.values + step)
