"""A diffusion generator as a Triton model: its ``model.py``, on Triton's Python backend.

Exports copy this folder into the generator's version folder. The network, the text encoder and the
decoder are models of their own, which this one calls; the loop between them is the engine's.
``execute`` only queues: answers are sent when the engine has them, so that requests join and leave
at any step. Under the name ``<generator>.stream`` the same code is a decoupled model, which besides
the images tells how far they are: see ``tickets.py``.

``config.pbtxt`` has a parameter ``sampler`` with JSON:

- ``schedule``: the attributes of :class:`schedules.Schedule`;
- ``shape``: [C, ...] of a sample;
- ``network``, ``decoder``, ``text``: names of Triton models; the decoder takes ``sample``, and the
  text encoder is null for a generator without prompts;
- ``conditions``: inputs of the request that are inputs of the network;
- ``unconditional``: values of the conditions of the row without guidance; null for no such row;
- ``defaults``: what a request gets that does not say, by input;
- ``limits``: [lowest, highest] of inputs, null for none;
- ``max_rows``, ``call_rows``, ``max_samples``: see :class:`engine.Engine`.
"""

import json
import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

# Triton's stub knows no virtual environment and takes no notice of PYTHONPATH.
# And of PYTHONDONTWRITEBYTECODE, but a release holds nothing beside what was released.
sys.dont_write_bytecode = True
with suppress(OSError):
    Path(cache_from_source(__file__)).unlink()
    Path(cache_from_source(__file__)).parent.rmdir()
SITES = os.environ.get("GALATEA_SERVER_SITE")
sys.path[:0] = [str(Path(__file__).parent), *(SITES.split(os.pathsep) if SITES else [])]

import numpy as np  # noqa: E402 - found by the line above
import triton_python_backend_utils as pb_utils  # noqa: E402 - likewise
from contexts import TOKENIZER, Contexts, Texts  # noqa: E402 - beside this file
from engine import Engine  # noqa: E402 - beside this file
from jobs import TOLD, Job, Sample  # noqa: E402 - beside this file
from meters import Meters  # noqa: E402 - beside this file
from noise import noise_of  # noqa: E402 - beside this file
from samplers import Settings, start  # noqa: E402 - beside this file
from schedules import Schedule  # noqa: E402 - beside this file
from tickets import Streamed, Ticket  # noqa: E402 - beside this file

DRAIN = 30.0  # seconds that jobs get when the model is unloaded
MICROSECONDS = 1e-6
CONTROLS = ("steps", "sampler", "eta", "guidance")

Array = np.ndarray[Any, Any]


