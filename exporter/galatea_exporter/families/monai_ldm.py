"""MONAI's latent diffusion: brain volumes from four numbers, chest X-rays from texts, slices.

Pinaya et al. 2022 (arXiv:2209.07162), in the layout of the bundles brain_image_synthesis and
cxr_image_synthesis_latent_diffusion_model of Project-MONAI/GenerativeModels, and of
brats_mri_generative_diffusion and brats_mri_axial_slices_generative_diffusion of MONAI's model zoo.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from galatea.card import Input
from galatea.errors import ExportError, InvalidInput
from galatea_exporter.assembly import Text, by_diffusion
from galatea_exporter.checkpoint import Checkpoint, State, read_checkpoint
from galatea_exporter.family import Family, Options, random_weights, register
from galatea_exporter.layers.clip_text import FILES, read_text
from galatea_exporter.layers.latents import Rescaled
from galatea_exporter.layers.monai_ldm import load_decoder, load_unet, monai_networks, unused
from galatea_exporter.monai_bundle import read_bundle
from galatea_exporter.sampler.schedules import Schedule
from galatea_exporter.scheduler_config import read_schedule
from galatea_exporter.stages import StagedGenerator

PUBLISHED_LATENTS = {2: (64, 64), 3: (20, 28, 20)}  # by the number of axes
USUAL_GUIDANCE = 7.0  # of the bundle that takes texts
UNET, AUTOENCODER = "diffusion_model.", "autoencoder."
BRAIN = ("gender", "age", "ventricular_vol", "brain_vol")  # conditions of the published volumes


@dataclass(frozen=True)
class MONAIOptions(Options):
    """Adds what names and shapes leave open; a bundle's ``configs/inference.json`` tells most.

    The defaults are those of the bundle of brain volumes; where nothing else is said, the names are
    those of MONAI's constructors.

    Attributes:
        norm_num_groups, norm_eps: of all norms in both networks.
        num_head_channels: channels of each attention head, one number for all levels or one each;
            none is a single head.
        scale_factor: what training multiplied latents by; in the bundle of chest X-rays it is 0.3,
            which stands in its script.
        latent_size: of a latent, two or three numbers; none is that of the published bundles.
        num_train_timesteps, schedule, beta_start, beta_end, prediction_type, clip_sample: of the
            scheduler.
        steps, sampler: what a request takes that does not say.
        guidance: the same, of a model that takes texts; None is 7.
        conditions: names of the numbers that the network takes, in its order.
        condition_minimum, condition_maximum: of all of them.
        text_encoder: folder of a diffusers pipeline whose text encoder and tokenizer the model was
            trained with; bundles do not hold them.
        spacing: of a volume, the size of a voxel in mm along each axis.
    """

    low: float = 0.0
    norm_num_groups: int = 32
    norm_eps: float = 1e-6
    num_head_channels: tuple[int, ...] = ()
    scale_factor: float = 1.0
    latent_size: tuple[int, ...] = ()
    num_train_timesteps: int = 1000
    schedule: Literal["linear_beta", "scaled_linear_beta"] = "scaled_linear_beta"
    beta_start: float = 0.0015
    beta_end: float = 0.0205
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    clip_sample: bool = False
    steps: int = 50
    sampler: Literal["ddpm", "ddim", "plms", "euler", "dpmpp_2m"] = "ddim"
    guidance: float | None = None
    conditions: tuple[str, ...] = ()
    condition_minimum: float = 0.0
    condition_maximum: float = 1.0
    text_encoder: str = ""
    spacing: tuple[float, ...] = ()


@register
class MONAILatentDiffusion(Family):
    """Sizes, attention and the kind of condition are read from names and shapes.

    Bundles name their two files in several ways: call them as here.
    """

    name = "monai_ldm"
    title = "MONAI's latent diffusion"
    source = (
        "arXiv:2112.10752, arXiv:2209.07162; Project-MONAI/GenerativeModels, Project-MONAI/MONAI"
    )
    files = ("autoencoder.pth", "diffusion_model.pth")
    options = MONAIOptions

    def recognises(self, state: State) -> bool:
        return f"{UNET}conv_in.conv.weight" in state and (
            f"{AUTOENCODER}post_quant_conv.conv.weight" in state
        )

    def arguments(self, checkpoint: Checkpoint) -> dict[str, Any]:
        return read_bundle(checkpoint.path)

    def build(self, state: State, options: MONAIOptions, path: Path) -> StagedGenerator:
        groups, eps = options.norm_num_groups, options.norm_eps
        network, unet = load_unet(
            _part(state, UNET), path, self.name,
            groups=groups, eps=eps, heads=options.num_head_channels,
        )  # fmt: skip
        decoder, autoencoder = load_decoder(
            _part(state, AUTOENCODER), path, self.name, groups=groups, eps=eps
        )
        axes, channels = unet["spatial_dims"], autoencoder["out_channels"]
        if (axes, unet["out_channels"]) != (
            autoencoder["spatial_dims"],
            autoencoder["latent_channels"],
        ):
            raise ExportError(
                f"{path}: the latents of {', '.join(self.files)} differ in axes or channels",
                "take both files from one training",
            )
        latent = _latent(options, axes, factor=1 << (len(unet["channels"]) - 1))
        size = tuple(side << (len(autoencoder["channels"]) - 1) for side in latent)
        if options.pixel_type == "auto" and axes == 3:
            options = replace(options, pixel_type="float32")
        conditions = _conditions(options, network.scalars)
        text = None
        if unet["with_conditioning"] and not network.scalars:
            text = _text(options, unet["cross_attention_dim"])
        return by_diffusion(
            network,
            schedule=_schedule(options),
            shape=(unet["out_channels"], *latent),
            decoder=Rescaled(decoder, options.scale_factor),
            size=size,
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
            steps=options.steps,
            guidance=USUAL_GUIDANCE if options.guidance is None else options.guidance,
            conditions=conditions,
            text=text,
            spacing=options.spacing,
            ignored=tuple(
                part + reason
                for part in (UNET, AUTOENCODER)
                for reason in unused(_part(state, part))
            ),
        )

    def example(self, published: bool = False) -> dict[str, Tensor]:
        networks = monai_networks()
        widths, blocks = ((256, 512, 768), 2) if published else ((32,), 1)
        attention = (False, True, True) if published else (True,)
        unet = networks.DiffusionModelUNet(
            3, 7, 3, blocks, widths, attention,
            resblock_updown=True, num_head_channels=widths,
            with_conditioning=True, cross_attention_dim=4,
        )  # fmt: skip
        channels = (64, 128, 128, 128) if published else (32, 32)
        autoencoder = networks.AutoencoderKL(
            3, 1, 1, blocks, channels, [False] * len(channels), 3,
            with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
        )  # fmt: skip
        state = {
            **{UNET + key: tensor for key, tensor in random_weights(unet).items()},
            **{AUTOENCODER + key: tensor for key, tensor in random_weights(autoencoder).items()},
        }
        state[f"{UNET}out.2.conv.weight"] *= 0.2  # an untrained prediction's errors add up
        return state

    def save(self, state: State, folder: Path) -> Path:
        """Writes a bundle; the small example's configuration tells its size and few steps."""
        small = f"{UNET}down_blocks.1.resnets.0.conv1.conv.weight" not in state
        latent, steps = ((8, 8, 8), 4) if small else (PUBLISHED_LATENTS[3], 50)
        configuration = {
            **dict.fromkeys(BRAIN, 0.5),
            "conditioning": f"$torch.tensor([[{', '.join(f'@{name}' for name in BRAIN)}]])",
            "noise": f"$torch.randn({(1, 3, *latent)})",
            "set_timesteps": f"$@scheduler.set_timesteps(num_inference_steps={steps})",
        }
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        (folder / "configs" / "inference.json").write_text(json.dumps(configuration), "utf-8")
        return super().save(state, folder / "models")


