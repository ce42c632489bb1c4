"""Runs the release of a diffusion generator as its ``model.py`` does, without Triton."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import triton_to_np_dtype

from galatea.repository import Release
from galatea_exporter.compiling import GRAPH
from galatea_exporter.sampler.contexts import TOKENIZER, Contexts, Texts
from galatea_exporter.sampler.engine import Engine
from galatea_exporter.sampler.jobs import Job, Sample
from galatea_exporter.sampler.noise import noise_of
from galatea_exporter.sampler.samplers import Settings, start
from galatea_exporter.sampler.schedules import Schedule

__all__ = ["Diffusion"]

Array = NDArray[Any]


class Diffusion:
    """The network, decoder and text encoder of a release, and the engine between them.

    Args:
        config: ModelConfig of the public model, with its parameter ``sampler``.
    """

    def __init__(self, release: Release, config: Any) -> None:
        self._settings = json.loads(config.parameters["sampler"].string_value)
        self._schedule = Schedule(**self._settings["schedule"])
        self._shape = tuple(self._settings["shape"])
        types = {entry.name: _dtype(entry.data_type) for entry in config.input}
        self._outputs = {
            output.name: (output.dims[-1], _dtype(output.data_type)) for output in config.output
        }
        version = str(release.version)
        self._sessions = {
            part: onnxruntime.InferenceSession(
                release.root / self._settings[part] / version / GRAPH,
                providers=["CPUExecutionProvider"],
            )
            for part in ("network", "decoder", "text")
            if self._settings[part] is not None
        }
        texts = None
        if "text" in self._sessions:
            texts = Texts(release.folder / TOKENIZER, self._encoded)
        self._contexts = Contexts(self._settings, types, texts)

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs [N, …] of a request with these inputs [N, 1]."""
        count = len(feed["seed"])
        settings = self._settings
        contexts, bases = self._contexts.of(feed, count)
        samples = []
        for i in range(count):
            told = {
                name: self._contexts.given(feed, name, count)[i]
                for name in ("steps", "sampler", "eta", "guidance")
            }
            choice = Settings(int(told["steps"]), str(told["sampler"]), float(told["eta"]))
            noise = partial(noise_of, int(feed["seed"][i, 0]), self._shape)
            run = start(choice, self._schedule, self._shape, noise)
            samples.append(Sample(run, contexts[i], bases[i], float(told["guidance"])))
        with Engine(
            self._predicted, decode=self._decoded, max_rows=settings["max_rows"],
            call_rows=settings["call_rows"], max_samples=settings["max_samples"],
        ) as engine:  # fmt: skip
            images = np.stack(engine.submit(Job(samples)).result())
        ends = np.cumsum([channels for channels, _ in self._outputs.values()])[:-1]
        parts = np.split(images, ends, axis=-1)
        return {
            name: part.astype(dtype, copy=False)
            for (name, (_, dtype)), part in zip(self._outputs.items(), parts, strict=True)
        }

    def _predicted(self, x: Array, t: Array, context: dict[str, Array]) -> Array:
        return self._called("network", {"x": x, "t": t[:, None], **context}, ["prediction"])[0]

    def _decoded(self, samples: Array) -> Array:
        parts = self._called("decoder", {"sample": samples}, list(self._outputs))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def _encoded(self, tokens: Array) -> Array:
        rows = [tokens[i : i + 1] for i in range(len(tokens))]
        return np.concatenate([self._called("text", {"tokens": r}, ["context"])[0] for r in rows])

    def _called(self, part: str, feed: dict[str, Array], outputs: list[str]) -> list[Array]:
        made: list[Array] = self._sessions[part].run(outputs, feed)
        return made


def _dtype(data_type: int) -> Any:
    name = model_config_pb2.DataType.Name(data_type).removeprefix("TYPE_")
    return triton_to_np_dtype("BYTES" if name == "STRING" else name)
