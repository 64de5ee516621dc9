"""The test of significance against scipy's, and against what it must and must not find."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from assay.measure.significance import holm, p_value, spread, t_tails

probabilities = st.lists(st.floats(0, 1), max_size=8)


@pytest.mark.parametrize("freedom", [0.4, 1, 2.5, 7, 30, 400])
@pytest.mark.parametrize("t", [0, 1e-3, 0.7, -2.5, 8, 40])
def test_tails_are_those_of_scipy(t: float, freedom: float) -> None:
    assert t_tails(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-10)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 5), (1, 4), (9, 2)])
def test_without_a_prior_it_is_students_test(sizes: tuple[int, int]) -> None:
    draw = random.Random(3).gauss
    base, new = ([draw(side, 1) for _ in range(count)] for side, count in enumerate(sizes))
    assert p_value(base, new, prior=1.0, freedom=0.0) == pytest.approx(stats.ttest_ind(base, new).pvalue, rel=1e-9)


def test_the_prior_steadies_what_few_runs_say() -> None:
    """Two runs that happen to be equal do not make a difference of 1 % certain where runs usually differ by 10 %."""
    assert p_value([0.0, 1e-4], [0.01, 0.0101], prior=0.1**2, freedom=4) > 0.5
    assert p_value([0.0, 1e-4], [0.01, 0.0101], prior=1e-8, freedom=4) < 1e-3


@given(probabilities)
def test_holm_is_a_correction_in_order(raw: list[float]) -> None:
    adjusted = holm(raw)
    assert all(before <= after <= 1 for before, after in zip(raw, adjusted, strict=True))
    for (p, a), (q, b) in itertools.combinations(zip(raw, adjusted, strict=True), 2):
        assert (p <= q) <= (a <= b) or p == q


def test_holm_is_that_of_the_paper() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_the_spread_is_that_of_repeated_runs_or_else_of_the_pairs() -> None:
    draw = random.Random(1).gauss
    repeated = [([draw(0, 0.1) for _ in range(4)], [draw(1, 0.1) for _ in range(4)]) for _ in range(200)]
    variance, freedom = spread(repeated)
    assert (variance, freedom) == (pytest.approx(0.01, rel=0.1), 200 * 6)
    single = [([draw(0, 0.1)], [draw(0, 0.1) + (index % 5 == 0)]) for index in range(400)]  # a fifth has changed by 1
    variance, freedom = spread(single)
    assert variance**0.5 == pytest.approx(0.1, rel=0.4) and freedom == pytest.approx(0.37 * 400)


def test_the_chance_of_a_false_alarm_is_what_it_says() -> None:
    draw = random.Random(2).gauss
    trials = 2000
    found = sum(
        p_value([draw(0, 1) for _ in range(3)], [draw(0, 1) for _ in range(3)], prior=1.0, freedom=4) < 0.05
        for _ in range(trials)
    )
    assert found / trials <= 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5
