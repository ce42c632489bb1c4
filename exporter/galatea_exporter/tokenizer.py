"""CLIP's tokenizer (Radford et al. 2021) as the JSON of the package ``tokenizers``.

Folders of pipelines hold its vocabulary and merges, and newer ones a ``tokenizer.json`` that says
how transformers prepares texts besides. Ids are those of transformers' ``CLIPTokenizer`` with
padding and truncation to the encoder's length.
"""

from __future__ import annotations

from pathlib import Path

from galatea.errors import ExportError
from galatea.extras import needs_extra
from galatea_exporter.folders import read_config, text_of

SPECIAL = ("bos_token", "eos_token", "pad_token")
USUAL = {"bos_token": "<|startoftext|>"}  # the others are the end of text
END = "<|endoftext|>"
SHORTEST = 3  # tokens: begin, a word, end
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def clip_tokenizer(folder: Path, length: int) -> str:
    """The tokenizer of a pipeline.

    Args:
        folder: with ``vocab.json`` and ``merges.txt``, or ``tokenizer.json``.
        length: of what the encoder takes, in tokens; shorter texts are padded, longer ones cut.

    Raises:
        ExportError: a file is missing or damaged, or another tokenizer's.
    """
    with needs_extra("diffusion"):
        from tokenizers import (
            AddedToken,
            Regex,
            Tokenizer,
            models,
            normalizers,
            pre_tokenizers,
            processors,
        )

    try:
        vocabulary, merges = _vocabulary(folder)
        names, length = _special(folder, length)
        begin, end, pad = (names[kind] for kind in SPECIAL)
        ids = {name: vocabulary[name] for name in (begin, end, pad)}
        unknown = names["unk_token"] if names["unk_token"] in vocabulary else None
        tokenizer = Tokenizer(
            models.BPE(
                vocabulary, merges, unk_token=unknown,
                continuing_subword_prefix="", end_of_word_suffix="</w>",
            )
        )  # fmt: skip
    except ExportError:
        raise
    # The package raises bare Exceptions for a vocabulary that does not fit its merges.
    except Exception as error:
        raise ExportError(
            f"{folder}: holds no tokenizer of CLIP ({type(error).__name__}: {error})",
            "download the folder again, or take one with vocab.json and merges.txt",
        ) from error
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ids])
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{begin} $A {end}", special_tokens=[(begin, ids[begin]), (end, ids[end])]
    )
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=ids[pad], pad_token=pad)
    text: str = tokenizer.to_str()
    return text


def byte_vocabulary(*words: str) -> dict[str, int]:
    """The smallest vocabulary that knows every text: bytes, within a word and at its end.

    Args:
        words: that merges make, in their order.
    """
    with needs_extra("diffusion"):
        from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    names = (*letters, *(f"{letter}</w>" for letter in letters), *words, USUAL["bos_token"], END)
    return {name: number for number, name in enumerate(names)}


def _vocabulary(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    whole = folder / "tokenizer.json"
    if whole.is_file() and not (folder / "vocab.json").is_file():
        model = read_config(whole)["model"]
        vocabulary, lines = model["vocab"], model["merges"]
    else:
        vocabulary = read_config(folder / "vocab.json")
        lines = text_of(folder / "merges.txt").splitlines()
        lines = [line for line in lines if line and not line.startswith("#version")]
    pairs = (line.split() if isinstance(line, str) else line for line in lines)
    return vocabulary, [(first, second) for first, second in pairs]


def _special(folder: Path, length: int) -> tuple[dict[str, str], int]:
    """Special tokens by their kind, and the length, which the configuration may shorten."""
    config, older = (
        read_config(folder / name) if (folder / name).is_file() else {}
        for name in ("tokenizer_config.json", "special_tokens_map.json")
    )
    # With "added_tokens_decoder" transformers leaves the older file alone.
    told = config if "added_tokens_decoder" in config else {**config, **older}
    names = {}
    for kind in (*SPECIAL, "unk_token"):
        token = told.get(kind) or USUAL.get(kind, END)
        names[kind] = token["content"] if isinstance(token, dict) else token
    length = min(length, int(config.get("model_max_length") or length))
    if length < SHORTEST:
        raise ValueError(f"model_max_length {length}")
    return names, length
