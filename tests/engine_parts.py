"""Runs, models and decoders for the tests of the diffusion engine."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galatea_exporter.sampler.engine import Engine
from galatea_exporter.sampler.jobs import Job, Sample

Array = NDArray[Any]
SHAPE = (2, 4, 4)
BAD = 1e6  # a value in a sample at which the models below fail


class Decay:
    """A run that moves against the prediction, with noise of its own at every step."""

    def __init__(self, seed: int, calls: int, shape: tuple[int, ...] = SHAPE) -> None:
        self.random = np.random.default_rng(seed)
        self.sample = self.random.standard_normal(shape, np.float32)
        self.preview = self.sample
        self.calls, self.made = calls, 0

    @property
    def finished(self) -> bool:
        return self.made == self.calls

    def row(self) -> tuple[NDArray[np.float32], float]:
        return self.sample * np.float32(0.5), float(self.calls - self.made)

    def advance(self, prediction: NDArray[np.float32]) -> None:
        channels = len(self.sample)
        self.preview = self.sample - prediction[:channels]
        noise = self.random.standard_normal(self.sample.shape, np.float32)
        # Learned variances, where there are some, take part.
        noise = noise * (prediction[channels:] if len(prediction) > channels else np.float32(0.1))
        self.sample = self.sample - prediction[:channels] * np.float32(0.25) + noise
        self.made += 1


class Model:
    """Treats rows independently, by operations that are exact alike at every position.

    Remembers the rows of each call and waits at its gate. Fails as told at :data:`BAD`.
    """

    def __init__(self, failure: str = "") -> None:
        self.calls: list[list[float]] = []
        self.shapes: list[tuple[int, ...]] = []
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.gate.set()
        self.failure = failure

    def __call__(self, x: Array, t: Array, context: dict[str, Array]) -> Array:
        assert x.dtype == t.dtype == np.float32
        self.calls.append(t.tolist())
        self.shapes.append(x.shape)
        self.entered.release()
        assert self.gate.wait(30)
        bad = (x > BAD / 10).any(axis=tuple(range(1, x.ndim)))
        if self.failure == "raise" and bad.any():
            raise RuntimeError("no such model")
        each = (-1, *[1] * (x.ndim - 1))
        prediction = x * np.float32(0.25) + (t * np.float32(0.01)).reshape(each)
        for value in context.values():
            prediction = prediction + value.reshape(each)
        if self.failure == "nan":
            prediction[bad] = np.nan
        return prediction


class Decoder:
    """Gives states as they are, and can be held in the middle of a call."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, states: Array) -> Array:
        self.shapes.append(states.shape)
        self.entered.set()
        assert self.gate.wait(30)
        return states

    @contextmanager
    def held(self, engine: Engine) -> Iterator[None]:
        self.gate.clear()
        job = engine.submit(Job([Sample(Decay(999, 0))]))
        assert self.entered.wait(10)
        try:
            yield
        finally:
            self.gate.set()
        job.result(10)


def alone(*samples: Sample) -> list[Array]:
    with Engine(Model(), max_rows=1) as engine:
        return engine.submit(Job(samples)).result(10)


def bad_sample(calls: int = 5) -> Sample:
    run = Decay(0, calls)
    run.sample[:] = BAD
    return Sample(run)


def guided(seed: int, calls: int, guidance: float) -> Sample:
    context = {"label": np.array([seed / 8], np.float32)}
    return Sample(Decay(seed, calls), context, {"label": np.zeros(1, np.float32)}, guidance)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.001)


@contextmanager
def held(engine: Engine, model: Model) -> Iterator[None]:
    """The engine in the middle of a call of a job of its own, until the block is left."""
    model.gate.clear()
    job = engine.submit(Job([Sample(Decay(999, 1))]))
    assert model.entered.acquire(timeout=10)
    try:
        yield
    finally:
        model.gate.set()
    job.result(10)


def engine_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("galatea-")]


def alive(references: Iterable[weakref.ref[Any]]) -> bool:
    return any(reference() is not None for reference in references)
