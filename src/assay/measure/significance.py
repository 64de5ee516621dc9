"""Whether two groups of runs differ: Student's t with a variance that borrows from like figures, and Holm's correction.

A run is one observation, its samples are not: they follow each other within milliseconds, and share whatever the
machine did then. `docs/comparison.md` has what a test over the samples does instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median

MAD = 1.4826
"""Median absolute deviation to standard deviation, of a normal distribution."""
MAD_EFFICIENCY = 0.37
"""What a median absolute deviation is worth, of a normal distribution, beside a standard deviation from as many."""


def spread(groups: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[float, float]:
    """The variance of one run, common to pairs of groups of observations of like figures, and its degrees of freedom.

    From what repeated runs differ by; where no group has two, from the differences of the pairs. That holds when less
    than half of the figures changed, and is why a change of all of them needs repeated runs to be seen.
    """
    freedom = sum(len(group) - 1 for pair in groups for group in pair)
    if freedom:
        return sum(_squares(group) for pair in groups for group in pair) / freedom, float(freedom)
    differences = [abs(fmean(new) - fmean(base)) for base, new in groups]
    return (MAD * median(differences)) ** 2 / 2, MAD_EFFICIENCY * len(differences)


def p_value(base: Sequence[float], new: Sequence[float], *, prior: float, freedom: float) -> float:
    """The two-sided probability of so large a difference of means, were there none: a moderated t-test.

    The variance is that of the observations, weighed with `prior` as if that had been measured with `freedom` degrees
    of freedom (Smyth 2004, Linear models and empirical Bayes methods, equation 1).

    Args:
        base: observations, one a run.
        new: likewise.
        prior: the variance of one run, from like figures; above 0.
        freedom: how much it is worth.
    """
    own = len(base) + len(new) - 2
    variance = (freedom * prior + _squares(base) + _squares(new)) / (freedom + own)
    t = (fmean(new) - fmean(base)) / math.sqrt(variance * (1 / len(base) + 1 / len(new)))
    return t_tails(t, freedom + own)


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted so that any false alarm among them is as improbable as one alone would be (Holm 1979)."""
    adjusted = [0.0] * len(values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = least
    return adjusted


def t_tails(t: float, freedom: float) -> float:
    """Both tails of Student's t distribution: I_x(freedom/2, 1/2) at x = freedom / (freedom + t²) (DLMF 8.17)."""
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def _squares(values: Sequence[float]) -> float:
    middle = fmean(values)
    return sum((value - middle) ** 2 for value in values)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function by its continued fraction (DLMF 8.17.22), evaluated from the front."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # beyond, the fraction converges fast for the other tail
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    numerator, denominator = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = denominator
    for m in range(1, 200):
        step = 1.0
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            denominator = 1 / (1 + term * denominator)
            numerator = 1 + term / numerator
            step = numerator * denominator
            value *= step
        if abs(step - 1) < 1e-14:
            break
    return front * value / a
