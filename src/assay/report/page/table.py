"""The page's first screen as HTML: the matrix, the causes of what is not REAL, the legend, the environment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from html import escape

from assay.matrix import Matrix, MatrixCell
from assay.report import grid, units
from assay.report.grid import Row
from assay.report.page.data import BASELINE, baseline, speed_up
from assay.report.page.difference import Difference
from assay.schema import Status

MANY = 50
"""Of causes and sessions no more are listed."""


ONLY_CHANGED = '<label><input type="checkbox" id="changed" autocomplete="off"> Only what changed</label>'


def body(matrix: Matrix, rows: Sequence[Row], lines: Sequence[str], difference: Difference | None) -> str:
    """Everything between the page's head and its data.

    Args:
        rows: all rows, `grouped`.
        lines: of the first of them (`row_lines`).
        difference: to the baseline, if there is one.
    """
    columns = grid.columns(matrix)
    return "\n".join([
        *_head(matrix, difference),
        *_controls(rows, columns, difference),
        "<main>",
        *(f'<p class="warning"><b>Warning</b> {_text(warning)}</p>' for warning in matrix.warnings),
        *_matrix(rows, columns, lines),
        '<section id="figures" hidden></section>',
        *(difference.section_html() if difference else ()),
        *_causes(matrix),
        *_legend({cell.status for cell in matrix.cells}),
        *_environment(matrix),
        "</main>",
    ])  # fmt: skip


def _head(matrix: Matrix, difference: Difference | None) -> Iterator[str]:
    counts = Counter(cell.status for cell in matrix.cells)
    yield '<header><div class="title"><h1>Status matrix</h1>'
    yield '<button type="button" id="theme" class="plain" hidden>Theme</button></div>'
    yield f'<p class="lede">{_lede(matrix)}</p>'
    yield '<ul class="tally" aria-label="Show only these statuses">'
    for status in Status:
        if counts[status]:
            yield (
                f'<li><button type="button" class="{status}" data-status="{status}" aria-pressed="false">'
                f"<b>{grid.GLYPHS[status]}</b> {counts[status]:,} {status}</button></li>"
            )
    against = "".join(difference.head_html(_measured(difference.baseline.side.matrix))) if difference else ""
    yield f"</ul>{against}</header>"


def _lede(matrix: Matrix) -> str:
    if not (measured := _measured(matrix)):
        return "Nobody has run these cells yet."
    return _text(f"Model families down the side, backends across, each status concluded from evidence. "
                 f"Measured {measured}.")  # fmt: skip


def _measured(matrix: Matrix) -> str:
    """When, where and by what; empty if nobody did."""
    sessions = [ref for ref, _, _ in grid.sessions(matrix.cells)]
    if not sessions:
        return ""
    days = sorted(ref.started_at[:10] for ref in sessions)
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    machines = list(dict.fromkeys((ref.machine.name, ref.machine.processor, ref.machine.cores) for ref in sessions))
    name, processor, cores = machines[0]
    where = f"{name} ({processor}, {cores} cores)" if len(machines) == 1 else f"{len(machines)} machines"
    return f"{when} on {where} by assay {', '.join(dict.fromkeys(ref.environment.assay for ref in sessions))}"


def _controls(rows: Sequence[Row], columns: Sequence[str], difference: Difference | None) -> Iterator[str]:
    """Hidden until the script can serve them."""
    views = [("", "Status"), ("all", "Speed and memory")]
    views += [(kind, heading) for kind, heading in grid.KINDS.items() if any(row.kind == kind for row in rows)]
    yield '<div class="controls" id="controls" hidden><nav aria-label="Views">'
    yield from (f'<a href="#view={view}" data-view="{view}">{heading}</a>' for view, heading in views)
    yield '</nav><div class="filters" role="search">'
    yield '<label>Search <input type="search" id="search" placeholder="family, model, device, cause" '
    yield 'autocomplete="off" spellcheck="false" aria-keyshortcuts="/"></label>'
    yield f"{ONLY_CHANGED if difference else ''}<fieldset><legend>Columns</legend>"
    yield from (
        f'<label><input type="checkbox" name="column" value="{_text(name)}" checked> {_text(name)}</label>'
        for name in columns
    )
    yield '</fieldset><button type="button" id="reset" class="plain" disabled>Reset</button></div></div>'
    yield '<p id="unpacked" class="warning" hidden></p>'


def _matrix(rows: Sequence[Row], columns: Sequence[str], lines: Sequence[str]) -> Iterator[str]:
    groups = list(dict.fromkeys((row.size, row.precision) for row in rows))
    yield '<section id="matrix">'
    wide = " wide" if len(columns) > 6 else ""
    yield f'<div class="scroll{wide}" role="region" aria-labelledby="caption" tabindex="0">'
    yield '<table class="matrix"><caption id="caption">'
    one = f", {units.plain(groups[0][0])}, {groups[0][1]}" if len(groups) == 1 else ""
    yield f'Statuses{_text(one)} <span class="note">Time: median latency of one call at batch size 1; ×: '
    yield f"times as fast as {BASELINE} by the family's own rate, where nothing else differs; ~: did not settle. "
    yield "A cell opens its evidence.</span>"
    yield '</caption><thead><tr><th scope="col">Family</th>'
    yield from (f'<th scope="col" data-column="{_text(name)}">{_text(name)}</th>' for name in columns)
    yield "</tr></thead>"
    for size, precision in groups:
        yield "<tbody>"
        if not one:
            yield f'<tr class="group"><th colspan="{len(columns) + 1}" scope="rowgroup">{_text(size)}, {precision}</th>'
        yield from (
            line for row, line in zip(rows, lines, strict=False) if (row.size, row.precision) == (size, precision)
        )
        yield "</tbody>"
    yield '</table></div><p id="nothing" hidden>No cell is left by these filters.</p>'
    yield '<button type="button" id="more" class="plain" hidden></button></section>'


def grouped(rows: Sequence[Row]) -> list[Row]:
    """The rows by size and precision, each group a body of the table."""
    groups = list(dict.fromkeys((row.size, row.precision) for row in rows))
    return sorted(rows, key=lambda row: groups.index((row.size, row.precision)))


def row_lines(matrix: Matrix, rows: Sequence[Row], difference: Difference | None) -> list[str]:
    """The HTML of every row."""
    columns, places = grid.columns(matrix), Places(matrix, difference)
    return [_row(row, columns, places) for row in rows]


def _row(row: Row, columns: Sequence[str], places: Places) -> str:
    model = f"<small>{_text(row.model)}</small>" if row.model else ""
    cells = "".join(f"<td>{places.html(row, row.cells.get(name, ()))}" for name in columns)
    return f'<tr class="row"><th scope="row">{_text(row.title)}{model}</th>{cells}'


class Places:
    """Writes what stands in a place of the matrix. There are many, so little is written: the script adds the links."""

    def __init__(self, matrix: Matrix, difference: Difference | None) -> None:
        self._machines, self._difference = grid.machines(matrix), difference
        self._numbers = {id(cell): index for index, cell in enumerate(matrix.cells)}

    def html(self, row: Row, cells: Sequence[MatrixCell]) -> str:
        """The cells of one place: status, figures, what tells them apart."""
        parts = []
        for cell, labels in zip(cells, grid.places(cells, self._machines), strict=True):
            status = cell.status
            beside = "".join(f"<em>{_text(label)}</em>" for label in labels)
            beside += self._difference.cell_html(cell) if self._difference else ""
            parts.append(
                f"<a class={status} data-cell={self._numbers[id(cell)]}><b>{grid.GLYPHS[status]}</b> {status}"
                f"{self._figures(cell, row)}{beside}</a>"
            )
        return "".join(parts)

    def _figures(self, cell: MatrixCell, row: Row) -> str:
        latency, own = cell.metrics.get("latency"), grid.headline(cell)
        if latency is None:
            return ""
        other = baseline(cell, row)
        faster = f" <small>{speed_up(cell, other)}</small>" if other else ""
        rate = f" <i>{_text(units.figure(own))}</i>" if own else ""
        return f" <span>{units.figure(latency)}</span>{faster}{rate}"


def _causes(matrix: Matrix) -> Iterator[str]:
    causes = grid.causes(matrix)
    if not causes:
        return
    yield '<section id="causes"><h2>Why cells are not REAL</h2><ul class="causes">'
    for cause in causes[:MANY]:
        looked = f"<small>Looked for: {_text('; '.join(cause.looked_for))}</small>" if cause.looked_for else ""
        yield (
            f'<li><span class="status {cause.status}"><b>{grid.GLYPHS[cause.status]}</b> {cause.status}</span>'
            f"<span>{_text(cause.where)}</span><span>{_text(cause.reason)}{looked}</span></li>"
        )
    yield "</ul>"
    if len(causes) > MANY:
        yield f"<p>{len(causes) - MANY:,} further causes are in STATUS.md, and each in the evidence of its cell.</p>"
    yield "</section>"


def _legend(present: Container[Status]) -> Iterator[str]:
    yield '<section id="legend"><h2>What the statuses mean</h2><dl>'
    for status in Status:
        if status in present:
            yield f'<div><dt class="status {status}"><b>{grid.GLYPHS[status]}</b> {status}</dt>'
            yield f"<dd>{_text(grid.MEANINGS[status][0].upper() + grid.MEANINGS[status][1:])}.</dd></div>"
    yield "</dl></section>"


def _environment(matrix: Matrix) -> Iterator[str]:
    found = grid.sessions(matrix.cells)
    if not found:
        return
    yield '<section id="environment"><h2>Environment</h2><div class="scroll" role="region" tabindex="0" '
    yield 'aria-label="Environment"><table class="plain"><thead><tr>'
    heads = ("Backend", "Started", "Machine", "Sustained", "Threads", "Python", "Packages")
    yield "".join(f'<th scope="col">{head}</th>' for head in heads) + "</tr></thead><tbody>"
    for ref, backend, _ in found[:MANY]:
        software, machine = ref.environment, ref.machine
        packages = ", ".join(f"{name} {version}" for name, version in sorted(software.packages.items()))
        place = ", ".join([f"{machine.name}: {machine.processor}", f"{machine.cores} cores",
                           units.amount(machine.memory), machine.system, *machine.devices])  # fmt: skip
        started = ref.started_at[:16].replace("T", " ")
        yield _line(
            backend,
            (started, place, grid.sustained(ref) or "—", str(software.threads), software.python, packages or "—"),
        )
    yield "</tbody></table></div>"
    if len(found) > MANY:
        yield f"<p>{len(found) - MANY:,} further sessions are in STATUS.md.</p>"
    if matrix.superseded:
        yield f"<p>{len(matrix.superseded):,} older results of the same cells are kept in matrix.json.</p>"
    yield "</section>"


def _line(head: str, cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{_text(head)}</th>{"".join(f"<td>{_text(cell)}</td>" for cell in cells)}</tr>'


def _text(text: str) -> str:
    return escape(units.plain(text))
