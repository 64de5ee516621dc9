"""A badge for each row and each column, to be shown in a README: words first, colour beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from assay.matrix import Matrix, MatrixCell
from assay.report import grid, units
from assay.schema import Status

GREEN, RED, GREY = "#2e7d32", "#b71c1c", "#616161"
"""White text on each has a contrast of more than 5:1 (WCAG AA asks for 4.5:1)."""
HEIGHT, PADDING, PER_CHARACTER = 20, 8, 6.6
"""Pixels. Text is stretched to the width that is kept for it, whatever font the reader has."""


def files(matrix: Matrix) -> dict[str, str]:
    """`badges/column-BACKEND.svg`, `badges/row-FAMILY-SIZE-PRECISION.svg`; a user's checkpoint adds its hash."""
    found = {}
    for backend in grid.columns(matrix):
        cells = [cell for cell in matrix.cells if cell.backend == backend]
        found[_path("column", backend)] = svg(units.plain(backend), _column(cells), _colour(cells))
    for row in grid.rows(matrix):
        own = [] if row.checkpoint is None or not row.model else [units.weights(row.checkpoint)]
        label = " ".join((row.title, row.model.rpartition(" ")[0] if own else units.plain(row.size), row.precision))
        everything = [cell for cells in row.cells.values() for cell in cells]
        path = _path("row", row.family, row.size, row.precision, *own)
        found[path] = svg(label, _row(row.cells), _colour(everything))
    return found


def _path(*parts: str) -> str:
    """A report may name anything: what is no letter, digit or dot becomes a hyphen."""
    return f"badges/{'-'.join(re.sub(r'[^A-Za-z0-9.]+', '-', part).strip('-.') for part in parts)}.svg"


def _column(cells: Sequence[MatrixCell]) -> str:
    """`10 of 10 REAL`, of the cells that could be judged; else the one thing that is to be said."""
    judged = [cell for cell in cells if cell.status not in (Status.UNAVAILABLE, Status.PENDING)]
    if not judged:
        return " and ".join(dict.fromkeys(str(cell.status) for cell in cells))
    return f"{sum(cell.status is Status.REAL for cell in judged)} of {len(judged)} REAL"


def _row(cells: Mapping[str, Sequence[MatrixCell]]) -> str:
    """`REAL on cpu, openvino · FAILED on onnxruntime`; what nobody could run is left out."""
    where: dict[Status, list[str]] = {status: [] for status in Status}
    for backend, mine in cells.items():
        for status in dict.fromkeys(cell.status for cell in mine):
            where[status].append(units.plain(backend))
    found = [status for status in Status if where[status]]
    shown = [status for status in found if status not in (Status.UNAVAILABLE, Status.PENDING)] or found
    return " · ".join(f"{status} on {', '.join(where[status])}" for status in shown)


def _colour(cells: Iterable[MatrixCell]) -> str:
    judged = {cell.status for cell in cells} - {Status.UNAVAILABLE, Status.PENDING}
    return GREY if not judged else GREEN if judged == {Status.REAL} else RED


def svg(label: str, message: str, colour: str) -> str:
    """One badge; the whole of it is read aloud as `label: message`."""
    left, right = (round(len(text) * PER_CHARACTER) + 2 * PADDING for text in (label, message))
    title = escape(f"{label}: {message}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{HEIGHT}" role="img"'
        f' aria-label="{title}">\n<title>{title}</title>\n'
        f'<rect width="{left}" height="{HEIGHT}" fill="#424242"/>'
        f'<rect x="{left}" width="{right}" height="{HEIGHT}" fill="{colour}"/>\n'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f"{_written(label, PADDING, left)}{_written(message, left + PADDING, right)}</g>\n</svg>\n"
    )


def _written(text: str, start: int, width: int) -> str:
    return f'<text x="{start}" y="14" textLength="{width - 2 * PADDING}">{escape(text)}</text>'
