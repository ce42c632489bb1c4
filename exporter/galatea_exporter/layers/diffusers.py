"""The two networks of latent diffusion as diffusers makes them, filled strictly from a folder.

Rombach et al. 2022 (arXiv:2112.10752). diffusers' own ``from_pretrained`` gives a tensor that is
missing random values; here it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor, nn

from galatea.errors import ExportError
from galatea.extras import needs_extra
from galatea_exporter.checkpoint import State, load_strictly
from galatea_exporter.folders import read_config

Kind = Literal["UNet2DConditionModel", "AutoencoderKL"]

CONFIG = "config.json"

# Options that make a network take something that no stage gives it.
UNKNOWN_INPUTS = (
    "class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim",
    "encoder_hid_dim_type", "time_cond_proj_dim",
)  # fmt: skip
ENCODING = ("encoder.", "quant_conv.")  # of an autoencoder

# Attention of autoencoders that were saved before diffusers 0.15.
OLD_ATTENTION = re.compile(r"(\.attentions\.\d+)\.(query|key|value|proj_attn)\.")
NEW_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class UNet(nn.Module):
    """``network(x float32 [N, C, H, W], t float32 [N, 1], context)`` → float32 [N, C, H, W].

    Args:
        unet: diffusers'; its `config` has the values of what a file left open too.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet, self.config = unet, cast(Mapping[str, Any], unet.config)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        made = self.unet(x, t.reshape(-1), encoder_hidden_states=context, return_dict=False)
        return cast(Tensor, made[0])


class Decoder(nn.Module):
    """The half of an autoencoder from latents [N, C, h, w] to pixels [N, C', H, W].

    Args:
        autoencoder: diffusers'; its `config` has the values of what a file left open too.
    """

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.config = cast(Mapping[str, Any], autoencoder.config)

    def forward(self, latent: Tensor) -> Tensor:
        decode = cast(Callable[..., tuple[Tensor]], self.autoencoder.decode)
        return decode(latent, return_dict=False)[0]


def load_unet(state: State, path: Path, family: str) -> UNet:
    """The network of the folder ``unet`` at `path`.

    Raises:
        ExportError: it takes more than a latent and a context, or does not fit strictly.
    """
    config = read_config(path / CONFIG)
    for option in UNKNOWN_INPUTS:
        if config.get(option) is not None:
            raise ExportError(
                f"{path}: {option} {config[option]!r} is not supported",
                "export a pipeline whose network takes a latent and one text",
            )
    unet = make("UNet2DConditionModel", config, path)
    load_strictly(unet, state, path, family)
    return UNet(unet)


def load_decoder(state: State, path: Path, family: str) -> Decoder:
    """The decoding half of the folder ``vae`` at `path`.

    Raises:
        ExportError: it does not fit strictly.
    """
    autoencoder = make("AutoencoderKL", read_config(path / CONFIG), path)
    del autoencoder.encoder, autoencoder.quant_conv
    used = {}
    for key, tensor in state.items():
        if not key.startswith(ENCODING):
            name = OLD_ATTENTION.sub(lambda found: f"{found[1]}.{NEW_NAMES[found[2]]}.", key)
            # The old layers may be convolutions of one pixel; the new ones are linear.
            pointwise = ".attentions." in name and tensor.ndim == 4
            used[name] = tensor[:, :, 0, 0] if pointwise else tensor
    load_strictly(autoencoder, used, path, family)
    return Decoder(autoencoder)


def make(kind: Kind, config: Mapping[str, Any], path: Path) -> Any:
    """A network of diffusers with random weights.

    Args:
        path: names the folder in errors.

    Raises:
        ExportError: the configuration is of another network, or damaged.
    """
    if config.get("_class_name", kind) != kind:
        raise ExportError(
            f"{path}: is a {config['_class_name']}; known is {kind}",
            "export a pipeline of Stable Diffusion 1 or 2",
        )
    with needs_extra("diffusion"):
        import diffusers

    try:
        return getattr(diffusers, kind).from_config(dict(config))
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise ExportError(f"{path / CONFIG}: {error}", "download the folder again") from error