def _part(state: State, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}


def _latent(options: MONAIOptions, axes: int, factor: int) -> tuple[int, ...]:
    """Sizes of a latent.

    Raises:
        InvalidInput: they do not fit the network.
    """
    latent = options.latent_size or PUBLISHED_LATENTS.get(axes, ())
    if len(latent) != axes or any(side < factor or side % factor for side in latent):
        raise InvalidInput(
            f"latent_size {','.join(map(str, latent))} does not fit a network for {axes} axes",
            f"set latent_size to {axes} multiples of {factor}",
        )
    return latent


def _conditions(options: MONAIOptions, count: int) -> tuple[Input, ...]:
    """The public inputs of a network that takes so many numbers.

    Raises:
        InvalidInput: not one name for each, or names that can't be those of inputs.
    """
    names = options.conditions or tuple(f"condition_{k + 1}" for k in range(count))
    taken = {"seed", "label", "steps", "sampler", "eta", "guidance", "x", "t", "preview_every"}
    if len({*names} - taken) != count or not all(name.isidentifier() for name in names):
        raise InvalidInput(
            f"conditions {','.join(names)} are no names for {count} numbers",
            f"give {count} names of letters, separated by commas",
        )
    low, high = options.condition_minimum, options.condition_maximum
    return tuple(
        Input(name, "FP32", "in the units of the training", minimum=low, maximum=high)
        for name in names
    )


def _schedule(options: MONAIOptions) -> Schedule:
    """The schedule of the training.

    Raises:
        ExportError: the sampler can't run it.
    """
    names = (
        "num_train_timesteps", "schedule", "beta_start", "beta_end", "prediction_type",
        "clip_sample",
    )  # fmt: skip
    config = {name: getattr(options, name) for name in names}
    return read_schedule(config, options.sampler)


def _text(options: MONAIOptions, width: int) -> Text:
    """The text encoder, which the bundle does not hold.

    Raises:
        ExportError: the folder is no pipeline with a text encoder of CLIP.
        InvalidInput: it is not named, or its contexts have another width.
    """
    remedy = "set text_encoder to the folder of the diffusers pipeline that it was trained with"
    if not options.text_encoder:
        raise InvalidInput(
            "the network takes texts, and its text encoder is not among the files", remedy
        )
    checkpoint = read_checkpoint(Path(options.text_encoder), FILES)
    text, _ = read_text(checkpoint, MONAILatentDiffusion.name)
    if text.width != width:
        raise InvalidInput(
            f"{options.text_encoder}: its contexts are {text.width} wide, the network's {width}",
            remedy,
        )
    return text
