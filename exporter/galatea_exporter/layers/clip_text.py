"""The text encoder of CLIP, which latent diffusion takes its contexts from.

Radford et al. 2021 (arXiv:2103.00020), in the names of transformers' ``CLIPTextModel``: a
transformer whose layers are normed before and whose words see those before them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from galatea.errors import ExportError
from galatea_exporter.assembly import Text
from galatea_exporter.checkpoint import Checkpoint, State, load_strictly
from galatea_exporter.folders import read_config
from galatea_exporter.tokenizer import clip_tokenizer

FOLDER = "text_encoder"
FILES = ("text_encoder/", "tokenizer/")  # what `read_text` needs of a pipeline's folder
PREFIX = "text_model."  # of older files

# What transformers takes where the configuration is silent.
SILENT: Mapping[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


class QuickGELU(nn.Module):
    """An approximation of GELU, by a sigmoid."""

    def forward(self, features: Tensor) -> Tensor:
        return features * torch.sigmoid(1.702 * features)


ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class ClipText(nn.Module):
    """Tokens int64 [N, length] → float32 [N, length, hidden_size], normed.

    Args:
        config: the content of ``config.json``.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, length = config["hidden_size"], config["max_position_embeddings"]
        layers = [Layer(config) for _ in range(config["num_hidden_layers"])]
        self.embeddings = nn.ModuleDict(
            {
                "token_embedding": nn.Embedding(config["vocab_size"], width),
                "position_embedding": nn.Embedding(length, width),
            }
        )
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.final_layer_norm = nn.LayerNorm(width, config["layer_norm_eps"])
        later = torch.full((length, length), float("-inf")).triu(1)
        self.register_buffer("later", later, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        positions = cast(Tensor, self.embeddings["position_embedding"].weight)[:length]
        features = self.embeddings["token_embedding"](tokens) + positions
        mask = cast(Tensor, self.later)[:length, :length]
        for layer in cast(nn.ModuleList, self.encoder["layers"]):
            features = layer(features, mask)
        return cast(Tensor, self.final_layer_norm(features))


class Layer(nn.Module):
    """Attention and two linear layers, each added to what it was given."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        inner = config["intermediate_size"]
        self.layer_norm1 = nn.LayerNorm(width, eps)
        self.self_attn = Attention(width, config["num_attention_heads"])
        self.layer_norm2 = nn.LayerNorm(width, eps)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})
        self.activation = ACTIVATIONS[config["hidden_act"]]()

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        features = features + self.self_attn(self.layer_norm1(features), mask)
        inner = self.activation(self.mlp["fc1"](self.layer_norm2(features)))
        return features + cast(Tensor, self.mlp["fc2"](inner))


class Attention(nn.Module):
    """Multi-head attention with a mask [length, length] that is added to its logits."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads can't share {width} channels")
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            projection(features).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        weights = ((query * self.scale) @ key.transpose(2, 3) + mask).softmax(dim=3)
        return cast(Tensor, self.out_proj((weights @ value).transpose(1, 2).flatten(2)))


def read_text(checkpoint: Checkpoint, family: str) -> tuple[Text, tuple[str, ...]]:
    """The text encoder and the tokenizer of a pipeline.

    Args:
        checkpoint: of a folder, with at least `FILES`.
        family: named in errors.

    Returns:
        The text, and names and reasons of the tensors that are not used.

    Raises:
        ExportError: it is no text encoder of CLIP, or does not fit strictly.
        MachineError: the package ``tokenizers`` is not installed.
    """
    path = checkpoint.path
    folder = path / FOLDER
    config = _config(folder / "config.json")
    named, ignored = _named({
        key.removeprefix(f"{FOLDER}."): tensor
        for key, tensor in checkpoint.flat().items()
        if key.startswith(f"{FOLDER}.")
    })  # fmt: skip
    try:
        encoder = ClipText(config)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise ExportError(f"{folder}/config.json: {error}", "download it again") from error
    load_strictly(encoder, named, folder, family)
    tokenizer = clip_tokenizer(path / "tokenizer", config["max_position_embeddings"])
    told = json.loads(tokenizer)
    known, words = 1 + max(told["model"]["vocab"].values()), config["vocab_size"]
    if known > words:
        raise ExportError(
            f"{path}: the tokenizer knows {known} words, the encoder {words}",
            "take both from one model",
        )
    length = told["truncation"]["max_length"]
    return Text(encoder, length, config["hidden_size"], words, tokenizer), ignored


def _config(path: Path) -> dict[str, Any]:
    """The sizes of the network.

    Raises:
        ExportError: it is another one than ours.
    """
    told = read_config(path)
    config = {key: told.get(key, value) for key, value in SILENT.items()}
    kinds = told.get("architectures") or ["CLIPTextModel"]
    problem = ""
    if kinds != ["CLIPTextModel"]:
        problem = f"is a {', '.join(map(str, kinds))}; known is CLIPTextModel"
    elif config["hidden_act"] not in ACTIVATIONS:
        problem = f"hidden_act {config['hidden_act']!r} is none of {', '.join(ACTIVATIONS)}"
    if problem:
        raise ExportError(f"{path}: {problem}", "export a model whose texts are read by CLIP")
    return config


def _named(state: State) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Newer names, and what older files hold beside weights: the numbers 0, 1, …"""
    counts = [key for key in state if key.endswith("embeddings.position_ids")]
    named = {key.removeprefix(PREFIX): state[key] for key in state if key not in counts}
    return named, tuple(f"{FOLDER}.{key}: not a weight" for key in counts)
