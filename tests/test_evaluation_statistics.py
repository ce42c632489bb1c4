"""The figures themselves: closed forms, other implementations, and honest errors."""

from __future__ import annotations

import json
from itertools import product
from math import comb, prod

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation_features import CASES, gaussian, logits, pair
from galatea.errors import InvalidInput
from galatea.evaluation import (
    Moments,
    frechet_distance,
    inception_score,
    kernel_distance,
    nearest,
    prdc,
)
from galatea.evaluation._sampling import floor, half_sample_errors
from support import ROOT

REFERENCES = json.loads((ROOT / "tests" / "data" / "evaluation.json").read_text())
Floats = NDArray[np.float64]


def exact(random: np.random.Generator, n: int, mean: Floats, deviation: Floats) -> Floats:
    """Rows whose own mean and covariance are exactly those asked for."""
    rows = random.normal(0, 1, (n, len(mean)))
    rows -= rows.mean(0)
    rows = np.linalg.qr(rows)[0] * np.sqrt(n - 1)
    made: Floats = mean + rows * deviation
    return made


def test_the_frechet_distance_of_gaussians_is_their_closed_form() -> None:
    random = np.random.default_rng(0)
    means, deviations = random.normal(0, 1, (2, 20)), random.uniform(0.5, 2, (2, 20))
    turn = np.linalg.qr(random.normal(0, 1, (20, 20)))[0]  # features are correlated as a rule
    rows = [
        exact(random, 200, mean, deviation) @ turn
        for mean, deviation in zip(means, deviations, strict=True)
    ]
    want = ((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    assert frechet_distance(*rows) == pytest.approx(want, rel=1e-9)
    assert frechet_distance(rows[0], rows[0]) == pytest.approx(0, abs=1e-6)


def test_both_ways_to_the_frechet_distance_agree() -> None:
    real, synthetic = pair("few")
    moments = Moments(), Moments()
    for own, rows in zip(moments, (real, synthetic), strict=True):
        own.add(rows)
    assert frechet_distance(real, synthetic) == pytest.approx(
        moments[0].distance(moments[1]), rel=1e-6
    )


def test_moments_of_a_stream_are_those_of_the_whole_also_far_from_the_origin() -> None:
    rows = np.random.default_rng(1).normal(1e6, 1, (1000, 8))
    moments = Moments()
    for part in np.split(rows, [1, 3, 400]):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-9)


def moment(power: int, mean: float, deviation: float) -> float:
    """E[x^power] of a normal x."""
    odds = {0: 1.0, 2: 1.0}
    return sum(
        comb(power, k) * mean ** (power - k) * deviation**k * odds.get(k, 0.0)
        for k in range(power + 1)
    )


def closed_form(means: Floats, deviations: Floats) -> float:
    """The squared discrepancy of two independent normal laws [2, d] by the kernel (x·y/d + 1)³."""
    d = means.shape[1]
    total = 0.0
    for powers in product(range(4), repeat=d):
        if sum(powers) > 3:
            continue
        ways = prod(comb(3 - sum(powers[:i]), power) for i, power in enumerate(powers))
        first, second = (
            prod(moment(power, mean[i], deviation[i]) for i, power in enumerate(powers))
            for mean, deviation in zip(means, deviations, strict=True)
        )
        total += ways / d ** sum(powers) * (first - second) ** 2
    return total


def test_the_kernel_distance_of_gaussians_is_their_closed_form_within_its_error() -> None:
    means, deviations = np.array([[0.0, 0.5], [0.4, 0.3]]), np.array([[1.0, 0.8], [1.2, 0.7]])
    want = closed_form(means, deviations)
    random = np.random.default_rng(2)
    found = [
        kernel_distance(
            *(gaussian(random, 400, *law) for law in zip(means, deviations, strict=True))
        )
        for _ in range(60)
    ]
    values = np.array([distance.value for distance in found])
    assert values.mean() == pytest.approx(want, abs=4 * values.std() / np.sqrt(len(values)))
    # The jackknife's error is that which redrawing everything shows.
    assert np.mean([distance.error for distance in found]) == pytest.approx(values.std(), rel=0.3)


@pytest.mark.parametrize("case", CASES)
def test_figures_are_those_of_torch_fidelity(case: str) -> None:
    real, synthetic = pair(case)
    want, n = REFERENCES[case], min(map(len, pair(case)))
    assert frechet_distance(real, synthetic) == pytest.approx(want["fd"], rel=1e-5)
    assert kernel_distance(real[:n], synthetic[:n]).value == pytest.approx(want["kid"], rel=1e-6)
    found = prdc(real, synthetic, 5)
    assert (found.precision, found.recall) == pytest.approx((want["precision"], want["recall"]))


def test_the_inception_score_is_that_of_torch_fidelity() -> None:
    assert inception_score(logits()) == pytest.approx(REFERENCES["is"], rel=1e-6)


def test_density_and_coverage_are_their_definitions() -> None:
    real, synthetic = pair("few")
    k = 3
    apart = np.linalg.norm(real[:, None] - synthetic[None], axis=2)
    own = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)[:, k]
    found = prdc(real, synthetic, k)
    assert found.density == pytest.approx((apart < own[:, None]).sum() / (k * len(synthetic)))
    assert found.coverage == pytest.approx((apart.min(1) < own).mean())


def test_the_nearest_of_many_is_found_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galatea.evaluation._neighbours.BLOCK", 1000)
    real, synthetic = pair("many")
    index, distance = nearest(synthetic, real)
    apart = np.linalg.norm(synthetic[:, None] - real[None], axis=2)
    np.testing.assert_array_equal(index, apart.argmin(1))
    np.testing.assert_allclose(distance, apart.min(1), rtol=1e-9)


def figures(first: Floats, second: Floats) -> Floats:
    return np.array([frechet_distance(first, second), prdc(first, second).coverage])


def test_errors_of_halves_are_those_that_redrawing_everything_shows() -> None:
    random = np.random.default_rng(4)
    laws = [(np.zeros(6), np.ones(6)), (np.full(6, 0.5), np.full(6, 1.2))]
    drawn = [(gaussian(random, 300, *laws[0]), gaussian(random, 300, *laws[1])) for _ in range(40)]
    spread = np.std([figures(*sets) for sets in drawn], axis=0, ddof=1)
    errors = [half_sample_errors(figures, *sets, 10, random) for sets in drawn[:20]]
    np.testing.assert_allclose(np.mean(errors, axis=0), spread, rtol=0.35)


def test_the_floor_is_what_equal_sets_of_that_size_give() -> None:
    random = np.random.default_rng(5)
    law = np.zeros(40), np.ones(40)
    real, synthetic = gaussian(random, 400, *law), gaussian(random, 150, *law)
    n, alike, apart = floor(figures, real, synthetic, 3, random)
    assert n == 150
    assert alike[0] > 1  # the distance of equal laws is far from 0 at such an n
    assert apart[0] == pytest.approx(alike[0], rel=0.1)


def test_sets_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(InvalidInput, match="not of one extractor"):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))
    with pytest.raises(InvalidInput, match="give at least 6"):
        prdc(np.zeros((5, 3)), np.zeros((9, 3)))
