"""`reports/STATUS.md`: the matrix for people who read Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from assay.matrix import Matrix, MatrixCell
from assay.measure import throttling
from assay.measure.statistics import disturbance
from assay.report import grid, units
from assay.report.grid import Row
from assay.schema import Metric, Status

NOTHING = "—"
LIMIT = 2**20
"""Bytes that GitHub takes as the summary of a job's step; a longer one is refused whole."""
DISPENSABLE = ("logs", "superseded results", "what did not settle", "metrics", "notes on checkpoints", "agreement",
               "causes")  # fmt: skip
"""Sections that are left out of a page that would be longer, the first of these first."""


def render(matrix: Matrix, limit: int = LIMIT) -> str:
    """The whole page: status, causes, agreement with its bounds, metrics, environment.

    Args:
        limit: bytes of the page, as far as leaving out sections makes it shorter; it names what it leaves out.
    """
    table, columns = grid.rows(matrix), grid.columns(matrix)
    head = [
        "<!-- Written by `assay merge`; changes are lost. -->",
        "# Status matrix",
        f"{len(matrix.cells)} cells: {grid.totals(matrix.cells)}.",
        *(f"> **Warning:** {safe(warning)}" for warning in matrix.warnings),
        _status(table, columns, grid.machines(matrix)),
        _legend(matrix),
    ]
    sections = {
        "causes": _causes(matrix),
        "logs": _logs(matrix),
        "notes on checkpoints": _notes(matrix),
        "agreement": _agreement(table, columns),
        "metrics": _metrics(matrix, table, columns),
        "what did not settle": _unsettled(table, columns),
        "environment": _environment(matrix),
        "superseded results": _superseded(matrix),
    }
    left_out: list[str] = []
    page = _page(head, sections, left_out)
    for name in DISPENSABLE:
        if len(page.encode()) <= limit:
            break
        if sections.pop(name):
            left_out.append(name)
            page = _page(head, sections, left_out)
    return page


def _page(head: Sequence[str], sections: Mapping[str, Sequence[str]], left_out: Sequence[str]) -> str:
    parts = [*head, *(part for section in sections.values() for part in section)]
    if left_out:
        parts.append(f"Left out, because this page would be too long: {', '.join(left_out)}. `matrix.json` has them.")
    return "\n\n".join(parts) + "\n"


def _status(table: Sequence[Row], columns: Sequence[str], machines: Mapping[str, str]) -> str:
    return as_table(
        ("family", "weights", *map(safe, columns)),
        ([safe(row.title), _weights(row), *(_status_cell(row.cells.get(name, ()), machines) for name in columns)]
         for row in table),
    )  # fmt: skip


def _status_cell(cells: Sequence[MatrixCell], machines: Mapping[str, str]) -> str:
    lines = []
    for cell, place in zip(cells, grid.places(cells, machines), strict=True):
        latency = cell.metrics.get("latency")
        parts = [f"{grid.GLYPHS[cell.status]} {cell.status}"]
        if latency:
            parts.append(units.figure(latency))
        if place:
            parts.append(f"({safe(', '.join(place))})")
        lines.append(" ".join(parts))
    return "<br>".join(lines) or NOTHING


def _weights(row: Row) -> str:
    size = f"{safe(row.size)}, {row.precision}"
    if row.checkpoint is None:
        return size
    name = f"{safe(units.name(row.checkpoint))}, " if row.checkpoint.source != "local" else ""
    return f"{name}{size}, `{units.weights(row.checkpoint)}`"


def _legend(matrix: Matrix) -> str:
    present = {cell.status for cell in matrix.cells}
    lines = [f"- {grid.GLYPHS[each]} {each}: {grid.MEANINGS[each]}." for each in Status if each in present]
    return "\n".join([
        "The time is the median latency of one call at batch size 1; ~ marks a figure that did not settle.", "", *lines
    ])  # fmt: skip


