"""A diffusion generator as a Triton model: its ``model.py``, on Triton's Python backend.

Exports copy this folder into the generator's version folder. The network and the decoder are models
of their own, which this one calls; the loop between them is the engine's. ``execute`` only queues:
answers are sent when the engine has them, so that requests join and leave at any step.

``config.pbtxt`` has a parameter ``sampler`` with JSON:

- ``schedule``: the attributes of :class:`schedules.Schedule`;
- ``shape``: [C, H, W] of a sample;
- ``network``, ``decoder``: names of Triton models; the decoder takes ``sample``;
- ``conditions``: inputs of the request that are inputs of the network;
- ``unconditional``: values of the conditions of the row without guidance; null for no guidance;
- ``steps``, ``guidance``: what a request gets that does not say;
- ``max_rows``, ``max_samples``: see :class:`engine.Engine`.
"""

import json
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

# Triton's stub knows no virtual environment and takes no notice of PYTHONPATH.
sys.path[:0] = [
    str(Path(__file__).parent),
    *os.environ.get("GALATEA_SERVER_SITE", "").split(os.pathsep),
]

import numpy as np  # noqa: E402 - found by the line above
import triton_python_backend_utils as pb_utils  # noqa: E402 - likewise
from engine import Busy, Engine  # noqa: E402 - beside this file
from jobs import Cancelled, Job, Sample  # noqa: E402 - beside this file
from noise import noise_v1  # noqa: E402 - beside this file
from samplers import Settings, start  # noqa: E402 - beside this file
from schedules import Schedule  # noqa: E402 - beside this file

DRAIN = 30.0  # seconds that jobs get when the model is unloaded
MICROSECONDS = 1e-6

Array = np.ndarray[Any, Any]


class TritonPythonModel:
    """The generator's one instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the parameter ``sampler`` and starts the engine."""
        config = json.loads(args["model_config"])
        self.settings = json.loads(config["parameters"]["sampler"]["string_value"])
        self.version = int(args["model_version"])
        self.schedule = Schedule(**self.settings["schedule"])
        self.outputs = [output["name"] for output in config["output"]]
        self.dtypes = {
            output["name"]: pb_utils.triton_string_to_numpy(output["data_type"])
            for output in config["output"]
        }
        self.channels = [output["dims"][-1] for output in config["output"]]
        self.engine = Engine(
            self.predict,
            decode=self.decode,
            max_rows=self.settings["max_rows"],
            max_samples=self.settings["max_samples"],
        )

    def execute(self, requests: list[Any]) -> None:
        """Queues the requests; each is answered by the engine's second thread."""
        for request in requests:
            ticket = Ticket(request)
            try:
                job = self.job(request, ticket)
                self.engine.submit(job)
            except Exception as error:
                ticket.answer(pb_utils.InferenceResponse(error=failure(error)))
                continue
            job.future.add_done_callback(partial(self.answer, ticket))

    def finalize(self) -> None:
        """Lets what runs come to its end, for a while."""
        self.engine.close(drain=DRAIN)

    def job(self, request: Any, ticket: "Ticket") -> Job:
        """The samples that a request asks for."""
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        seeds = tensors["seed"][:, 0]
        steps = given(tensors, "steps", len(seeds), self.settings["steps"])
        guidance = given(tensors, "guidance", len(seeds), self.settings["guidance"])
        eta = given(tensors, "eta", len(seeds), 0.0)
        unconditional = self.settings["unconditional"]
        samples = []
        for row, seed in enumerate(seeds):
            context = {name: tensors[name][row].copy() for name in self.settings["conditions"]}
            base = None
            if unconditional is not None:
                base = {name: np.full_like(context[name], unconditional[name]) for name in context}
            settings = Settings(int(steps[row]), eta=float(eta[row]))
            run = start(settings, self.schedule, self.shape, partial(self.noise, seed))
            samples.append(Sample(run, context, base, float(guidance[row])))
        microseconds = request.timeout()
        return Job(
            samples,
            timeout=microseconds * MICROSECONDS if microseconds else None,
            is_cancelled=ticket.is_cancelled,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample, [C, H, W]."""
        return tuple(self.settings["shape"])

    def noise(self, seed: np.int64, stream: int) -> Array:
        """Noise v1 of a sample; stream 0 is where it starts."""
        size = int(np.prod(self.shape))
        noise: Array = noise_v1(np.array([seed]), size, stream).reshape(self.shape)
        return noise

    def predict(self, x: Array, t: Array, context: dict[str, Array]) -> Array:
        """One call of the network."""
        feed = {"x": x, "t": t[:, None], **context}
        return self.call(self.settings["network"], feed, ["prediction"])[0]

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

    def answer(self, ticket: "Ticket", future: Any) -> None:
        """Sends what the engine made, or why it did not."""
        error = future.exception()
        if error is not None:
            ticket.answer(pb_utils.InferenceResponse(error=failure(error)))
            return
        images = np.stack(future.result())
        ends = np.cumsum(self.channels)
        parts = np.split(images, ends[:-1], axis=-1)
        tensors = [
            pb_utils.Tensor(name, np.ascontiguousarray(part.astype(self.dtypes[name], copy=False)))
            for name, part in zip(self.outputs, parts, strict=True)
        ]
        ticket.answer(pb_utils.InferenceResponse(tensors))


class Ticket:
    """A request that waits for its answer.

    The engine's threads ask whether it is cancelled, and Triton crashes when it is asked that of a
    request that was answered.
    """

    def __init__(self, request: Any) -> None:
        self._request = request
        self._sender = request.get_response_sender()
        self._lock = threading.Lock()
        self._answered = False

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        with self._lock:
            return self._answered or bool(self._request.is_cancelled())

    def answer(self, response: Any) -> None:
        """Sends the one answer."""
        with self._lock:
            self._answered = True
            self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def given(tensors: dict[str, Array], name: str, count: int, default: float) -> Array:
    """A control of each sample, [count]."""
    return tensors[name][:, 0] if name in tensors else np.full(count, default)


def failure(error: BaseException) -> Any:
    """An error as Triton's, with a code that tells callers whether to come again."""
    codes = pb_utils.TritonError
    if isinstance(error, Busy):
        return codes(str(error), codes.UNAVAILABLE)
    if isinstance(error, Cancelled):
        return codes(str(error), codes.CANCELLED)
    if isinstance(error, ValueError | KeyError):
        return codes(str(error), codes.INVALID_ARG)
    return codes(str(error), codes.INTERNAL)