class TritonPythonModel:
    """The generator's one instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the parameter ``sampler`` and starts the engine."""
        config = json.loads(args["model_config"])
        self.settings = json.loads(config["parameters"]["sampler"]["string_value"])
        self.version = int(args["model_version"])
        self.schedule = Schedule(**self.settings["schedule"])
        outputs = [output for output in config["output"] if output["name"] not in TOLD]
        self.outputs = [output["name"] for output in outputs]
        self.channels = [int(output["dims"][-1]) for output in outputs]
        input_types = {
            entry["name"]: pb_utils.triton_string_to_numpy(entry["data_type"])
            for entry in config["input"]
        }
        self.output_types = {
            output["name"]: pb_utils.triton_string_to_numpy(output["data_type"])
            for output in outputs
        }
        policy = config.get("model_transaction_policy", {})
        self.ticket = Streamed if policy.get("decoupled") else Ticket
        texts = None
        if self.settings["text"] is not None:
            texts = Texts(Path(__file__).with_name(TOKENIZER), self.encode)
        self.contexts = Contexts(self.settings, input_types, texts)
        self.pool = ThreadPoolExecutor(1, "galatea-noise")
        self.engine = Engine(
            self.predict,
            decode=self.decode,
            max_rows=self.settings["max_rows"],
            call_rows=self.settings["call_rows"],
            max_samples=self.settings["max_samples"],
        )
        self.meters = Meters(args["model_name"], pb_utils.MetricFamily, self.engine.metrics)

    def execute(self, requests: list[Any]) -> None:
        """Queues the requests; each is answered by the engine's second thread."""
        for request in requests:
            ticket = self.ticket(request, self.tensors)
            try:
                job = self.job(request, ticket)
                self.engine.submit(job)
            except Exception as error:
                ticket.fail(error)
                continue
            job.future.add_done_callback(partial(ticket.answer, job.calls_each))

    def finalize(self) -> None:
        """Lets what runs come to its end, for a while."""
        self.engine.close(drain=DRAIN)
        self.meters.close()
        self.pool.shutdown()

    def job(self, request: Any, ticket: Ticket) -> Job:
        """The samples that a request asks for."""
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        seeds = tensors["seed"][:, 0]
        told = {name: self.contexts.given(tensors, name, len(seeds)) for name in CONTROLS}
        contexts, bases = self.contexts.of(tensors, len(seeds))
        samples = []
        for row, seed in enumerate(seeds):
            settings = Settings(
                int(told["steps"][row]), str(told["sampler"][row]), float(told["eta"][row])
            )
            run = start(
                settings, self.schedule, self.shape, Noise(int(seed), self.shape, self.pool)
            )
            guidance = float(told["guidance"][row])
            samples.append(Sample(run, contexts[row], bases[row], guidance))
        microseconds = request.timeout()
        return Job(
            samples,
            timeout=microseconds * MICROSECONDS if microseconds else None,
            is_cancelled=ticket.is_cancelled,
            **ticket.wishes(tensors),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample, [C, ...]."""
        return tuple(self.settings["shape"])

    def predict(self, x: Array, t: Array, context: dict[str, Array]) -> Array:
        """One call of the network."""
        feed = {"x": x, "t": t[:, None], **context}
        return self.call(self.settings["network"], feed, ["prediction"])[0]

    def encode(self, tokens: Array) -> Array:
        """Tokens to contexts, one at a time: a prompt's bits do not depend on its neighbours."""
        parts = [
            self.call(self.settings["text"], {"tokens": tokens[i : i + 1]}, ["context"])[0]
            for i in range(len(tokens))
        ]
        return np.concatenate(parts)

    def decode(self, samples: Array) -> Array:
        """Finished samples to what is served, the outputs' channels one after another."""
        parts = self.call(self.settings["decoder"], {"sample": samples}, self.outputs)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def call(self, model: str, feed: dict[str, Array], outputs: list[str]) -> list[Array]:
        """Another model of this repository, of this model's version."""
        response = pb_utils.InferenceRequest(
            model_name=model,
            model_version=self.version,
            requested_output_names=outputs,
            inputs=[pb_utils.Tensor(name, array) for name, array in feed.items()],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
        ).exec()
        if response.has_error():
            raise RuntimeError(response.error().message())
        # Copies: the arrays lie in memory of the response.
        return [
            np.array(pb_utils.get_output_tensor_by_name(response, name).as_numpy())
            for name in outputs
        ]

    def tensors(self, images: Array) -> list[Any]:
        """The outputs of decoded samples [n, ..., channels]."""
        parts = np.split(images, np.cumsum(self.channels)[:-1], axis=-1)
        return [
            pb_utils.Tensor(
                name, np.ascontiguousarray(part.astype(self.output_types[name], copy=False))
            )
            for name, part in zip(self.outputs, parts, strict=True)
        ]


class Noise:
    """Noise v1 of a sample, as samplers ask for it: stream 0 at the start, then one each step.

    That of the next step is drawn while the network computes this one.
    """

    def __init__(self, seed: int, shape: tuple[int, ...], pool: ThreadPoolExecutor) -> None:
        self._seed, self._shape, self._pool = seed, shape, pool
        self._ahead: tuple[int, Future[Array]] | None = None

    def __call__(self, stream: int) -> Array:
        """Standard normal, float32 of the sample's shape."""
        ahead, self._ahead = self._ahead, None
        if stream:
            self._ahead = (stream + 1, self._pool.submit(self._drawn, stream + 1))
        if ahead is not None and ahead[0] == stream:
            return ahead[1].result()
        return self._drawn(stream)

    def _drawn(self, stream: int) -> Array:
        noise: Array = noise_of(self._seed, self._shape, stream)
        return noise
