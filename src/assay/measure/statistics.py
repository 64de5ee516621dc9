"""Medians with confidence intervals that assume no distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, median

from assay.schema import Metric

TARGET = 0.05
"""A series is stable when the 95 % interval of its median reaches no further than 5 % from it."""
FEWEST = 6
"""Samples below which no pair of order statistics encloses the median with 95 %."""
_Z = NormalDist().inv_cdf(0.975)


def median_interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % confidence interval of the median from order statistics; None for fewer than six samples.

    Ranks n/2 -+ z*sqrt(n)/2, the normal approximation of the binomial (Conover, Practical
    Nonparametric Statistics, section 3.2); with fewer than six samples no interval reaches 95 %.
    """
    count = len(samples)
    if count < FEWEST:
        return None
    ordered = sorted(samples)
    reach = _Z * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - reach) - 1)
    high = min(count - 1, math.ceil(count / 2 + reach))
    return ordered[low], ordered[high]


def steady(samples: Sequence[float]) -> bool:
    """Whether the median is known to within `TARGET`."""
    interval = median_interval(samples)
    if interval is None:
        return False
    middle = median(samples)
    return interval[1] - middle <= TARGET * middle and middle - interval[0] <= TARGET * middle


def duration(samples: Sequence[float]) -> Metric:
    """The median of durations in seconds, with its interval."""
    low, high = median_interval(samples) or (None, None)
    return Metric(value=median(samples), unit="s", low=low, high=high, samples=len(samples), stable=steady(samples))


def once(seconds: float) -> Metric:
    """A duration that happens once, such as a load."""
    return Metric(value=seconds, unit="s")
