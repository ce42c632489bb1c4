"""The two networks of MONAI's latent diffusion: UNet and decoder, in two or three dimensions.

Rombach et al. 2022 (arXiv:2112.10752) and Pinaya et al. 2022 (arXiv:2209.07162). The networks are
those of MONAI core; their sizes are read from names and shapes. Most published weights were saved
by Project-MONAI/GenerativeModels, whose names differ a little.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from galatea.errors import ExportError, InvalidInput
from galatea.extras import needs_extra
from galatea_exporter.checkpoint import State, load_strictly

TRAINED = ("encoder.", "quant_conv_mu.", "quant_conv_log_sigma.")  # of an autoencoder, for training
UNAPPLIED = ".proj_attn."  # GenerativeModels makes these layers and never runs them

# From the names of GenerativeModels to those of MONAI core, which the patterns leave as they are.
UNET_NAMES = (
    (r"\.to_out\.0\.", ".out_proj."),
    (r"\.upsampler\.conv\.conv\.", ".upsampler.postconv.conv."),
    (r"(\.attentions\.\d+|\.attention)\.(to_[qkv])\.", r"\1.attn.\2."),
)
DECODER_NAMES = (
    (r"(blocks\.\d+)\.conv\.conv\.", r"\1.postconv.conv."),
    (r"(blocks\.\d+)\.(to_[qkv])\.", r"\1.attn.\2."),
)


class UNet(nn.Module):
    """A noisy latent, its timestep and its conditions → a prediction of the latent's size.

    Args:
        unet: MONAI's.
        scalars: conditions of one number each, which are further channels and, together, the
            context; without them the context is that of a text.
    """

    def __init__(self, unet: nn.Module, scalars: int = 0) -> None:
        super().__init__()
        self.unet, self.scalars = unet, scalars

    def forward(self, x: Tensor, t: Tensor, *given: Tensor) -> Tensor:
        """One prediction for each row.

        Args:
            x: float32 [N, C, …].
            t: float32 [N, 1].
            given: the scalars, float32 [N, 1] each; or a context, float32 [N, length, width]; or
                nothing.
        """
        context = given[0] if given else None
        if self.scalars:
            values = torch.cat(given, dim=1)
            planes = values.reshape(*values.shape, *[1] * (x.ndim - 2))
            x = torch.cat([x, planes.expand(-1, -1, *x.shape[2:])], dim=1)
            context = values[:, None]
        return cast(Tensor, self.unet(x, timesteps=t.reshape(-1), context=context))


class Decoder(nn.Module):
    """The half of an autoencoder that sampling needs: latent [N, C, …] → picture or volume."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.decoder = autoencoder.get_submodule("decoder")
        self.post_quant_conv = autoencoder.get_submodule("post_quant_conv")

    def forward(self, latent: Tensor) -> Tensor:
        return cast(Tensor, self.decoder(self.post_quant_conv(latent)))


def monai_networks() -> Any:
    """The module ``monai.networks.nets``, which takes seconds to import.

    Raises:
        MachineError: MONAI is not installed, or the package that its attention asks for later.
    """
    with needs_extra("diffusion"):
        import_module("einops")
        return import_module("monai.networks.nets")


def load_unet(
    state: State, path: Path, family: str, *, groups: int, eps: float, heads: tuple[int, ...]
) -> tuple[UNet, dict[str, Any]]:
    """The UNet of a state dict in eval mode, and the arguments that MONAI's constructor got.

    Args:
        path, family: name the checkpoint in errors.
        groups, eps: of all norms.
        heads: channels of each head, at each level or at all; () is one head as wide as its level.

    Raises:
        ExportError: a tensor is missing, left over or of the wrong shape.
        InvalidInput: groups or heads do not divide the network's channels.
        MachineError: MONAI is not installed.
    """
    kept = {_renamed(key, UNET_NAMES): state[key] for key in state if UNAPPLIED not in key}
    arguments = _unet_arguments(kept, path)
    channels = arguments["channels"]
    arguments |= {
        "norm_num_groups": groups,
        "norm_eps": eps,
        "num_head_channels": heads * len(channels) if len(heads) == 1 else heads or channels,
    }
    networks = monai_networks()
    with _sizes_that_fit(path):
        _check_heads(arguments)
        unet = networks.DiffusionModelUNet(**arguments)
    load_strictly(unet, kept, path, family)
    return UNet(unet, arguments["in_channels"] - arguments["out_channels"]), arguments


def load_decoder(
    state: State, path: Path, family: str, *, groups: int, eps: float
) -> tuple[Decoder, dict[str, Any]]:
    """The decoder of an autoencoder in eval mode, and the arguments of MONAI's constructor.

    Raises:
        ExportError: a tensor of the decoder is missing, left over or of the wrong shape.
        InvalidInput: the groups do not divide the network's channels.
        MachineError: MONAI is not installed.
    """
    kept = {
        _renamed(key, DECODER_NAMES): state[key]
        for key in state
        if UNAPPLIED not in key and not key.startswith(TRAINED)
    }
    arguments = _decoder_arguments(kept, path)
    arguments |= {"norm_num_groups": groups, "norm_eps": eps}
    networks = monai_networks()
    with _sizes_that_fit(path):
        decoder = Decoder(networks.AutoencoderKL(**arguments, with_encoder_nonlocal_attn=False))
    load_strictly(decoder, kept, path, family)
    return decoder, arguments


