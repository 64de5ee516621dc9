"""What the page says of a baseline: a mark at each cell that changed, its findings, and what is no longer there.

All of it was found by `assay.compare`; nothing is compared here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from assay.compare import ALPHA, THRESHOLD, Comparison, ErrorChange, MetricChange, Side, StatusChange, compare
from assay.matrix import Matrix, MatrixCell
from assay.pairing import Pair, pairs, unmet
from assay.report import comparison, grid, units
from assay.report.page.data import Table, figure, rounded
from assay.schema import Metric, Status

GLYPHS = {"regression": "▼", "improvement": "▲", "change": "◆", "new": "+"}
"""Beside the words, and none of a status, which stands in the same cell."""
MARKS = 2
"""Of a cell's findings no more stand in the matrix; all of them are in its evidence."""
MANY, NAMES = 50, 5
"""How many lost cells are listed, and how many cells a note names."""


@dataclass(frozen=True)
class Baseline:
    """One side of the comparison, under the name that its reader knows it by, and the least change that counts."""

    name: str
    side: Side
    threshold: float = THRESHOLD


@dataclass
class Findings:
    """What was found of one cell of the baseline, and of the cell that stands in its place."""

    pair: Pair
    status: StatusChange | None = None
    error: ErrorChange | None = None
    figures: list[MetricChange] = field(default_factory=list)
    apart: str = ""

    def marks(self) -> Iterator[tuple[str, str]]:
        """Each finding that counts: its verdict, and what changed in words."""
        if self.status:
            yield self.status.verdict, f"was {self.status.base}"
        for each in comparison.changed(self.figures):
            before, after = (units.quantity(Metric(value=value, unit=each.unit)) for value in (each.base, each.new))
            yield each.verdict or "", f"{_name(each)} ×{each.ratio:.2f}, {before} → {after}"
        if self.error:
            shares = f"{units.number(self.error.base)} → {units.number(self.error.new)} of its bound"
            yield "change", f"error ×{self.error.new / self.error.base:.2f}, {shares}"