def _causes(matrix: Matrix) -> list[str]:
    """Every cell that is not REAL."""
    if not (causes := grid.causes(matrix)):
        return []
    lines = []
    for cause in causes:
        looked_for = f" Looked for: {safe('; '.join(cause.looked_for))}." if cause.looked_for else ""
        sentence = safe(cause.reason).rstrip(".")
        where = safe(cause.where)
        lines.append(f"- {grid.GLYPHS[cause.status]} **{cause.status}** {where}. {sentence}.{looked_for}")
    return ["## Why cells are not REAL", "\n".join(lines)]


def _logs(matrix: Matrix) -> list[str]:
    """The end of every log that there is."""
    return [
        f"<details><summary>{safe(grid.about(cell.family)[0])} on {safe(cell.backend)}, {cell.precision}: "
        f"end of the {safe(cell.failure.role)}'s log</summary>\n\n{_code(cell.failure.log)}\n\n</details>"
        for cell in matrix.cells
        if cell.failure and cell.failure.log.strip()
    ]


def _notes(matrix: Matrix) -> list[str]:
    """What cells say of their checkpoints, once for every checkpoint."""
    lines = {
        f"- {safe(grid.about(cell.family)[0])}, {safe(units.name(cell.checkpoint))}: {safe(note)}"
        for cell in matrix.cells
        if cell.checkpoint
        for note in cell.notes
    }
    return ["## Notes on checkpoints", "\n".join(sorted(lines))] if lines else []


def _agreement(table: Sequence[Row], columns: Sequence[str]) -> list[str]:
    lines = [
        [safe(row.title), _weights(row), *(_errors(row.cells.get(name, ())) for name in columns)]
        for row in table
        if any(grid.agreement(cell) for cells in row.cells.values() for cell in cells)
    ]
    if not lines:
        return []
    return [
        "## Agreement and its bounds",
        (
            "The largest relative error against the float64 reference, and the bound derived from the precision that "
            "was declared. The other layers of evidence are in `matrix.json`."
        ),
        as_table(("family", "weights", *map(safe, columns)), lines),
    ]


def _errors(cells: Sequence[MatrixCell]) -> str:
    found = []
    for cell in cells:
        check = grid.agreement(cell)
        if check and check.value is not None and check.bound is not None:
            found.append(f"{units.error(check.value)} / {units.error(check.bound)}{_unless_real(cell)}")
    return "<br>".join(found) or NOTHING


