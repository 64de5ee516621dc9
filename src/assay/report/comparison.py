"""What `assay compare` found: for a terminal, as Markdown, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.compare import Comparison, MetricChange, Verdict
from assay.errors import counted
from assay.report import units
from assay.report.markdown import as_table, safe
from assay.schema import Metric

GLYPHS: dict[Verdict, str] = {"regression": "✘", "improvement": "✔", "change": "·"}
STYLES: dict[Verdict, str] = {"regression": "red", "improvement": "green", "change": "dim"}
HEAD = ("", "cell", "figure", "base", "new", "ratio", "p")


def to_json(found: Comparison) -> str:
    """All of it, figures without a change included."""
    counts = {"regressions": found.regressions, "improvements": found.improvements}
    return json.dumps({**counts, **asdict(found), "notes": found.notes}, indent=1, default=dict)


def print_comparison(found: Comparison, file: TextIO | None = None, *, width: int | None = None) -> None:
    """Summary, statuses, figures, notes; colour helps, glyph and word say it."""
    console = Console(file=file, width=width, highlight=False, emoji=False, markup=False)
    console.print(Text(summary(found), style="bold"))
    for each in found.statuses:
        line = f"{GLYPHS[each.verdict]} {each.verdict}: {_status(each.cell, each.base, each.new, each.reason)}"
        console.print(Text(line, style=STYLES[each.verdict]))
    figures = changed(found.metrics)
    if figures:
        table = Table(*HEAD, box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for metric in figures:
            table.add_row(*_line(metric), style=STYLES[metric.verdict or "change"])
        console.print(table)
    for note in _notes(found):
        console.print(Text(note, style="dim"))


def to_markdown(found: Comparison) -> str:
    """A section for a pull request or a job summary."""
    parts = ["## Compared with the baseline", safe(summary(found)) + "."]
    if found.statuses:
        parts.append("\n".join(
            f"- {GLYPHS[each.verdict]} **{each.verdict}** "
            + safe(_status(each.cell, each.base, each.new, each.reason)) for each in found.statuses
        ))  # fmt: skip
    if figures := changed(found.metrics):
        lines = [[safe(part) for part in _line(each)] for each in figures]
        parts.append(as_table(HEAD, lines))
    parts += [safe(note) for note in _notes(found)]
    return "\n\n".join(parts) + "\n"


def summary(found: Comparison) -> str:
    """`1 regression, 2 improvements in 30 cells and 94 figures`."""
    counts = [
        counted(count, word)
        for count, word in ((found.regressions, "regression"), (found.improvements, "improvement"))
        if count
    ]
    return f"{', '.join(counts) or 'No regression'} in {found.cells} cells and {len(found.metrics)} figures"


def changed(figures: Sequence[MetricChange]) -> list[MetricChange]:
    """Those that count, what is worse and what is surer first."""
    order = ("regression", "improvement", "change")
    counted = [each for each in figures if each.verdict]
    return sorted(counted, key=lambda each: (order.index(each.verdict or "change"), each.p))


def _status(cell: str, base: str, new: str, reason: str) -> str:
    return units.plain(f"{cell}: {base} → {new}" + (f": {reason}" if reason else ""))


def _line(change: MetricChange) -> Sequence[str]:
    verdict = change.verdict or "change"
    runs = "" if change.runs == (1, 1) else f" ({change.runs[0]} and {change.runs[1]} runs)"
    figure = units.plain(change.metric.replace("_", " ")) + (", fastest" if change.sampled else "")
    base, new = (units.quantity(Metric(value=value, unit=change.unit)) for value in (change.base, change.new))
    return (
        f"{GLYPHS[verdict]} {verdict}", units.plain(change.cell), figure, units.plain(base), units.plain(new),
        f"×{change.ratio:.2f}{runs}", f"{change.p:.1g}",
    )  # fmt: skip


def _notes(found: Comparison) -> Iterator[str]:
    for each in found.errors:
        shares = f"{units.number(each.base)} → {units.number(each.new)}"
        yield units.plain(f"{each.cell}: agreement error, in shares of its bound: {shares}")
    yield from common_notes(found)
    yield from map(units.plain, found.notes)


def common_notes(found: Comparison) -> Iterator[str]:
    """What all figures of a kind did."""
    for kind, ratio in found.common.items():
        yield (
            f"Half of all {units.plain(kind)} changed by ×{ratio:.2f} or more: machine, or something that all share. "
            "Several runs of each side, taken alternately, tell."
        )
