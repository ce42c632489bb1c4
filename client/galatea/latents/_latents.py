"""Latents: vectors with what made them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from galatea.card import ModelCard
from galatea.errors import InvalidInput
from galatea.latents._paths import Floats, lerp, positions, slerp

__all__ = ["Latents", "Space"]

Space = Literal["z", "w"]


@dataclass(frozen=True, eq=False)
class Latents:
    """What images are made of, one for each.

    Attributes:
        card: of the model that they belong to.
        seeds: int64 [n]; the seed of each, and where `origins` tell of more than one, that whose
            noise it has.
        index: int64 [n]; what the image with this index in a call of :meth:`galatea.Client.sample`
            has, such as its class in turn, is what a condition is where none is given.
        z: float32 [n, d]; None where styles do not come from any.
        ws: the styles, float32 [n, layers, d']; None in space z.
        noise: what the network adds beside, float32 [n, k]; None for networks without.
        conditions: by name, what has been put into the styles, [n].
        origins: what each is, as an expression such as ``slerp(z(1), z(2), 0.25)``; empty where its
            seed says that.
    """

    card: ModelCard
    seeds: NDArray[np.int64]
    index: NDArray[np.int64]
    z: Floats | None
    ws: Floats | None = None
    noise: Floats | None = None
    conditions: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    origins: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, which: int | slice | Sequence[int] | NDArray[Any]) -> Latents:
        """Those with these places: one of them, a slice, or a list, also with repetitions."""
        places = np.atleast_1d(np.arange(len(self))[which])
        return replace(
            self,
            seeds=self.seeds[places],
            index=self.index[places],
            z=None if self.z is None else self.z[places],
            ws=None if self.ws is None else self.ws[places],
            noise=None if self.noise is None else self.noise[places],
            conditions={name: values[places] for name, values in self.conditions.items()},
            origins=tuple(self.origins[i] for i in places) if self.origins else (),
        )

    @property
    def space(self) -> Space:
        """ "w" where there are styles, else "z"."""
        return "z" if self.ws is None else "w"

    @property
    def values(self) -> Floats:
        """The vectors of the space: `z`, or in space w `ws`."""
        values = self.z if self.ws is None else self.ws
        assert values is not None
        return values

    def told(self, i: int) -> str:
        """What latent `i` is, as an expression."""
        if self.origins:
            return self.origins[i]
        settings = [f"{name}={values[i]}" for name, values in self.conditions.items()]
        return f"{self.space}({', '.join([str(self.seeds[i]), *settings])})"

    def interpolate(self, frames: int, *, closed: bool = False) -> Latents:
        """Evenly spaced steps of a walk over all of these: along arcs in z, straight in w.

        The noise and the conditions that are not given are those of the first.

        Args:
            frames: number of steps, both ends included.
            closed: lead back to the first, which does not come again at the end.

        Raises:
            InvalidInput: fewer than two latents or frames.
        """
        before, behind, share = positions(len(self), frames, closed=closed)
        between = slerp if self.ws is None else lerp
        made = between(self.values[before], self.values[behind], share)
        origins = tuple(
            f"{between.__name__}({self.told(a)}, {self.told(b)}, {t})" if t else self.told(a)
            for a, b, t in zip(before, behind, share.tolist(), strict=True)
        )
        noise = self.noise
        return replace(
            self,
            seeds=np.repeat(self.seeds[:1], frames),
            index=np.repeat(self.index[:1], frames),
            z=made if self.ws is None else None,
            ws=None if self.ws is None else made,
            # The same memory for all of them: noise is larger than an image.
            noise=None if noise is None else np.broadcast_to(noise[:1], (frames, noise.shape[1])),
            conditions={
                name: np.repeat(values[:1], frames)
                for name, values in self.conditions.items()
                if (values == values[0]).all()
            },
            origins=origins,
        )

    def mix(self, styles: Latents, layers: Iterable[int]) -> Latents:
        """These with the styles of some layers from others (Karras et al. 2018, section 3.1).

        Args:
            styles: as many, or one for all.
            layers: counted from 0, the coarsest.

        Raises:
            InvalidInput: one of both has no styles or is of another model, their numbers do not
                fit, or there is no such layer.
        """
        if self.ws is None or styles.ws is None:
            raise InvalidInput("latents in space z have no styles to mix", 'get them in space="w"')
        check_model(styles, self.card)
        if len(styles) == 1:
            styles = styles[np.zeros(len(self), np.int64)]
        assert styles.ws is not None
        if len(styles) != len(self):
            raise InvalidInput(
                f"{len(self)} latents and styles of {len(styles)}", "give as many, or styles of one"
            )
        chosen, count = sorted(set(layers)), self.ws.shape[1]
        if not chosen or not 0 <= chosen[0] <= chosen[-1] < count:
            raise InvalidInput(
                f"{self.card.name} has no layers {chosen}", f"choose some of 0 … {count - 1}"
            )
        mixed = self.ws.copy()
        mixed[:, chosen] = styles.ws[:, chosen]
        where = ranges(chosen)
        return replace(
            self,
            z=None,
            ws=mixed,
            conditions={
                name: values
                for name, values in self.conditions.items()
                if name in styles.conditions and (values == styles.conditions[name]).all()
            },
            origins=tuple(
                f"mix({self.told(i)}, {styles.told(i)}, layers {where})" for i in range(len(self))
            ),
        )

    def moved_to(self, values: NDArray[Any]) -> Latents:
        """Other vectors in place of :attr:`values`, for instance these moved along a direction.

        Args:
            values: of the same shape.

        Raises:
            InvalidInput: of another shape, or no finite numbers.
        """
        made = np.asarray(values, np.float32)
        if made.shape != self.values.shape or not np.isfinite(made).all():
            what = "numbers that are not finite" if made.shape == self.values.shape else made.shape
            raise InvalidInput(
                f"{what} cannot stand in for latents {self.values.shape}",
                "give finite numbers in an array of that shape",
            )
        digests = [hashlib.sha256(vector.tobytes()).hexdigest() for vector in made]
        return replace(
            self,
            z=made if self.ws is None else None,
            ws=None if self.ws is None else made,
            origins=tuple(f"{self.space}(sha256:{digest})" for digest in digests),
        )


def ranges(layers: Iterable[int]) -> str:
    """Layers as a text such as ``4-7,9``."""
    chosen = sorted(set(layers))
    starts = [k for k in chosen if k - 1 not in chosen]
    ends = [k for k in chosen if k + 1 not in chosen]
    pairs = zip(starts, ends, strict=True)
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in pairs)


def check_model(latents: Latents, card: ModelCard) -> None:
    """Raises InvalidInput where latents are of another model than `card`, or another version."""
    if latents.card != card:
        of, to = latents.card, card
        raise InvalidInput(
            f"latents of {of.name} version {of.version} do not belong to "
            f"{to.name} version {to.version}",
            f"get them anew: client.latent({to.name!r}, seeds)",
        )
