"""Two matrices, cell by cell: what changed in status, in agreement error, and in each figure.

`docs/comparison.md` says how often it is wrong, and what it can see.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

from assay import merge as merging
from assay import report_files
from assay.errors import UsageError
from assay.files import write_atomically
from assay.matrix import Matrix, MatrixCell
from assay.measure.significance import holm, p_value, spread
from assay.pairing import Pair, by_weights, pairs, unmet, weights
from assay.plan import SIZES
from assay.report import grid
from assay.report.names import names
from assay.schema import OWN, Metric, Precision, Status
from assay.session_report import SessionReport

UNCOMPARED = frozenset({"throughput_batch", "knee_batch", "harness_time"})
"""Where a sweep ended, and what the clock takes: neither says that a backend became better or worse."""
THRESHOLD = 0.05
"""The least relative change of a figure that anybody should hear of."""
ALPHA = 0.05
"""The chance of any false alarm among the figures of one comparison, as far as the test's assumptions hold."""
PRIOR_FREEDOM = 4.0
"""What the spread of like figures is worth beside a figure's own; so few that one wild run in many is expected."""
LEAST_SPREAD = 0.02
"""The relative deviation that runs have at least: where code and data happen to lie moves a time by so much, on an idle
machine too (Mytkowicz et al. 2009, Producing wrong data without doing anything obviously wrong)."""
ERROR_FACTOR = 2.0
"""Agreement errors of new inputs differ: by up to 1.6 over 40 runs of three cells. What differs by more is shown."""

FEWEST = 5
"""Figures of a kind from which on it says something that half of them changed."""

Verdict = Literal["regression", "improvement", "change"]


@dataclass(frozen=True)
class StatusChange:
    """A cell with another status. From REAL to anything is a regression, to REAL from anything an improvement."""

    cell: str
    base: Status
    new: Status
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class ErrorChange:
    """A cell that is REAL on both sides, with another agreement error: shares of the bound. No regression by itself."""

    cell: str
    base: float
    new: float


@dataclass(frozen=True)
class MetricChange:
    """A figure on both sides, and the probability of so large a difference without a change.

    `base` and `new` are medians over the runs: of each run's fastest call where calls were `sampled`, else of the
    figure itself. `p` is corrected for all figures of the comparison. `verdict` is None where nothing was found.
    """

    cell: str
    metric: str
    unit: str
    sampled: bool
    base: float
    new: float
    runs: tuple[int, int]
    ratio: float
    p: float
    verdict: Verdict | None


@dataclass(frozen=True)
class Comparison:
    """What changed.

    Attributes:
        common: what a kind of figure changed by in all.
        apart: why figures were not compared, and of which cells.
        fresh: the cells that only the new side has.
    """

    cells: int
    statuses: list[StatusChange] = field(default_factory=list)
    errors: list[ErrorChange] = field(default_factory=list)
    metrics: list[MetricChange] = field(default_factory=list)
    common: dict[str, float] = field(default_factory=dict)
    apart: dict[str, list[str]] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What was not compared, and why."""
        found = [f"figures not compared, {why}: {', '.join(cells)}" for why, cells in self.apart.items()]
        return found + ([f"only in the new one: {', '.join(self.fresh)}"] if self.fresh else [])

    @property
    def regressions(self) -> int:
        """How many statuses and figures got worse."""
        return self._count("regression")

    @property
    def improvements(self) -> int:
        """How many got better."""
        return self._count("improvement")

    def _count(self, verdict: Verdict) -> int:
        verdicts = [each.verdict for each in self.statuses] + [each.verdict for each in self.metrics]
        return verdicts.count(verdict)


Asked = tuple[str, str, str, Precision]
"""Backend, family, size and precision."""


@dataclass(frozen=True)
class Side:
    """One side. `asked` has what session reports were to run; a matrix, where it is None, asks all."""

    matrix: Matrix
    asked: frozenset[Asked] | None


@dataclass(frozen=True)
class _Figure:
    """A figure of a pair of cells: its value on each run of each side, as logarithm."""

    cell: str
    name: str
    metric: Metric
    sampled: bool
    kind: str
    before: list[float]
    after: list[float]

    @property
    def difference(self) -> float:
        return median(self.after) - median(self.before)


def read(path: Path) -> Side:
    """A matrix, or the session reports of a file or folder, merged.

    Raises:
        UsageError: it is not there, or something in it cannot be read, or nothing was run.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if path.is_file() and report_files.is_matrix(path):
        matrix, asked = report_files.read_matrix(path), None
    else:
        reports, problems = report_files.read([path])
        if problems:
            raise UsageError(str(problems[0]))
        matrix = merging.merge(reports, (), ())
        asked = frozenset(each for report in reports for each in _asked(report))
    if not any(cell.session for cell in matrix.cells):
        raise UsageError(f"{path}: no cell that was run")
    return Side(matrix, asked)


