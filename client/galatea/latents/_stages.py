"""The stages behind a public model, and running those that are still to be run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from galatea.card import CARD_PARAMETER, ModelCard
from galatea.errors import InvalidInput

if TYPE_CHECKING:
    from galatea.client import Client

Arrays = Mapping[str, NDArray[Any]]

FIRST = "seed"  # what every generator with latents starts from


@dataclass(frozen=True)
class Step:
    """One stage; both mappings go from its own names to those of the tensors in the ensemble."""

    model: str
    version: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Stages:
    """The steps of an ensemble, as its configuration joins them."""

    card: ModelCard
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, client: Client, name: str) -> Stages:
        """The stages of a served generator.

        Raises:
            InvalidInput: it does not make its images of a seed in stages.
            ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
                see :mod:`galatea.errors`.
        """
        card = client.model(name)
        if card.source_picture is not None:
            raise InvalidInput(
                f"{name} makes pictures of pictures and has no latents",
                f"call translate({name!r}, …), or run: galatea translate {name}",
            )
        if card.steps is not None:
            raise InvalidInput(
                f"{name} makes its images in steps, from noise as large as they are: no latents",
                f"call sample({name!r}, …), or run: galatea sample {name}",
            )
        config = client._session.config(name)
        steps = tuple(
            Step(step.model_name, step.model_version, dict(step.input_map), dict(step.output_map))
            for step in config.ensemble_scheduling.step
        )
        if not any(FIRST in step.inputs.values() for step in steps):
            raise InvalidInput(f"{name} is not served in stages", "call sample, which needs none")
        # That of this very configuration: another version may have come since the first question.
        return cls(ModelCard.from_json(config.parameters[CARD_PARAMETER].string_value), steps)

    def makes(self, tensor: str) -> bool:
        """Whether a step makes this tensor."""
        return any(tensor in step.outputs.values() for step in self.steps)

    @property
    def latents(self) -> tuple[str, ...]:
        """The tensors that the stage makes which takes the seed."""
        first = next(step for step in self.steps if FIRST in step.inputs.values())
        return tuple(first.outputs.values())

    def plan(self, have: Collection[str], want: Sequence[str]) -> list[Step]:
        """The steps that lead from tensors to others, in the order of the data."""
        makers = {tensor: step for step in self.steps for tensor in step.outputs.values()}
        plan: list[Step] = []

        def need(tensor: str) -> None:
            step = makers.get(tensor)
            if step is None or tensor in have or step in plan:
                return
            for earlier in step.inputs.values():
                need(earlier)
            plan.append(step)

        for tensor in want:
            need(tensor)
        return plan

    def open(self, have: Collection[str], want: Sequence[str]) -> set[str]:
        """The inputs of the public model that these steps take and nobody has given."""
        plan = self.plan(have, want)
        taken = {tensor for step in plan for tensor in step.inputs.values()}
        return {tensor for tensor in taken if tensor not in have and not self.makes(tensor)}

    def run(self, client: Client, given: Arrays, want: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Tensors made of others, [n, …] each.

        Raises:
            InvalidInput: a tensor does not have the shape that the model takes.
            ModelUnavailable, ServerUnreachable, DeadlineExceeded, ServerError:
                see :mod:`galatea.errors`.
        """
        tensors = dict(given)
        for step in self.plan(tensors, want):
            inputs = {name: np.asarray(tensors[tensor]) for name, tensor in step.inputs.items()}
            made = client._session.run(
                step.model, step.version, inputs, list(step.outputs), self.card
            )
            for name, tensor in step.outputs.items():
                tensors.setdefault(tensor, made[name])
        return {tensor: tensors[tensor] for tensor in want}
