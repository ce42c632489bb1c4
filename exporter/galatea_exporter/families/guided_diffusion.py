"""Diffusion in pixels: the layout of guided-diffusion (brain MRI with masks, 256 × 256).

Dhariwal & Nichol 2021 (arXiv:2105.05233) in the layout of the repository openai/guided-diffusion,
which improved-diffusion (arXiv:2102.09672) shares and many medical models train with, among them
the five channels of muhamadusman/Assist. The network and what tells its sizes are in
:mod:`galatea_exporter.layers`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from galatea.card import Input
from galatea.errors import ExportError, InvalidInput
from galatea_exporter.assembly import by_diffusion
from galatea_exporter.checkpoint import State
from galatea_exporter.family import Family, random_weights, register
from galatea_exporter.layers.guided_diffusion import UNet, load_unet
from galatea_exporter.layers.guided_layout import GuidedOptions, Layout, Level
from galatea_exporter.sampler.schedules import Schedule
from galatea_exporter.scheduler_config import guided_schedule
from galatea_exporter.stages import StagedGenerator

USUAL_STEPS = 250  # upstream's own commands sample with as many


@dataclass(frozen=True)
class GuidedDiffusionOptions(GuidedOptions):
    """Adds the flags of the training that tell its noise, and how requests are answered.

    Whether the variance is learned is told by the shapes.

    Attributes:
        diffusion_steps: timesteps of the training.
        noise_schedule: "linear" or "cosine".
        sigma_small: DDPM's variance is the smaller bound, where it is not learned.
        predict_xstart: the network predicts the clean image, not the noise.
        rescale_timesteps: the network is told timesteps as if there were 1000.
        steps: what a request takes that does not say; None is 250, as in upstream's commands, or
            all that there are.
        sampler: the same; upstream's ``--use_ddim True`` is ddim.
        unconditional_label: the class that stands for no class; with it there is guidance. As the
            last one it has no name among `labels`, and requests cannot ask for it.
        guidance: what a request gets that does not say; 1 is none.
    """

    diffusion_steps: int = 1000
    noise_schedule: Literal["linear", "cosine"] = "linear"
    sigma_small: bool = False
    predict_xstart: bool = False
    rescale_timesteps: bool = False
    steps: int | None = None
    sampler: Literal["ddpm", "ddim", "plms", "euler", "dpmpp_2m"] = "ddpm"
    unconditional_label: int | None = None
    guidance: float = 1.0


@register
class GuidedDiffusion(Family):
    """Sizes, classes and learned variances are read from the checkpoint's names and shapes.

    ``model*.pt`` and the averaged ``ema_*.pt``, which makes the better images, have the same
    layout.
    """

    name = "guided_diffusion"
    title = "Diffusion in pixels, guided-diffusion layout"
    source = "arXiv:2105.05233, arXiv:2102.09672; openai/guided-diffusion, muhamadusman/Assist"
    aliases = ("improved_diffusion",)
    options = GuidedDiffusionOptions

    def recognises(self, state: State) -> bool:
        names = ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight")
        return all(name in state for name in names)

    def build(self, state: State, options: GuidedDiffusionOptions, path: Path) -> StagedGenerator:
        unet = load_unet(state, options, path, self.name)
        layout = unet.layout
        if layout.channels_out not in (layout.channels_in, 2 * layout.channels_in):
            raise ExportError(
                f"{path}: takes {layout.channels_in} channels and predicts {layout.channels_out}: "
                "it enlarges or translates other images",
                f"export a network of {self.name} that starts from noise alone",
            )
        schedule, steps = _sampling(layout, options)
        size = layout.size(options)
        channels = layout.channels_in
        label = _label(layout.classes, options)
        return by_diffusion(
            unet,
            schedule=schedule,
            shape=(channels, size, size),
            decoder=None,
            size=(size, size),
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
            steps=steps,
            guidance=options.guidance,
            conditions=label,
            unconditional=(
                None
                if options.unconditional_label is None
                else {"label": float(options.unconditional_label)}
            ),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        if published:
            levels = tuple(Level(64 * m, m == 4) for m in (1, 1, 2, 2, 4, 4))
            layout = Layout(5, 5, 64, levels, blocks=3)
        else:
            layout = Layout(1, 2, 32, tuple(Level(32 * m, False) for m in (1, 2, 3, 4)), blocks=1)
        return random_weights(UNet(layout, GuidedOptions()))


def _sampling(layout: Layout, options: GuidedDiffusionOptions) -> tuple[Schedule, int]:
    """The schedule, and the steps that a request takes that does not say.

    Raises:
        InvalidInput: there are no timesteps.
    """
    if options.diffusion_steps < 1:
        raise InvalidInput(
            f"diffusion_steps is {options.diffusion_steps}",
            "set diffusion_steps to the --diffusion_steps of the training",
        )
    schedule = guided_schedule(
        options.diffusion_steps,
        options.noise_schedule,
        learn_sigma=layout.learned_sigma,
        sigma_small=options.sigma_small,
        predict_xstart=options.predict_xstart,
        rescale_timesteps=options.rescale_timesteps,
    )
    steps = min(USUAL_STEPS, options.diffusion_steps) if options.steps is None else options.steps
    return replace(schedule, sampler=options.sampler), steps


def _label(classes: int, options: GuidedDiffusionOptions) -> tuple[Input, ...]:
    """The public input of a network with classes, one of which may stand for none.

    Raises:
        InvalidInput: names or a class that the network does not have.
    """
    absent = options.unconditional_label
    named = classes - (absent is not None and absent == classes - 1)
    names = options.labels or tuple(f"class {k}" for k in range(named))
    if len(names) != named:
        raise InvalidInput(
            f"{len(names)} labels for {named} classes",
            f"give {named} names, separated by commas" if named else "leave out labels",
        )
    if absent is not None and not 0 <= absent < classes:
        raise InvalidInput(
            f"unconditional_label {absent} does not exist, the network has {classes} classes",
            f"choose 0 … {classes - 1}" if classes else "leave out unconditional_label",
        )
    return (Input("label", "INT64", "class of the image", names),) if classes else ()
