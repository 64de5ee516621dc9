"""What judging costs: `python -m tests.trial.cost reports/sessions` adds up the phases of session reports.

Of several reports of a cell the medians count: a sweep ends when its figures are steady, sooner or later. Evidence is
whatever a benchmark would not do: challenges, calls that try the clock, the trace, other weights, the judge. The sweeps
are figures of the cell, which it would have without evidence too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median

from assay.report.markdown import as_table
from assay.schema import Cell, Phase
from assay.session_report import SessionReport

PLAIN = frozenset({
    ("builder", "checkpoint"), ("builder", "export"), ("runner", "load"), ("runner", "compile"),
    ("runner", "first inference"), ("runner", "measure"), ("runner", "measure decoding"), ("runner", "sweep"),
    ("preprocessor", "preprocessing"),
})  # fmt: skip
"""Role and phase of what is done without evidence; later runners of a cell have other weights, and are all evidence."""


Name = tuple[str, str, str]
"""Family, backend and size."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a cell without its evidence, and of the evidence, and of one call; medians over `runs`."""

    name: Name
    runs: int
    plain: float
    evidence: float
    latency: float

    @property
    def ratio(self) -> float:
        """How many times as long the evidence takes as the rest."""
        return self.evidence / self.plain

    @property
    def calls(self) -> float:
        """The evidence in forward passes of batch 1."""
        return self.evidence / self.latency


def costs(cells: Iterable[Cell]) -> Iterator[Cost]:
    """Add up the phases of judged cells."""
    for name, same in groupby(sorted((each for each in cells if each.evidence), key=_name), key=_name):
        runs = list(same)
        plain = [sum(phase.seconds for phase in _plain(cell.phases)) for cell in runs]
        whole = [sum(phase.seconds for phase in cell.phases) for cell in runs]
        evidence = median(every - some for every, some in zip(whole, plain, strict=True))
        yield Cost(
            name, len(runs), median(plain), evidence, median(cell.metrics["latency"].value for cell in runs)
        )  # fmt: skip


def _name(cell: Cell) -> Name:
    return cell.family, cell.backend, cell.size


def _plain(phases: Iterable[Phase]) -> Iterator[Phase]:
    measured = False
    for phase in phases:
        if (phase.role, phase.name) in PLAIN and not (measured and phase.role == "runner"):
            yield phase
        measured = measured or phase.role == "preprocessor"


def table(found: Sequence[Cost]) -> str:
    """Markdown: a line for each cell, and the medians."""
    rows = [
        (*each.name, str(each.runs), f"{each.plain:.2f}", f"{each.evidence:.2f}", f"{each.ratio:.2f}",
         f"{each.calls:,.0f}")
        for each in found
    ]  # fmt: skip
    ratio, calls = (median(values) for values in zip(*((each.ratio, each.calls) for each in found), strict=True))
    rows.append(("**median**", "", "", "", "", "", f"{ratio:.2f}", f"{calls:,.0f}"))
    return as_table(("family", "backend", "size", "runs", "without, s", "evidence, s", "ratio", "in calls"), rows)


def main(paths: Sequence[str]) -> int:
    """Print the table for the reports in these folders."""
    files = sorted(file for path in paths for file in Path(path).glob("*.json"))
    reports = [SessionReport.model_validate_json(file.read_text(encoding="utf-8")) for file in files]
    found = list(costs(cell for report in reports for cell in report.cells))
    if not found:
        print(f"no judged cell in {', '.join(paths) or 'no folder'}", file=sys.stderr)
        return 2
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
