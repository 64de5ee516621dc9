"""Medians and their intervals."""

from __future__ import annotations

import random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.measure.statistics import duration, median_interval, steady


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


def test_a_wide_series_is_said_to_be_unstable() -> None:
    assert steady([1.0] * 30)
    assert not steady([1.0, 2.0] * 15)
