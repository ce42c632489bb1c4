"""How jobs leave the diffusion engine early, and how little they leave behind."""

from __future__ import annotations

import gc
import logging
import threading
import time
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine_parts import (
    BAD,
    SHAPE,
    Array,
    Decay,
    Decoder,
    Model,
    alive,
    alone,
    bad_sample,
    engine_threads,
    held,
    until,
)
from galatea_exporter.sampler.engine import Busy, Closed, Engine
from galatea_exporter.sampler.jobs import Cancelled, Expired, Job, Preview, Run, Sample, StepFailed


@pytest.mark.parametrize("failure", ["raise", "nan"])
def test_a_bad_job_fails_alone_and_its_neighbours_keep_their_bits(failure: str) -> None:
    model = Model(failure)
    with Engine(model, max_rows=8) as engine:
        with held(engine, model):
            good = [engine.submit(Job([Sample(Decay(seed, 5))])) for seed in range(3)]
            bad = engine.submit(Job([Sample(Decay(7, 5)), bad_sample()]))
        with pytest.raises(StepFailed, match="no such model" if failure == "raise" else "finite"):
            bad.result(10)
        for seed, job in enumerate(good):
            assert job.result(10)[0].tobytes() == alone(Sample(Decay(seed, 5)))[0].tobytes()
        metrics = engine.metrics()
    assert (metrics["failed"], metrics["completed"]) == (1, 4)
    assert metrics["retries"] > 0


