"""Prompts to contexts: the tokenizer in this process, the encoder by a call.

Exports copy this file beside Triton's ``model.py``. Besides NumPy it needs the package
``tokenizers``, and only where a model takes prompts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOKENIZER = "tokenizer.json"  # beside this file
KEPT = 64  # contexts; those of negative prompts are wanted again and again
LONGEST = 10_000  # characters; a tokenizer's time grows with them, and it truncates much earlier


class Texts:
    """Contexts of prompts, the last ones kept. Not for several threads at once.

    Args:
        tokenizer: file with the JSON of the package ``tokenizers``; it pads and truncates.
        encode: the text encoder: tokens int64 [n, length] to contexts float32 [n, length, width].
    """

    def __init__(
        self, tokenizer: Path, encode: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    ) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._encode = encode
        self._kept: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def contexts(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """The context [length, width] of each text.

        Raises:
            ValueError: a text is too long.
        """
        longest = max(map(len, texts))
        if longest > LONGEST:
            raise ValueError(f"a prompt of {longest} characters: give at most {LONGEST}")
        known = {text: self._kept[text] for text in texts if text in self._kept}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(missing)]
            made = self._encode(np.array(tokens, np.int64))
            known |= {text: np.array(one) for text, one in zip(missing, made, strict=True)}
        for text in dict.fromkeys(texts):
            self._kept[text] = known[text]
            self._kept.move_to_end(text)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return [known[text] for text in texts]


def decoded(values: NDArray[Any]) -> list[str]:
    """Triton's BYTES [n, 1] as texts.

    Raises:
        ValueError: not UTF-8.
    """
    try:
        return [value.decode() for value in values[:, 0]]
    except UnicodeDecodeError as error:
        raise ValueError(f"a text is no UTF-8: {error}") from error
