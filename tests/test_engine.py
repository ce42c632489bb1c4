"""The diffusion engine: steps of many jobs in one model call, and each job as if it were alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from engine_parts import (
    SHAPE,
    Array,
    Decay,
    Decoder,
    Model,
    alone,
    guided,
    held,
    until,
)
from galatea_exporter.sampler.engine import Engine
from galatea_exporter.sampler.jobs import Job, Preview, Sample


def test_jobs_share_calls_join_at_the_next_step_and_leave_early() -> None:
    model = Model()
    with Engine(model, max_rows=8) as engine:
        with held(engine, model):
            jobs = [engine.submit(Job([Sample(Decay(seed, 2 + seed))])) for seed in range(3)]
        for job in jobs:
            job.result(10)
    assert model.calls == [[1], [2, 3, 4], [1, 2, 3], [1, 2], [1]]


def test_a_call_has_few_rows_and_parts_none_of_a_sample() -> None:
    model = Model()
    with Engine(model, max_rows=8, call_rows=3) as engine:
        with held(engine, model):
            job = engine.submit(
                Job([guided(seed, 1, scale) for seed, scale in enumerate((2, 1, 2, 2))])
            )
        job.result(10)
    assert [len(call) for call in model.calls[1:]] == [3, 2, 2]

    apart = Model()
    with Engine(apart, max_rows=8, call_rows=1) as engine:
        engine.submit(Job([guided(seed, 3, 2.0) for seed in range(3)])).result(10)
    assert apart.calls == [[t, t] for t in (3, 2, 1) for _ in range(3)]


def test_sixteen_callers_at_once_get_the_bits_that_each_gets_alone() -> None:
    def samples(seed: int) -> list[Sample]:
        return [
            guided(10 * seed + index, 2 + (7 * seed + index) % 20, [1.0, 7.5][seed % 2])
            for index in range(1 + seed % 3)
        ]

    def caller(seed: int, engine: Engine) -> list[list[Array]]:
        random = np.random.default_rng(seed)
        images = []
        for request in range(8):
            time.sleep(random.exponential(0.002))
            images.append(engine.submit(Job(samples(16 * request + seed))).result(30))
        return images

    with Engine(Model(), max_rows=8) as engine, ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda seed: caller(seed, engine), range(16)))
        metrics = engine.metrics()
    assert metrics["completed"] == 128
    assert metrics["rows"] > metrics["calls"]
    for seed, result in enumerate(results):
        for request, images in enumerate(result):
            expected = alone(*samples(16 * request + seed))
            assert [image.tobytes() for image in images] == [one.tobytes() for one in expected]


@pytest.mark.parametrize("max_rows", [2, 3, 8])
def test_no_call_has_more_rows_than_the_cap_however_large_the_job(max_rows: int) -> None:
    model = Model()
    with Engine(model, max_rows=max_rows) as engine:
        samples = [guided(seed, 3, 2.0 if seed % 2 else 1.0) for seed in range(11)]
        images = engine.submit(Job(samples)).result(10)
        metrics = engine.metrics()
    assert max(map(len, model.calls)) == max_rows
    assert metrics["rows"] == sum(map(len, model.calls)) == 3 * (6 + 2 * 5)
    for seed, image in enumerate(images):
        expected = alone(guided(seed, 3, 2.0 if seed % 2 else 1.0))[0]
        assert image.tobytes() == expected.tobytes()


def test_the_oldest_goes_first_when_the_engine_is_full() -> None:
    model = Model()
    order: list[int] = []
    with Engine(model, max_rows=2) as engine:
        with held(engine, model):
            for seed in range(6):
                job = engine.submit(Job([Sample(Decay(seed, 4))]))
                job.future.add_done_callback(partial(lambda seed, _: order.append(seed), seed))
        job.result(10)
    assert order == [0, 1, 2, 3, 4, 5]


def test_shapes_take_turns_and_never_share_a_call() -> None:
    model = Model()
    with Engine(model, max_rows=8) as engine:
        with held(engine, model):
            long = engine.submit(Job([Sample(Decay(0, 6))]))
            wide = engine.submit(Job([Sample(Decay(1, 2, (2, 4, 8))) for _ in range(2)]))
        for job in (long, wide):
            job.result(10)
    assert model.shapes[1:5] == [(1, 2, 4, 4), (2, 2, 4, 8), (1, 2, 4, 4), (2, 2, 4, 8)]
    assert len(model.shapes) == 1 + 6 + 2


def test_guidance_is_two_rows_in_one_call_and_one_row_at_scale_one() -> None:
    model = Model()
    with Engine(model, max_rows=8) as engine:
        strong, plain = engine.submit(Job([guided(3, 1, 7.5), guided(3, 1, 1.0)])).result(10)
    assert list(map(len, model.calls)) == [3]
    run = Decay(3, 1)
    x, t = run.row()
    base, label = x * np.float32(0.25) + np.float32(t) * np.float32(0.01), np.float32(3 / 8)
    run.advance(base + np.float32(7.5) * label)
    np.testing.assert_allclose(strong, run.sample, rtol=1e-6, atol=1e-6)
    assert plain.tobytes() == alone(guided(3, 1, 1.0))[0].tobytes()


def test_the_rows_of_a_guided_sample_stay_in_one_call() -> None:
    model = Model()
    with Engine(model, max_rows=3) as engine:
        engine.submit(Job([guided(seed, 1, 7.5) for seed in (1, 2)] + [guided(3, 1, 1)])).result(10)
    assert list(map(len, model.calls)) == [3, 2]


def test_samples_with_other_conditions_share_no_call() -> None:
    model = Model()
    with Engine(model) as engine:
        with held(engine, model):
            jobs = [engine.submit(Job([one])) for one in (guided(1, 2, 1), Sample(Decay(1, 2)))]
        for job in jobs:
            job.result(10)
        assert engine.metrics()["retries"] == 0
    assert list(map(len, model.calls)) == [1] * 5


def test_guidance_leaves_a_learned_variance_alone() -> None:
    def call(x: Array, t: Array, context: dict[str, Array]) -> Array:
        each = context["label"].reshape(-1, 1, 1, 1)
        return np.concatenate([x * 0 + each, x * 0 + each], axis=1)

    run = Decay(0, 1)
    sample = Sample(run, {"label": np.ones(1, np.float32)}, {"label": np.zeros(1, np.float32)}, 3.0)
    twin = Decay(0, 1)
    twin.advance(np.concatenate([np.full(SHAPE, 3), np.full(SHAPE, 1)]).astype(np.float32))
    with Engine(call) as engine:
        assert np.array_equal(engine.submit(Job([sample])).result(10)[0], twin.sample)


def test_a_model_that_writes_each_answer_into_one_buffer_does_no_harm() -> None:
    buffer = np.zeros((8, *SHAPE), np.float32)
    kept: list[Array] = []

    def call(x: Array, t: Array, context: dict[str, Array]) -> Array:
        buffer[: len(x)] = t.reshape(-1, 1, 1, 1)
        return buffer[: len(x)]

    class Keeps(Decay):
        def advance(self, prediction: NDArray[np.float32]) -> None:
            kept.append(prediction)
            super().advance(prediction)

    with Engine(call) as engine:
        engine.submit(Job([Sample(Keeps(0, 3))])).result(10)
    assert [values[0, 0, 0] for values in kept] == [3, 2, 1]


def test_the_decoder_takes_samples_of_one_shape_and_no_more_than_its_rows() -> None:
    decoder, wide = Decoder(), (2, 4, 8)
    with Engine(Model(), decode=decoder, decode_rows=2) as engine:
        with decoder.held(engine):
            shapes = [SHAPE, wide, SHAPE, SHAPE]
            job = engine.submit(Job([Sample(Decay(1, 1, shape)) for shape in shapes]))
            until(lambda: job.made == 4)
        images = job.result(10)
        assert engine.metrics()["decoded"] == 5
    assert [image.shape for image in images] == shapes
    assert all(image.base is None for image in images)  # none keeps the whole call's
    assert sorted(decoder.shapes[1:]) == [(1, *SHAPE), (1, *wide), (2, *SHAPE)]


def test_previews_are_decoded_and_come_every_k_calls_before_the_result() -> None:
    seen: list[Preview] = []
    decoded = threading.Semaphore(0)

    def call(x: Array, t: Array, context: dict[str, Array]) -> Array:
        if len(seen) < (9 - int(t[0])) // 3:  # else the decoder has one and leaves others out
            assert decoded.acquire(timeout=10)
        return x

    def on_preview(preview: Preview) -> None:
        seen.append(preview)
        decoded.release()

    with Engine(call, decode=lambda states: states * 2) as engine:
        job = engine.submit(Job([Sample(Decay(5, 9))], on_preview=on_preview, preview_every=3))
        job.result(10)
        assert [(one.index, one.step, one.calls) for one in seen] == [(0, 3, 9), (0, 6, 9)]
    run = Decay(5, 9)
    for _ in range(3):
        run.advance(run.row()[0])
    assert np.array_equal(seen[0].image, run.preview * 2)


def test_a_slow_decoder_holds_up_no_step_and_leaves_previews_out() -> None:
    decoder = Decoder()
    seen: list[Preview] = []
    with Engine(Model(), decode=decoder) as engine:
        with decoder.held(engine):
            job = engine.submit(Job([Sample(Decay(0, 50))], on_preview=seen.append))
            until(lambda: job.made == 50)
            assert not job.future.done()
        job.result(10)
    assert [one.step for one in seen] == [1]


def test_a_sample_without_steps_is_decoded_at_once() -> None:
    run = Decay(4, 0)
    with Engine(Model()) as engine:
        assert np.array_equal(engine.submit(Job([Sample(run)])).result(10)[0], run.sample)
        assert engine.metrics()["calls"] == 0
