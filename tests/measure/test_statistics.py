"""Medians and their intervals, spread, and why a series did not settle: every reason by a series that has it."""

from __future__ import annotations

import itertools
import random
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.measure.statistics import disturbance, duration, median_interval, spread, steady


@given(st.lists(st.floats(1e-6, 1e3), min_size=6, max_size=200))
def test_the_interval_holds_the_median_and_lies_within_the_samples(samples: list[float]) -> None:
    low, high = median_interval(samples) or (None, None)
    assert low is not None and high is not None
    assert min(samples) <= low <= median(samples) <= high <= max(samples)


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    draw = random.Random(1)
    true = 2.718281828459045  # the median of exp(normal(1, s)) is e
    covered = 0
    for _ in range(2000):
        low, high = median_interval([draw.lognormvariate(1, 0.5) for _ in range(30)]) or (0, 0)
        covered += low <= true <= high
    assert 0.94 <= covered / 2000 <= 0.99  # 95 % by construction, more because ranks are whole


@pytest.mark.parametrize("count", range(1, 6))
def test_too_few_samples_have_no_interval(count: int) -> None:
    assert median_interval([1.0] * count) is None
    assert duration([1.0] * count).low is None
    assert not duration([1.0] * count).stable


def test_a_figure_says_how_its_samples_are_spread() -> None:
    found = duration([float(number) for number in range(1, 102)])
    assert (found.value, found.mad, found.p90, found.p99) == (51, 25, 91, 100)
    assert duration([1.0] * 99).p99 is None and duration([1.0] * 9).p90 is None


def test_a_wide_series_is_said_to_be_unstable() -> None:
    assert steady([1.0] * 30)
    assert not steady([1.0, 2.0] * 15)


def series(seed: int, spread: float, count: int = 40) -> list[float]:
    draw = random.Random(seed)
    return [1e-3 * draw.lognormvariate(0, spread) for _ in range(count)]


def test_what_settled_has_no_reason() -> None:
    assert duration(series(0, 0.02)).stable
    assert disturbance(series(0, 0.02)) is None


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ([1.0, 2.0, 3.0], "only 3 samples"),
        ([value * (1 + number / 20) for number, value in enumerate(series(1, 0.05))], "drift: the last third takes 2."),
        ([value * (2 if number % 2 else 1) for number, value in enumerate(series(2, 0.02))],
         "two modes: 50% of the samples take 2.0"),
        ([*series(5, 0.3, 20), *[9e-3] * 2, *series(6, 0.3, 20)], "2 of 42 samples are outliers, the longest 8.5"),
    ],
    ids=["few", "drift", "modes", "outliers"],
)  # fmt: skip
def test_a_series_that_did_not_settle_says_why(samples: list[float], says: str) -> None:
    assert says in str(disturbance(samples))


def test_a_wide_series_without_a_pattern_is_only_wide() -> None:
    assert "off the median" in str(disturbance([*np.linspace(1, 2, 20), *np.linspace(2, 1, 20)]))


def test_one_mode_is_rarely_taken_for_two_and_noise_rarely_for_a_trend() -> None:
    found = [str(disturbance(series(seed, 0.4))) for seed in range(300)]
    assert sum("modes" in each for each in found) <= 3
    assert sum("drift" in each for each in found) <= 3


def test_of_thousands_of_samples_a_drift_is_found_without_comparing_all() -> None:
    drifting = [value * (1 + number / 5_000) for number, value in enumerate(series(3, 0.6, 10_000))]
    assert "drift" in str(disturbance(drifting))


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=300))
def test_percentiles_lie_in_order_within_the_samples(samples: list[float]) -> None:
    found = spread(samples)
    assert (found.p90 is None, found.p99 is None) == (len(samples) < 10, len(samples) < 100)
    known = [each for each in (found.p50, found.p90, found.p99) if each is not None]
    assert all(high >= low * (1 - 1e-12) for low, high in itertools.pairwise(known))
    assert max(known) <= max(samples) * (1 + 1e-12)
    assert found.mad >= 0
