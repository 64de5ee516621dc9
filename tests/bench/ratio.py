"""How much longer one takes than another, from rounds in which both were timed, with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

TARGET = 0.01
"""An interval that reaches no further than this from the ratio on either side needs no more rounds."""
DRAWS = 2000
"""Resamples; the ends of a 95 % interval then stand on 50 of them each (Efron and Tibshirani, 1993, chapter 13)."""
_ROOM = 2**22
"""Numbers that are resampled at once."""

Round = tuple[Sequence[float], Sequence[float]]
"""Seconds of the calls of both in one round."""


@dataclass(frozen=True)
class Ratio:
    """One median over another, with its 95 % interval: below 1 the first is faster."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`faster` or `slower`; `tie` where the interval holds 1."""
        if self.low <= 1 <= self.high:
            return "tie"
        return "faster" if self.value < 1 else "slower"

    @property
    def known(self) -> bool:
        """Whether the interval is within its target."""
        return max(self.high - self.value, self.value - self.low) <= TARGET * self.value


def ratio(rounds: Sequence[Round], draws: int = DRAWS) -> Ratio:
    """The ratio of the medians over all calls, with the percentile bootstrap's interval (Efron, 1979).

    Whole rounds are drawn again, not calls: what the machine does for a while touches both sides of a round and all of
    its calls, so that calls are no independent observations, and rounds nearly are.

    Args:
        rounds: at least one; every round has as many calls of a side as the first.
        draws: resamples.
    """
    first, second = (np.array(side) for side in zip(*rounds, strict=True))
    rng = np.random.default_rng(0)  # the same series has the same interval
    found = [
        np.median(first[chosen].reshape(len(chosen), -1), axis=1)
        / np.median(second[chosen].reshape(len(chosen), -1), axis=1)
        for chosen in _chosen(rng, len(rounds), draws, first[0].size + second[0].size)
    ]
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return Ratio(float(np.median(first) / np.median(second)), float(low), float(high))


def over_starts(ratios: Sequence[float]) -> Ratio:
    """What several starts of both sides agree about: the geometric mean of their ratios, with Student's interval.

    One start of a process may be some percent faster than the next, by where its memory comes to lie, and no number of
    calls tells: what is repeated must be what varies (Kalibera and Jones, "Rigorous benchmarking in reasonable time",
    ISMM 2013).

    Args:
        ratios: of at least two starts.
    """
    logs = np.log(ratios)
    reach = float(student.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)))
    value = float(logs.mean())
    return Ratio(*(math.exp(each) for each in (value, value - reach, value + reach)))


def _chosen(rng: np.random.Generator, rounds: int, draws: int, calls: int) -> Iterable[np.ndarray]:
    """Numbers of rounds, as many a draw as there are, in groups of draws that fit into memory."""
    some = max(1, _ROOM // (rounds * calls))
    for start in range(0, draws, some):
        yield rng.integers(rounds, size=(min(some, draws - start), rounds))