def _metrics(matrix: Matrix, table: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """A table for each kind of family, a line for each figure, so that columns can be read across."""
    parts: list[str] = []
    for heading, members in grid.kinds(table):
        lines = [line for row in members for line in _metric_lines(row, columns)]
        if lines:
            parts += [f"### {heading}", as_table(("family", "metric", "unit", *map(safe, columns)), lines)]
    if not parts:
        return []
    several = (
        " Several machines measured, and a figure says as much of its machine as of its column: the first table names "
        "the machine of every cell."
    )
    return [
        "## Metrics",
        (
            "Measured the same way in all columns: medians, with the 95 % interval where a figure was sampled. "
            "A figure of a cell that is not REAL names its status." + (several if grid.machines(matrix) else "")
        ),
        *parts,
    ]


def _unsettled(table: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Why figures with a ~ did not settle, and what kept cells from the processor."""
    cells = [(row.label, name, cell) for row in table for name in columns for cell in row.cells.get(name, ())]
    lines = [
        f"- {safe(label)} on {safe(name)}, {safe(series.replace('_', ' '))}: {reason}"
        for label, name, cell in cells for series, samples in cell.samples.items()
        if series in cell.metrics and not cell.metrics[series].stable and (reason := disturbance(samples))
    ]  # fmt: skip
    lines += [
        f"- {safe(label)} on {safe(name)}: {reason}"
        for label, name, cell in cells if (reason := throttling.disturbance(cell.throttling))
    ]  # fmt: skip
    return ["### What did not settle", "\n".join(lines)] if lines else []


def _metric_lines(row: Row, columns: Sequence[str]) -> Iterable[list[str]]:
    everything = [cell for name in columns for cell in row.cells.get(name, ())]
    names = dict.fromkeys(name for cell in everything for name in cell.metrics)
    for name in names:
        measured = [cell.metrics[name] for cell in everything if name in cell.metrics]
        unit = measured[0].unit
        scale = units.shared_unit(unit, max(each.value for each in measured))
        yield [
            safe(row.label), safe(name.replace("_", " ")), safe(scale[1]),
            *(_figures(row.cells.get(column, ()), name, unit, scale[0]) for column in columns),
        ]  # fmt: skip


def _figures(cells: Sequence[MatrixCell], name: str, unit: str, factor: float) -> str:
    found = []
    for cell, label in zip(cells, grid.labels(cells), strict=True):
        metric = cell.metrics.get(name)
        if metric:
            where = f" ({safe(label)})" if label else ""
            found.append(_figure(metric, unit, factor) + _unless_real(cell) + where)
    return "<br>".join(found) or NOTHING


def _figure(metric: Metric, unit: str, factor: float) -> str:
    if metric.unit != unit:  # another version of assay measured it; never mix units in silence
        return safe(units.figure(metric))
    figure = units.flag(metric) + units.number(metric.value / factor)
    if metric.low is not None and metric.high is not None:
        figure += f" ({units.number(metric.low / factor)}–{units.number(metric.high / factor)})"
    return figure if metric.p99 is None else f"{figure}, p99 {units.number(metric.p99 / factor)}"


def _unless_real(cell: MatrixCell) -> str:
    return "" if cell.status is Status.REAL else f" ({cell.status})"


def _environment(matrix: Matrix) -> list[str]:
    found = grid.sessions(matrix.cells)
    if not found:
        return []
    sessions = [
        [safe(backend), _span(ref.id), safe(ref.started_at[:16].replace("T", " ")), safe(ref.machine.name),
         grid.sustained(ref) or NOTHING,
         safe(ref.environment.python), str(ref.environment.threads), safe(ref.environment.assay),
         safe(", ".join(f"{name} {version}" for name, version in sorted(ref.environment.packages.items()))) or NOTHING]
        for ref, backend, _ in found
    ]  # fmt: skip
    machines = {ref.machine.model_dump_json(): ref.machine for ref, _, _ in found}
    hardware = [
        [safe(each.name), safe(each.system), safe(each.processor), str(each.cores), units.amount(each.memory),
         safe(", ".join(each.devices)) or NOTHING]
        for each in machines.values()
    ]  # fmt: skip
    head = ("backend", "session", "started", "machine", "sustained", "python", "threads", "assay", "packages")
    return [
        "## Environment",
        as_table(head, sessions),
        as_table(("machine", "system", "processor", "cores", "memory", "devices"), hardware),
    ]


def _superseded(matrix: Matrix) -> list[str]:
    if not matrix.superseded:
        return []
    lines = [
        f"- {safe(backend)}, session {_span(ref.id)} of {safe(ref.started_at[:10])} on {safe(ref.machine.name)}: "
        f"{grid.totals(cells)}"
        for ref, backend, cells in grid.sessions(matrix.superseded)
    ]
    return ["## Superseded", "Older results of the same cells, kept in `matrix.json`.", "\n".join(lines)]


def as_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    ruled = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def safe(text: str) -> str:
    """As it is, whatever Markdown and HTML would make of it."""
    escaped = units.plain(text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", escaped)


def _span(text: str) -> str:
    inner = units.plain(text).replace("`", "'").replace("|", "/")
    return f"`{inner}`"


def _code(log: str, lines: int = 20) -> str:
    tail = [units.plain(line) for line in log.splitlines()][-lines:]
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", log)), default=0))
    return "\n".join([f"{fence}text", *tail, fence])
