"""The matrix in a terminal, within 80 columns: colour helps, glyph and word say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from assay.matrix import Matrix, MatrixCell
from assay.report import grid, units
from assay.report.grid import Row
from assay.report.selection import Selection
from assay.schema import Metric, Status

STYLES: Mapping[Status, str] = {
    Status.REAL: "green",
    Status.INACCURATE: "yellow",
    Status.FALLBACK: "magenta",
    Status.MOCK: "bold red",
    Status.UNPROVEN: "cyan",
    Status.FAILED: "red",
    Status.UNAVAILABLE: "dim",
    Status.PENDING: "dim",
}

EVERYTHING = Selection()
MOST = 200
"""Rows that somebody may still read in a terminal."""
NARROWEST = 12
"""Of the column of families: what the longest word of a title needs."""


def print_matrix(
    matrix: Matrix, file: TextIO | None = None, *, width: int | None = None, selection: Selection = EVERYTHING,
    most: int | None = None,
) -> None:  # fmt: skip
    """Write the table, the causes, the figures and the environment.

    Args:
        selection: what of it.
        file: standard output by default. Colour is left out where it is no terminal, or NO_COLOR is set.
        width: that of the terminal by default.
        most: rows from which on there are no tables, and causes of which no more are named.
    """
    console = Console(file=file, width=width, highlight=False, emoji=False, markup=False)
    for part in _parts(selection.of(matrix), console.width, selection, most):
        console.print(part)


def _parts(matrix: Matrix, width: int, selection: Selection, most: int | None) -> Iterator[RenderableType]:
    rows, columns = selection.ordered(grid.rows(matrix)), grid.columns(matrix)
    readable = most is None or len(rows) <= most
    if readable:
        yield from _status_tables(rows, columns, grid.machines(matrix), width, selection.metric)
    else:
        yield Text(f"{len(rows):,} rows: index.html has them, and `assay show --family` prints some")
    yield Text(f"{len(matrix.cells)} cells: {grid.totals(matrix.cells)}", style="bold")
    causes = grid.causes(matrix)
    for cause in causes[:most]:
        looked_for = f" Looked for: {'; '.join(cause.looked_for)}." if cause.looked_for else ""
        sentence = f" {cause.where}. {cause.reason.rstrip('.')}.{looked_for}"
        yield Padding(Text.assemble(status_text(cause.status), sentence), (0, 0, 0, 2))
    if len(causes[:most]) < len(causes):
        yield Text(f"  {len(causes) - len(causes[:most]):,} further causes: index.html has each with its cell")
    if readable:
        yield from _figures(rows, columns, width)
    for line in _environment(matrix):
        yield Text(line, style="dim")
    if matrix.superseded:
        yield Text(f"{len(matrix.superseded)} superseded results are kept in matrix.json", style="dim")
    for warning in matrix.warnings:
        yield Text(f"warning: {units.plain(warning)}", style="yellow")


def status_text(status: Status) -> Text:
    """Glyph and word, coloured."""
    return Text(f"{grid.GLYPHS[status]} {status}", style=STYLES[status])


def _status_tables(
    rows: Sequence[Row], columns: Sequence[str], machines: Mapping[str, str], width: int, metric: str
) -> Iterator[RenderableType]:
    """A table for each size and precision; columns that do not fit go into another table below it."""
    for size, precision in dict.fromkeys((row.size, row.precision) for row in rows):
        members = [row for row in rows if (row.size, row.precision) == (size, precision)]
        titles = [_row_title(row) for row in members]
        cells = {name: [_place(row.cells.get(name, ()), machines, metric) for row in members] for name in columns}
        needed = {name: max(cell_len(name), *(_width(cell) for cell in cells[name])) for name in columns}
        first = min(max(len("family"), *(_width(title) for title in titles)), width // 3)
        # Titles of two words go on two lines before a column goes into another table.
        left = width - sum(each + 1 for each in needed.values())
        first = left if NARROWEST <= left < first else first
        for chunk in _chunks(columns, needed, width - first):
            table = Table(
                title=f"{units.plain(size)}, {precision}: {units.plain(metric.replace('_', ' '))}",
                title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0),
                header_style="bold",
            )  # fmt: skip
            table.add_column("family", width=first)
            for name in chunk:
                table.add_column(units.plain(name), no_wrap=True)
            for index, title in enumerate(titles):
                table.add_row(title, *(cells[name][index] for name in chunk))
            yield table
            yield Text()


def _width(text: Text) -> int:
    return max((cell_len(line) for line in text.plain.split("\n")), default=0)


def _chunks(columns: Sequence[str], needed: Mapping[str, int], room: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    used = 0
    for name in columns:
        if chunk and used + needed[name] + 1 > room:
            yield chunk
            chunk, used = [], 0
        chunk.append(name)
        used += needed[name] + 1
    if chunk:
        yield chunk


def _row_title(row: Row, *more: str) -> Text:
    return Text("\n".join(filter(None, (row.title, row.model, *more))))


def _place(cells: Sequence[MatrixCell], machines: Mapping[str, str], metric: str) -> Text:
    """Status and figure; the figure of what is not REAL, what tells several cells apart, and machines, below."""
    lines = []
    for cell, place in zip(cells, grid.places(cells, machines), strict=True):
        line = status_text(cell.status)
        if figure := cell.metrics.get(metric):
            line = Text.assemble(line, " " if cell.status is Status.REAL else "\n  ", _quantity(figure))
        for label in place:
            line = Text.assemble(line, f"\n  {label[:24]}")
        lines.append(line)
    return Text("\n").join(lines)


def _figures(rows: Sequence[Row], columns: Sequence[str], width: int) -> Iterator[RenderableType]:
    """A line for each cell that has figures, by kind of family."""
    parts: list[RenderableType] = []
    for heading, members in grid.kinds(rows):
        table = Table(
            title=heading, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0),
            header_style="bold",
        )  # fmt: skip
        table.add_column("family", max_width=width // 4)
        table.add_column("backend")
        for name in ("rate", "preproc.", "memory", "error / bound"):
            table.add_column(name, justify="right")
        for row in members:
            for name in columns:
                for cell in row.cells.get(name, ()):
                    if cell.metrics:
                        table.add_row(_row_title(row, row.part), *_line(cell))
        if table.row_count:
            parts += [table, Text()]
    if parts:
        yield Group(Text(), *parts)


def _line(cell: MatrixCell) -> list[Text]:
    check = grid.agreement(cell)
    error = "—"
    if check and check.value is not None and check.bound is not None:
        error = f"{units.error(check.value)} / {units.error(check.bound)}"
    backend = Text(units.plain(cell.backend))
    if cell.status is not Status.REAL:
        backend = Text.assemble(backend, "\n", status_text(cell.status))
    shown = (grid.headline(cell), cell.metrics.get("preprocessing_time"), cell.metrics.get("peak_memory"))
    return [backend, *(Text(_quantity(metric)) for metric in shown), Text(error)]


def _quantity(metric: Metric | None) -> str:
    if metric is None:
        return "—"
    return units.plain(units.figure(metric))


def _environment(matrix: Matrix) -> list[str]:
    """A line for each machine, and one for each set of packages with the columns that share it."""
    machines: dict[str, None] = {}
    packages: dict[str, list[str]] = {}
    for ref, backend, _ in grid.sessions(matrix.cells):
        machine, software = ref.machine, ref.environment
        machines[f"{machine.name}: {machine.processor}, {software.threads} threads, python {software.python}"] = None
        held = ", ".join(f"{name} {version}" for name, version in sorted(software.packages.items()))
        packages.setdefault(held or "no packages recorded", []).append(backend)
    shared = [f"{', '.join(dict.fromkeys(backends))}: {held}" for held, backends in packages.items()]
    return [units.plain(line) for line in (*machines, *shared)]