def unused(state: State) -> Iterator[str]:
    """Why tensors of an autoencoder or a UNet are not in the network."""
    for key in state:
        if UNAPPLIED in key:
            yield f"{key}: never applied by the code that saved it"
        elif key.startswith(TRAINED):
            yield f"{key}: not the generator"


def _unet_arguments(state: State, path: Path) -> dict[str, Any]:
    """What names and shapes tell the constructor of ``monai.networks.nets.DiffusionModelUNet``.

    Raises:
        ExportError: a tensor that tells a size is not there.
    """
    shape = _shapes(state, path)
    levels = [f"down_blocks.{k}." for k in range(_count(state, "down_blocks."))]
    conditioned = any(".transformer_blocks." in key for key in state)
    keys = [key for key in state if key.endswith(".attn2.to_k.weight")]
    return {
        "spatial_dims": len(shape("conv_in.conv.weight", 3)) - 2,
        "in_channels": shape("conv_in.conv.weight", 3)[1],
        "out_channels": shape("out.2.conv.weight", 3)[0],
        "channels": [shape(f"{level}resnets.0.conv1.conv.weight", 3)[0] for level in levels],
        "num_res_blocks": [_count(state, f"{level}resnets.") for level in levels],
        "attention_levels": [_count(state, f"{level}attentions.") > 0 for level in levels],
        "resblock_updown": any(key.startswith("down_blocks.0.downsampler.conv1.") for key in state),
        "with_conditioning": conditioned,
        "cross_attention_dim": shape(keys[0], 2)[1] if conditioned and keys else None,
        "transformer_num_layers": _count(state, "middle_block.attention.transformer_blocks."),
        "include_fc": conditioned or any(".attn.out_proj." in key for key in state),
    }


def _decoder_arguments(state: State, path: Path) -> dict[str, Any]:
    """What the decoder's names and shapes tell ``monai.networks.nets.AutoencoderKL``.

    Its layers are in one row: residual units (R), attentions (A) and enlargements (U) of all
    levels, the smallest first.

    Raises:
        ExportError: a tensor that tells a size is not there.
    """
    shape = _shapes(state, path)
    names = [f"decoder.blocks.{k}." for k in range(_count(state, "decoder.blocks."))]
    row = "".join(_kind(state, name) for name in names)
    # At the start an attention between two units belongs to no level, unless they are a level's
    # own, where each unit has one.
    nonlocal_attention = bool(re.match(r".RAR(?!A)", row))
    start = 4 if nonlocal_attention else 1
    levels, widths = row[start:].strip("-").split("U"), []
    for level in levels:
        widths.append(shape(f"{names[min(start, len(names) - 1)]}conv1.conv.weight", 3)[0])
        start += len(level) + 1
    latent = shape("post_quant_conv.conv.weight", 3)
    return {
        "spatial_dims": len(latent) - 2,
        "latent_channels": latent[0],
        "out_channels": shape(f"{names[-1]}conv.weight", 3)[0],
        "channels": widths[::-1],
        "num_res_blocks": [level.count("R") for level in levels[::-1]],
        "attention_levels": ["A" in level for level in levels[::-1]],
        "with_decoder_nonlocal_attn": nonlocal_attention,
        "include_fc": any(".attn.out_proj." in key for key in state),
    }


def _kind(state: State, name: str) -> str:
    inside = {key.removeprefix(name).split(".")[0] for key in state if key.startswith(name)}
    if inside & {"conv1", "conv2", "norm1", "norm2"}:
        return "R"
    return "A" if "attn" in inside else "U" if "postconv" in inside else "-"


def _shapes(state: State, path: Path) -> Callable[[str, int], torch.Size]:
    def shape(key: str, axes: int) -> torch.Size:
        if key not in state or state[key].ndim < axes:
            raise ExportError(
                f"{path}: {key} is missing or has too few axes",
                "name the right family: galatea families",
            )
        return state[key].shape

    return shape


def _count(state: State, prefix: str) -> int:
    """How many numbers follow a prefix in names."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _renamed(key: str, names: tuple[tuple[str, str], ...]) -> str:
    for pattern, name in names:
        key = re.sub(pattern, name, key)
    return key


def _check_heads(arguments: dict[str, Any]) -> None:
    """MONAI itself makes layers of fewer channels where heads do not divide them.

    Raises:
        ValueError: they don't.
        ZeroDivisionError: a level with attention has none.
    """
    levels = (arguments[name] for name in ("channels", "num_head_channels", "attention_levels"))
    for channels, head, attention in zip(*levels, strict=True):
        if attention and channels % head:
            raise ValueError(f"heads of {head} channels do not divide {channels} channels")


@contextmanager
def _sizes_that_fit(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, ZeroDivisionError) as error:
        raise InvalidInput(
            f"{path}: MONAI can't make this network: {error}",
            "set norm_num_groups and num_head_channels to those of the training",
        ) from error
