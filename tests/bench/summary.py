"""What was found, as JSON and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from statistics import median
from typing import Any

from assay.report.markdown import as_table
from assay.report.units import duration
from tests.bench.interleaved import Timed
from tests.bench.plan import Comparison
from tests.bench.ratio import Ratio, over_starts, ratio

ALLOWED = 0.03
"""What an engine may take longer than its peer."""


@dataclass(frozen=True)
class Found:
    """One comparison and what came of it."""

    comparison: Comparison
    starts: Sequence[Timed]

    @cached_property
    def ratios(self) -> list[float]:
        """The engine's time over the peer's, at each start of both."""
        return [ratio(each.rounds).value for each in self.starts]

    @cached_property
    def ratio(self) -> Ratio:
        """The same over all starts."""
        return over_starts(self.ratios)

    @cached_property
    def seconds(self) -> tuple[list[float], list[float]]:
        """Every call of both."""
        own, peer = zip(*(each for start in self.starts for each in start.rounds), strict=True)
        return list(chain(*own)), list(chain(*peer))

    @property
    def slow(self) -> bool:
        """Whether the engine takes longer than it may, its whole interval."""
        return self.ratio.low > 1 + ALLOWED

    def to_json(self) -> dict[str, Any]:
        """As `bench.json` has it; `seconds` are medians of one call, or of one whole generation."""
        what, (own, peer) = self.comparison, self.seconds
        return {
            "name": what.name, "peer": what.peer,
            "ratio": self.ratio.value, "low": self.ratio.low, "high": self.ratio.high, "verdict": self.ratio.verdict,
            "family": what.family, "backend": what.backend, "size": what.size,
            "workload": what.workload.model_dump(exclude_defaults=True),
            "seconds": median(own), "peer_seconds": median(peer), "samples": len(own), "peer_samples": len(peer),
            "rounds": sum(len(each.rounds) for each in self.starts), "starts": self.ratios,
            "difference": max((each.difference for each in self.starts if each.difference is not None), default=None),
        }  # fmt: skip

    def row(self) -> tuple[str, ...]:
        """A line of the table."""
        what, found, (own, peer) = self.comparison, self.ratio, self.seconds
        return (
            what.family, what.backend, what.size, what.peer,
            f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}", found.verdict,
            duration(median(own)), duration(median(peer)),
        )  # fmt: skip


def as_json(found: Sequence[Found]) -> str:
    """The content of `bench.json`: a list."""
    return json.dumps([each.to_json() for each in found], indent=1) + "\n"


def table(found: Sequence[Found]) -> str:
    """Markdown for people."""
    head = ("family", "backend", "size", "peer", "ratio", "95 % interval", "assay is", "assay", "peer")
    return as_table(head, (each.row() for each in found))