@pytest.mark.parametrize("method", ["row", "advance"])
def test_a_failing_sampler_fails_only_its_job(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError("no such step")

    bad = [Decay(0, 3), Decay(2, 3)]
    for run in bad:
        monkeypatch.setattr(run, method, fail)
    model = Model()
    with Engine(model) as engine:
        with held(engine, model):
            jobs = [
                engine.submit(Job([Sample(run) for run in runs])) for runs in (bad, [Decay(1, 3)])
            ]
        with pytest.raises(StepFailed, match=r"sampler failed: ArithmeticError: no such step"):
            jobs[0].result(10)
        assert len(jobs[1].result(10)) == 1
        metrics = engine.metrics()
    assert (metrics["failed"], metrics["completed"]) == (1, 2)


def test_a_sample_that_overflows_in_its_last_step_fails_before_the_decoder_hides_it() -> None:
    class Overflows(Decay):
        def advance(self, prediction: NDArray[np.float32]) -> None:
            super().advance(prediction)
            self.sample[0] = np.inf

    with Engine(Model(), decode=lambda states: np.zeros(states.shape, np.uint8)) as engine:
        job = engine.submit(Job([Sample(Overflows(0, 1))]))
        with pytest.raises(StepFailed, match="not finite"):
            job.result(10)


def test_neither_a_job_nor_its_error_keeps_arrays(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # records of failures would hold on to arrays
    inputs: list[weakref.ref[Array]] = []

    def call(x: Array, t: Array, context: dict[str, Array]) -> Array:
        inputs.append(weakref.ref(x))
        return Model("raise")(x, t, context)

    with Engine(call) as engine:
        runs = [Decay(0, 2), bad_sample().run]
        jobs = [engine.submit(Job([Sample(run)])) for run in runs]
        images, error = jobs[0].result(10), jobs[1].future.exception(10)
        gone: list[weakref.ref[Any]] = [*inputs, *(weakref.ref(run) for run in runs)]
        del runs
        until(lambda: not alive(gone))
        assert images
        assert isinstance(error, StepFailed)
        assert isinstance(error.__cause__, RuntimeError)


@pytest.mark.parametrize("shape", [(1, 2, 4, 8), (3, 2, 4, 4), (1,)])
def test_a_model_that_answers_in_another_shape_fails_the_job(shape: tuple[int, ...]) -> None:
    with Engine(lambda x, t, context: np.zeros(shape, np.float32)) as engine:
        job = engine.submit(Job([Sample(Decay(0, 2))]))
        with pytest.raises(StepFailed, match="the model gave"):
            job.result(10)


@pytest.mark.parametrize("how", ["job", "function"])
def test_a_cancelled_job_makes_no_further_call(how: str) -> None:
    model, gone = Model(), threading.Event()
    with Engine(model) as engine:
        model.gate.clear()
        samples = [Sample(Decay(seed, 1000)) for seed in range(2)]
        job = engine.submit(Job(samples, is_cancelled=gone.is_set))
        assert model.entered.acquire(timeout=10)
        (job.cancel if how == "job" else gone.set)()
        model.gate.set()
        with pytest.raises(Cancelled, match="after 2 of 2000 model calls"):
            job.result(10)
        assert len(model.calls) == 1
        assert engine.metrics()["cancelled"] == 1


def test_a_job_that_waits_can_be_cancelled_too() -> None:
    model = Model()
    with Engine(model, max_rows=1) as engine:
        with held(engine, model):
            running, waiting = (engine.submit(Job([Sample(Decay(2, 3))])) for _ in range(2))
            waiting.cancel()
        with pytest.raises(Cancelled, match="after 0 of 3"):
            waiting.result(10)
        running.result(10)


def test_a_job_that_waits_for_the_decoder_can_be_cancelled_too() -> None:
    decoder = Decoder()
    with Engine(Model(), max_rows=1, decode=decoder) as engine:
        with decoder.held(engine):
            job = engine.submit(Job([Sample(Decay(1, 1))]))
            until(lambda: job.made == 1)
            assert not job.future.cancel()
            job.cancel()
        with pytest.raises(Cancelled, match="after 1 of 1"):
            job.result(10)
    assert decoder.shapes == [(1, *SHAPE)]


def test_a_job_expires_whether_it_runs_or_waits() -> None:
    with Engine(Model(), max_rows=1) as engine:
        runs, waits = (
            engine.submit(Job([Sample(Decay(0, 10**9))], timeout=timeout))
            for timeout in (0.5, 0.05)
        )
        with pytest.raises(Expired, match=r"not ready after 0\.05 s: 0 of 1000000000"):
            waits.result(10)
        with pytest.raises(Expired, match=r"not ready after 0\.5 s: [1-9]\d* of 1000000000"):
            runs.result(10)
        assert engine.submit(Job([Sample(Decay(0, 3))], timeout=10)).result(10)
        assert engine.metrics()["expired"] == 2


def test_a_full_engine_says_which_place_the_job_would_have_had() -> None:
    model = Model()
    with Engine(model, max_samples=4) as engine:
        with held(engine, model):
            large = engine.submit(Job([Sample(Decay(seed, 2)) for seed in range(9)]))
            with pytest.raises(Busy, match="10 samples are here and at most 4") as busy:
                engine.submit(Job([Sample(Decay(0, 2))]))
        assert busy.value.position == 3
        assert len(large.result(10)) == 9
        assert engine.submit(Job([Sample(Decay(0, 2))])).result(10)
        assert engine.metrics()["refused"] == 1


def test_a_caller_that_fails_to_take_a_preview_fails_alone() -> None:
    def refuse(preview: Preview) -> None:
        raise ConnectionError("gone")

    with Engine(Model()) as engine:
        bad = engine.submit(Job([Sample(Decay(0, 1000))], on_preview=refuse))
        good = engine.submit(Job([Sample(Decay(1, 20))]))
        with pytest.raises(StepFailed, match="gone"):
            bad.result(10)
        good.result(10)


def test_a_failing_decoder_fails_only_the_job_that_it_fails_on() -> None:
    go, entered = threading.Event(), threading.Event()

    def decode(states: Array) -> Array:
        entered.set()
        assert go.wait(30)
        if (states > BAD / 100).any():
            raise MemoryError("too large")
        return (states * 10).astype(np.uint8)

    with Engine(Model(), decode=decode) as engine:
        jobs = [engine.submit(Job([Sample(Decay(9, 1))]))]
        assert entered.wait(10)
        jobs += [engine.submit(Job([s])) for s in (Sample(Decay(1, 2)), bad_sample(2))]
        until(lambda: jobs[2].made == jobs[1].made == 2)
        go.set()
        with pytest.raises(StepFailed, match="decoder failed: MemoryError: too large"):
            jobs[2].result(10)
        assert [job.result(10)[0].dtype for job in jobs[:2]] == [np.uint8, np.uint8]
        assert engine.metrics()["retries"] == 2


def test_a_defect_of_the_engine_leaves_no_caller_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("defect")

    with Engine(Model()) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_chosen", fail)
            with pytest.raises(StepFailed, match="the engine failed: KeyError: 'defect'"):
                engine.submit(Job([Sample(Decay(0, 3))])).result(10)
        assert engine.submit(Job([Sample(Decay(0, 3))])).result(10)


def test_what_does_not_fit_together_is_refused_at_once() -> None:
    with Engine(Model()) as engine:
        with pytest.raises(ValueError, match="at least one sample"):
            Job([])
        context = {"label": np.zeros(1, np.float32)}
        with pytest.raises(ValueError, match="differ"):
            engine.submit(Job([Sample(Decay(0, 1), context, {"label": np.zeros(2)}, 2.0)]))
    with pytest.raises(ValueError, match="at least 1"):
        Engine(Model(), max_rows=0)


def test_closing_ends_what_runs_refuses_more_and_leaves_no_thread() -> None:
    model = Model()
    engine = Engine(model, max_rows=1)
    jobs = [engine.submit(Job([Sample(Decay(0, 10**9))])) for _ in range(2)]
    assert model.entered.acquire(timeout=10)
    engine.close()
    for job in jobs:
        with pytest.raises(Closed):
            job.result(10)
    with pytest.raises(Closed):
        engine.submit(Job([Sample(Decay(0, 1))]))
    assert not engine_threads()
    engine.close()


def test_closing_can_wait_for_what_runs() -> None:
    engine = Engine(Model())
    job = engine.submit(Job([Sample(Decay(0, 200))]))
    engine.close(drain=20)
    assert len(job.result(0)) == 1


def test_a_thousand_joins_leaves_and_cancels_leave_no_row_memory_or_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)  # records of failures would hold on to arrays
    assert not engine_threads()
    random = np.random.default_rng(0)
    runs: list[weakref.ref[Run]] = []
    jobs: list[weakref.ref[Job]] = []
    seen: list[Preview] = []
    model = Model("nan")
    engine = Engine(model, max_rows=8, max_samples=10**6)

    def wave(count: int) -> None:
        live: list[Job] = []
        for _ in range(count):
            shape = [SHAPE, (2, 8, 4)][random.integers(2)]
            samples = [
                Sample(Decay(int(random.integers(99)), int(random.integers(30)), shape))
                for _ in range(random.integers(1, 4))
            ]
            if random.random() < 0.1:
                samples.append(bad_sample())
            runs.extend(weakref.ref(sample.run) for sample in samples)
            timeout = 0.001 if random.random() < 0.1 else 60
            on_preview = seen.append if random.random() < 0.3 else None
            live.append(engine.submit(Job(samples, timeout=timeout, on_preview=on_preview)))
            jobs.append(weakref.ref(live[-1]))
            if random.random() < 0.3:
                live[random.integers(len(live))].cancel()
            if random.random() < 0.5:
                time.sleep(random.exponential(0.0005))
        for job in live:
            job.future.exception(30)

    def used() -> int:
        until(lambda: engine.metrics()["jobs"] == 0)
        model.calls.clear()
        model.shapes.clear()
        runs.clear()
        jobs.clear()
        seen.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        wave(100)
        before = used()
        wave(1000)
        gc.collect()
        seen.clear()
        until(lambda: not alive([*runs, *jobs]))
        grown = used() - before
    finally:
        tracemalloc.stop()
    metrics = engine.metrics()
    assert metrics["jobs"] == metrics["samples"] == metrics["waiting"] == 0
    outcomes = [metrics[name] for name in ("completed", "cancelled", "expired", "failed")]
    assert sum(outcomes) == 1100
    assert min(outcomes) > 10
    assert grown < 100_000
    engine.close()
    assert not engine_threads()