def _asked(report: SessionReport) -> Iterator[Asked]:
    """A family that was not reached yet is of the others' size; a report of old names no precisions but its cells'."""
    precisions = report.precisions or {cell.precision for cell in report.cells}
    reached = {cell.family: cell.size for cell in report.cells}
    others = {size for size in reached.values() if size != OWN} or set(SIZES)
    for family in report.planned:
        for size in {reached[family]} if family in reached else others:
            yield from ((report.backend, family, size, precision) for precision in precisions)


def update(path: Path, base: Side, new: Side) -> None:
    """Make the new matrix the baseline.

    Raises:
        UsageError: one side is no matrix: what reports say of some backends must not replace what is known of all.
    """
    if base.asked is not None or new.asked is not None:
        raise UsageError("--update-baseline takes two matrices; `assay merge` makes one of session reports")
    write_atomically(path, new.matrix.model_dump_json(indent=1) + "\n")


def compare(base: Side, new: Side, threshold: float = THRESHOLD, *, paired: Sequence[Pair] | None = None) -> Comparison:
    """What changed from one side to the other.

    Args:
        paired: the `pairs` of the two, where the caller has them already.
    """
    paired = pairs(base.matrix.cells, new.matrix.cells) if paired is None else paired
    paired = [pair for pair in paired if new.asked is None or _is_asked(pair, new.asked)]
    run = [pair for pair in paired if pair.run]
    found = Comparison(cells=len(run), fresh=names(unmet(paired, new.matrix.cells), device=False))
    older, newer = by_weights(base.matrix.superseded), by_weights(new.matrix.superseded)
    figures: list[_Figure] = []
    for pair in run:
        name, old, other = pair.name, pair.old, pair.new
        found.statuses.extend(_status_change(pair))
        if other and old.status is other.status is Status.REAL:
            found.errors.extend(_error_change(name, old, other))
            if why := incomparable(old, other):
                found.apart.setdefault(why, []).append(name)
            else:
                sides = (_runs(each, again[weights(each)]) for each, again in ((old, older), (other, newer)))
                figures += _figures(name, *sides)
    changes, common = _metric_changes(figures, threshold)
    found.metrics.extend(changes)
    found.common.update(common)
    return found


def _is_asked(pair: Pair, asked: frozenset[Asked]) -> bool:
    """Whether the new side was to run this cell of the old one. Of a user's checkpoints that is known if it ran."""
    old = pair.old
    known = pair.new is not None or old.checkpoint is None or old.checkpoint.source == "local"
    return known and (old.backend, old.family, old.size, old.precision) in asked


def incomparable(old: MatrixCell, new: MatrixCell) -> str:
    """Why the figures of two cells say nothing about each other; empty if they do."""
    if old.session is None or new.session is None:
        return "nobody ran one of them"
    before, after = old.session, new.session
    facts = {
        "other weights": (old.checkpoint and old.checkpoint.sha256, new.checkpoint and new.checkpoint.sha256),
        "other workloads": (old.workloads, new.workloads),
        "other processor": (before.machine.processor, after.machine.processor),
        "other number of cores": (before.machine.cores, after.machine.cores),
        "other number of threads": (before.environment.threads, after.environment.threads),
        "other device": (old.device, new.device),
    }
    return next((why for why, (one, other) in facts.items() if one != other), "")


def _status_change(pair: Pair) -> Iterable[StatusChange]:
    before, new = pair.old.status, pair.new
    status, reason = (new.status, new.reason) if new else (Status.PENDING, "is not there any more")
    if before is not status:
        verdict: Verdict = "change"
        if Status.REAL in (before, status):
            verdict = "regression" if before is Status.REAL else "improvement"
        yield StatusChange(pair.name, before, status, verdict, "" if status is Status.REAL else reason)


