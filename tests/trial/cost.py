"""What judging costs: `python -m tests.trial.cost reports/sessions` adds up the phases of session reports.

Evidence is whatever a benchmark would not do: challenges, calls that try the clock, the trace, the twin, the judge. The
sweeps are figures of the cell, which it would have without evidence too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from assay.report.markdown import as_table
from assay.schema import Cell, Phase, SessionReport

PLAIN = frozenset({
    ("builder", "checkpoint"), ("builder", "export"), ("runner", "load"), ("runner", "compile"),
    ("runner", "first inference"), ("runner", "measure"), ("runner", "measure decoding"), ("runner", "sweep"),
    ("preprocessor", "preprocessing"),
})  # fmt: skip
"""Role and phase of what is done without evidence; a cell's second runner is the twin's, and all of it evidence."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a cell without its evidence, and of the evidence; `calls`: the latter in times of its latency."""

    cell: Cell
    plain: float
    evidence: float

    @property
    def ratio(self) -> float:
        """How many times as long the evidence takes as the rest."""
        return self.evidence / self.plain

    @property
    def calls(self) -> float:
        """In forward passes of batch 1."""
        return self.evidence / self.cell.metrics["latency"].value


def cost(cell: Cell) -> Cost:
    """Add up a judged cell's phases."""
    plain = sum(phase.seconds for phase in _plain(cell.phases))
    return Cost(cell, plain, sum(phase.seconds for phase in cell.phases) - plain)


def _plain(phases: Iterable[Phase]) -> Iterator[Phase]:
    measured = False
    for phase in phases:
        if (phase.role, phase.name) in PLAIN and not (measured and phase.role == "runner"):
            yield phase
        measured = measured or phase.role == "preprocessor"


def table(costs: Sequence[Cost]) -> str:
    """Markdown: a line for each cell, and the medians."""
    rows = [
        (each.cell.family, each.cell.backend, each.cell.size, f"{each.plain:.2f}", f"{each.evidence:.2f}",
         f"{each.ratio:.2f}", f"{each.calls:,.0f}")
        for each in costs
    ]  # fmt: skip
    ratio, calls = (median(values) for values in zip(*((each.ratio, each.calls) for each in costs), strict=True))
    rows.append(("**median**", "", "", "", "", f"{ratio:.2f}", f"{calls:,.0f}"))
    return as_table(("family", "backend", "size", "without, s", "evidence, s", "ratio", "in calls"), rows)


def main(paths: Sequence[str]) -> int:
    """Print the table for the reports in these folders."""
    files = sorted(file for path in paths for file in Path(path).glob("*.json"))
    reports = [SessionReport.model_validate_json(file.read_text(encoding="utf-8")) for file in files]
    costs = [cost(cell) for report in reports for cell in report.cells if cell.evidence]
    if not costs:
        print(f"no judged cell in {', '.join(paths) or 'no folder'}", file=sys.stderr)
        return 2
    print(table(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
