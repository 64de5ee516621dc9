"""Medians with confidence intervals that assume no distribution, spread, and why a series did not settle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

import numpy as np

from assay.measure.significance import MAD
from assay.schema import Metric

TARGET = 0.05
"""A series is stable when the 95 % interval of its median reaches no further than 5 % from it."""
FEWEST = 6
"""Samples below which no pair of order statistics encloses the median with 95 %."""
DRIFT = 3.29
"""Standard deviations of Mann and Kendall's statistic that samples without a trend pass once in a thousand series."""
APART = 4.0
"""Ashman's D from which two groups are two modes. A series of one mode, cut in two where that explains most of its
variance, gives 2.65 (normal) to 3.46 (uniform)."""
MODE = 0.1
"""The least share of the samples that makes a mode; fewer are outliers."""
OUTLYING = 3.0
"""Scaled median absolute deviations from the median (Leys et al., J. Exp. Soc. Psychol. 49, 2013)."""
_MOST = 500
"""Samples that are compared pairwise."""
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


@dataclass(frozen=True)
class Spread:
    """Percentiles and the median absolute deviation, in the unit of the samples.

    `p90` and `p99` are None where fewer than 10 or 100 samples tell them; they are interpolated linearly between
    order statistics.
    """

    p50: float
    p90: float | None
    p99: float | None
    mad: float


def spread(samples: Sequence[float]) -> Spread:
    """The spread of a series of at least one sample."""
    middle = median(samples)
    p90, p99 = (
        float(np.quantile(samples, share)) if len(samples) >= fewest else None
        for share, fewest in ((0.9, 10), (0.99, 100))
    )
    return Spread(middle, p90, p99, median(abs(sample - middle) for sample in samples))


def disturbance(samples: Sequence[float]) -> str | None:
    """Why a series, in the order in which it was taken, did not settle; None where it did.

    One that drifts has no median, however well it seems known (Mann, Econometrica 13, 1945; Kendall, 1948). Where the
    median is not known to its target, two modes are looked for (the cut of Otsu, IEEE Trans. SMC 9, 1979, of
    logarithms, judged by the D of Ashman, Bird and Zepf, Astron. J. 108, 1994), then outliers.
    """
    if len(samples) < FEWEST:
        return f"only {len(samples)} samples"
    if found := _drift(samples):
        return found
    if steady(samples):
        return None
    if found := _modes(samples) or _outliers(samples):
        return found
    return f"half of {len(samples)} samples are more than {spread(samples).mad / median(samples):.0%} off the median"


def _drift(samples: Sequence[float]) -> str | None:
    series = np.asarray(samples, float)[:: math.ceil(len(samples) / _MOST)]
    count = len(series)
    signs = np.sign(series[None, :] - series[:, None])[np.triu_indices(count, 1)].sum()
    # Ties make the true variance smaller, and so the statistic: nothing is called a trend that is none.
    deviations = (abs(signs) - 1) / math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    third = max(1, len(samples) // 3)
    ratio = median(samples[-third:]) / median(samples[:third])
    if deviations < DRIFT or abs(ratio - 1) < TARGET:
        return None
    return f"they drift: the last third takes {ratio:.2f} times as long as the first"


def _modes(samples: Sequence[float]) -> str | None:
    if min(samples) <= 0:
        return None
    ordered = np.log(np.sort(np.asarray(samples, float)))  # times have long tails, which are no modes
    count = len(ordered)
    sums, places = np.cumsum(ordered)[:-1], np.arange(1, count)
    low, high = sums / places, (ordered.sum() - sums) / (count - places)
    cut = int(np.argmax(places * (count - places) * (high - low) ** 2)) + 1
    left, right = ordered[:cut], ordered[cut:]
    within = math.sqrt((left.var() + right.var()) / 2)
    if min(len(left), len(right)) < MODE * count or right.mean() - left.mean() < APART * within:
        return None
    times = float(np.exp(np.median(right) - np.median(left)))
    return f"there are two modes: {len(right) / count:.0%} of the samples take {times:.2f} times as long as the others"


def _outliers(samples: Sequence[float]) -> str | None:
    found = spread(samples)
    beyond = sum(abs(sample - found.p50) > OUTLYING * MAD * found.mad for sample in samples)
    if not beyond:
        return None
    return (
        f"{beyond} of {len(samples)} samples are outliers, the longest {max(samples) / found.p50:.1f} times the median"
    )


def duration(samples: Sequence[float]) -> Metric:
    """The median of durations in seconds, with its interval and their spread."""
    low, high = median_interval(samples) or (None, None)
    settled, found = disturbance(samples) is None, spread(samples)
    return Metric(
        value=found.p50, unit="s", low=low, high=high, mad=found.mad, p90=found.p90, p99=found.p99,
        samples=len(samples), stable=settled,
    )  # fmt: skip


def once(seconds: float) -> Metric:
    """A duration that happens once, such as a load."""
    return Metric(value=seconds, unit="s")
