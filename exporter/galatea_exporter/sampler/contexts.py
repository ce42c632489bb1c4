"""What a network takes beside x and t, of the conditions and the prompts of a request.

Prompts are tokenized in this process, and encoded by a call.

Exports copy this file beside Triton's ``model.py``. Besides NumPy it needs the package
``tokenizers``, and only where a model takes prompts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOKENIZER = "tokenizer.json"  # beside this file
KEPT = 64  # contexts; those of negative prompts are wanted again and again
LONGEST = 10_000  # characters; a tokenizer's time grows with them, and it truncates much earlier


Array = NDArray[Any]


class Contexts:
    """The contexts of requests, as the parameter ``sampler`` of ``config.pbtxt`` has them made.

    Args:
        settings: that parameter.
        types: dtype of each input.
        texts: None for a generator without prompts.
    """

    def __init__(
        self, settings: Mapping[str, Any], types: Mapping[str, Any], texts: Texts | None
    ) -> None:
        self._settings, self._types, self._texts = settings, types, texts

    def given(self, tensors: Mapping[str, Array], name: str, count: int) -> Any:
        """An input of each sample, [count], or its default.

        Raises:
            ValueError: a value is beyond its limits, or no text.
        """
        if name not in tensors:
            return [self._settings["defaults"][name]] * count
        if tensors[name].dtype == np.object_:
            return decoded(tensors[name])
        self._check(name, tensors[name])
        return tensors[name][:, 0]

    def _check(self, name: str, values: Array) -> None:
        low, high = self._settings["limits"].get(name, (None, None))
        for value in values[:, 0].tolist():
            # Asked this way round, because nothing is true of NaN.
            if not ((low is None or value >= low) and (high is None or value <= high)):
                raise ValueError(f"{name} must be {low} … {high}, not {value}")

    def of(
        self, tensors: Mapping[str, Array], count: int
    ) -> tuple[list[dict[str, Array]], list[dict[str, Array] | None]]:
        """For each sample of a request, and for its row without guidance.

        Raises:
            ValueError: a condition is beyond its limits, or a prompt is no text or too long.
        """
        names = self._settings["conditions"]
        told = {name: self.given(tensors, name, count) for name in names}
        contexts = [
            {name: np.array([values[row]], self._types[name]) for name, values in told.items()}
            for row in range(count)
        ]
        unconditional = self._settings["unconditional"]
        bases: list[dict[str, Array] | None] = [None] * count
        if unconditional is not None:
            bases = [
                {name: np.full_like(context[name], value) for name, value in unconditional.items()}
                for context in contexts
            ]
        if self._texts is not None:
            prompts = decoded(tensors["prompt"])
            negative = self.given(tensors, "negative_prompt", count)
            made = self._texts.contexts([*prompts, *negative])
            for row, context in enumerate(contexts):
                bases[row] = {**context, **(bases[row] or {}), "context": made[count + row]}
                context["context"] = made[row]
        return contexts, bases


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