def _error_change(name: str, old: MatrixCell, new: MatrixCell) -> Iterable[ErrorChange]:
    before, after = _share(old), _share(new)
    if before and after and max(before, after) > ERROR_FACTOR * min(before, after):
        yield ErrorChange(name, before, after)


def _share(cell: MatrixCell) -> float | None:
    check = grid.agreement(cell)
    return check.value / check.bound if check and check.value is not None and check.bound else None


def _runs(cell: MatrixCell, superseded: Iterable[MatrixCell]) -> list[MatrixCell]:
    """The cell, and what it superseded on an equal machine with equal software: the same thing measured again."""
    return [cell] + [
        other for other in superseded
        if other.status is cell.status and not incomparable(cell, other)
        and cell.session and other.session
        and (cell.session.environment.assay, cell.session.environment.packages)
        == (other.session.environment.assay, other.session.environment.packages)
    ]  # fmt: skip


def _figures(name: str, old: Sequence[MatrixCell], new: Sequence[MatrixCell]) -> Iterable[_Figure]:
    """What both sides measured. A rate that follows from a time would only say again what that says."""
    for metric_name, base in old[0].metrics.items():
        after = new[0].metrics.get(metric_name)
        sampled = metric_name in old[0].samples
        if metric_name in UNCOMPARED or after is None or after.unit != base.unit or (base.samples > 1 and not sampled):
            continue
        values = [
            [_undisturbed(cell, metric_name) for cell in cells if metric_name in cell.metrics] for cells in (old, new)
        ]
        # The same number twice is the same measurement, such as the time of an export that the cache kept.
        if min(map(min, values)) > 0 and set(values[0]) != set(values[1]):
            kind = "sampled times" if sampled else "single times" if base.unit == "s" else f"figures in {base.unit}"
            logs = [[math.log(value) for value in side] for side in values]
            yield _Figure(name, metric_name, base, sampled, kind, *logs)


def _undisturbed(cell: MatrixCell, name: str) -> float:
    """The best sample where there are samples: what else a machine does can only make a call slower.

    From run to run it differs several times less than the median does (Chen and Revels 2016, Robust benchmarking in
    noisy environments; and `docs/comparison.md`).
    """
    metric, samples = cell.metrics[name], cell.samples.get(name)
    if not samples:
        return metric.value
    return max(samples) if metric.better == "higher" else min(samples)


def _metric_changes(figures: Sequence[_Figure], threshold: float) -> tuple[list[MetricChange], dict[str, float]]:
    """Every figure with its verdict, and what those of one kind changed by in all, where that is worth a word."""
    kinds: defaultdict[str, list[_Figure]] = defaultdict(list)
    for figure in figures:
        kinds[figure.kind].append(figure)
    spreads = {kind: spread([(each.before, each.after) for each in members]) for kind, members in kinds.items()}
    raw = []
    for each in figures:
        variance, freedom = spreads[each.kind]
        prior = {"prior": max(LEAST_SPREAD**2, variance), "freedom": min(PRIOR_FREEDOM, freedom)}
        raw.append(p_value(each.before, each.after, **prior))
    changes = []
    for figure, p in zip(figures, holm(raw), strict=True):
        before, after = (math.exp(median(side)) for side in (figure.before, figure.after))
        ratio = after / before
        verdict: Verdict | None = None
        if p < ALPHA and abs(ratio - 1) > threshold:
            worse = {"lower": ratio > 1, "higher": ratio < 1}.get(figure.metric.better)
            verdict = "change" if worse is None else "regression" if worse else "improvement"
        changes.append(MetricChange(
            figure.cell, figure.name, figure.metric.unit, figure.sampled, before, after,
            (len(figure.before), len(figure.after)), ratio, p, verdict,
        ))  # fmt: skip
    common = {
        kind: math.exp(median(each.difference for each in members))
        for kind, members in kinds.items() if len(members) >= FEWEST
    }  # fmt: skip
    return changes, {kind: ratio for kind, ratio in common.items() if abs(ratio - 1) > threshold}