class Difference:
    """The findings by cell of the new matrix."""

    def __init__(self, baseline: Baseline, matrix: Matrix) -> None:
        new, self.baseline = Side(matrix, None), baseline
        paired = pairs(baseline.side.matrix.cells, matrix.cells)
        self.found: Comparison = compare(baseline.side, new, baseline.threshold, paired=paired)
        by_name = {pair.name: Findings(pair) for pair in paired if pair.run}
        for change in self.found.statuses:
            by_name[change.cell].status = change
        for moved in self.found.errors:
            by_name[moved.cell].error = moved
        for measured in self.found.metrics:
            by_name[measured.cell].figures.append(measured)
        for why, names in self.found.apart.items():
            for name in names:
                by_name[name].apart = why
        self.gone = [each for each in by_name.values() if each.pair.new is None]
        self._fresh = {id(cell) for cell in unmet(paired, matrix.cells)}
        self._of: dict[int, list[Findings]] = {}
        for each in by_name.values():
            if each.pair.new:
                self._of.setdefault(id(each.pair.new), []).append(each)
        self._kinds, self._outcomes, self._measured = Table(), Table(), Table()

    def marks(self, cell: MatrixCell) -> list[tuple[str, str]]:
        """Verdict and words of everything that changed in a cell of the matrix."""
        if id(cell) in self._fresh:
            return [("new", "not in the baseline")]
        return [mark for each in self._of.get(id(cell), ()) for mark in each.marks()]

    def pack(self, cell: MatrixCell) -> list[dict[str, Any]] | None:
        """What a cell's evidence says of the baseline, once for each cell of it that this one stands for."""
        found = self._of.get(id(cell))
        if found is None:
            return [{"fresh": True}] if id(cell) in self._fresh else None
        return [self._pack(each, alone=len(found) == 1) for each in found]

    def _pack(self, found: Findings, *, alone: bool) -> dict[str, Any]:
        old = found.pair.old
        before = {
            "name": None if alone else found.pair.name,
            "measured": self._measured.place(_measured(old)),
            "status": [str(old.status), found.status.verdict if found.status else ""],
            "error": [rounded(found.error.base), rounded(found.error.new)] if found.error else None,
            "figures": [self._figure(each) for each in found.figures],
            "apart": found.apart or ("" if found.figures else self._without_figures(found.pair)),
        }
        return {key: value for key, value in before.items() if value not in (None, [], "")}

    def _without_figures(self, pair: Pair) -> str:
        both = pair.new and pair.old.status is pair.new.status is Status.REAL
        return "every figure is the same as before, or on one side alone" if both else "it is not REAL on both sides"

    def _figure(self, change: MetricChange) -> list[Any]:
        """Which figure, before, after, their ratio, p, and what follows."""
        metric = Metric(value=change.base, unit=change.unit)
        chance = "may be chance" if change.p >= ALPHA else "too little to count"
        return [
            self._kinds.place([_name(change), change.unit, list(change.runs)]),
            figure(metric, change.base), figure(metric, change.new), round(change.ratio, 2),
            float(f"{change.p:.1g}"), self._outcomes.place(change.verdict or chance),
        ]  # fmt: skip

    def index(self, cells: Sequence[MatrixCell]) -> dict[str, Any]:
        """What the page filters and searches by, and what packed cells share: those come first."""
        changed = {at: marks for at, cell in enumerate(cells) if (marks := self.marks(cell))}
        return {
            "glyphs": GLYPHS,
            "changed": {at: " ".join(dict.fromkeys(verdict for verdict, _ in marks)) for at, marks in changed.items()},
            "kinds": self._kinds.entries,
            "outcomes": self._outcomes.entries,
            "measured": self._measured.entries,
        }

    def cell_html(self, cell: MatrixCell) -> str:
        """The marks that stand in a cell of the matrix."""
        marks = self.marks(cell)
        more = f"<em>and {len(marks) - MARKS} more</em>" if len(marks) > MARKS else ""
        return "".join(f"<em{_mark(verdict)}: {_text(what)}</em>" for verdict, what in marks[:MARKS]) + more

    def head_html(self, measured: str) -> Iterator[str]:
        """Against what, and how much changed.

        Args:
            measured: when, where and by what the baseline was.
        """
        found = self.found
        verdicts = [each.verdict for each in found.statuses] + [each.verdict for each in found.metrics]
        others = verdicts.count("change") + len(found.errors)
        counts = [
            (found.regressions, "regression", "regression"), (found.improvements, "improvement", "improvement"),
            (others, "change", "other change"),
        ]  # fmt: skip
        said = [f"<span{_mark(verdict, _count(count, what))}</span>" for count, verdict, what in counts if count]
        yield f'<p class="against">Against <b>{_text(self.baseline.name)}</b>, measured {_text(measured)}: '
        yield f"{', '.join(said) or 'nothing changed'} in {_count(found.cells, 'cell')} and "
        yield f"{_count(len(found.metrics), 'figure')}."
        rest = [(len(found.fresh), "is new", "are new"), (len(self.gone), "is no longer here", "are no longer here")]
        yield from (f" {_count(count, 'cell')} {one if count == 1 else many}." for count, one, many in rest if count)
        yield "</p>"

    def section_html(self) -> Iterator[str]:
        """What has no place in the matrix: cells that are gone, what all figures did, what was not compared."""
        notes = [*comparison.common_notes(self.found), *map(_shortened, self.found.apart.items())]
        if not (self.gone or notes):
            return
        yield '<section id="against"><h2>Against the baseline</h2>'
        yield '<ul class="causes">' if self.gone else ""
        for each in self.gone[:MANY]:
            verdict = each.status.verdict if each.status else "change"
            status = each.pair.old.status
            yield f"<li><span{_mark(verdict)}</span><span>{_text(each.pair.name)}</span>"
            yield f"<span>No longer here; was {grid.GLYPHS[status]} {status}.</span></li>"
        yield "</ul>" if self.gone else ""
        if len(self.gone) > MANY:
            yield f"<p>{len(self.gone) - MANY:,} further cells are no longer here.</p>"
        yield from (f"<p>{_text(note[0].upper() + note[1:])}</p>" for note in notes)
        yield "</section>"


def _name(change: MetricChange) -> str:
    return ("fastest " if change.sampled else "") + change.metric.replace("_", " ")


def _measured(cell: MatrixCell) -> str:
    if cell.session is None:
        return ""
    started = (cell.started_at or cell.session.started_at)[:16].replace("T", " ")
    return f"{started} on {cell.session.machine.name}"


def _mark(verdict: str, words: str = "") -> str:
    """The rest of an element's first tag, and the verdict as glyph and words."""
    return f' class="mark {verdict}"><b>{GLYPHS[verdict]} {words or verdict}</b>'


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _shortened(apart: tuple[str, Sequence[str]]) -> str:
    """Why figures were not compared, of how many cells, and the first of them."""
    why, names = apart
    more = f" and {len(names) - NAMES:,} more" if len(names) > NAMES else ""
    return f"figures not compared, {why}: {'; '.join(names[:NAMES])}{more}."


def _text(text: str) -> str:
    return escape(units.plain(text))
