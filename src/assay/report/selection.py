"""Which part of a matrix is shown, with which figure, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay.errors import UsageError, unknown
from assay.matrix import Matrix
from assay.report import grid
from assay.report.grid import Row
from assay.schema import Metric

LATENCY = "latency"


@dataclass(frozen=True)
class Selection:
    """What is asked for.

    Attributes:
        families, backends: rows and columns to keep; all if there are none.
        metric: the figure beside each status.
        sort: a column by whose figure rows are ordered, the best first.
    """

    families: Sequence[str] = ()
    backends: Sequence[str] = ()
    metric: str = LATENCY
    sort: str | None = None

    def of(self, matrix: Matrix) -> Matrix:
        """The matrix with the cells that are kept.

        Raises:
            UsageError: the matrix has no such family, backend or metric, or nothing of that family on that backend.
        """
        _known("family", self.families, {cell.family for cell in matrix.cells})
        _known("backend", [*self.backends, *([self.sort] if self.sort else [])], set(grid.columns(matrix)))
        _known("metric", [self.metric], {LATENCY} | {name for cell in matrix.cells for name in cell.metrics})
        if not (self.families or self.backends):
            return matrix
        kept, superseded = (
            tuple(
                cell for cell in cells
                if (not self.families or cell.family in self.families)
                and (not self.backends or cell.backend in self.backends)
            )
            for cells in (matrix.cells, matrix.superseded)
        )  # fmt: skip
        if not kept:
            raise UsageError(f"the matrix has no cell of {', '.join(self.families)} on {', '.join(self.backends)}")
        return matrix.model_copy(update={"cells": kept, "superseded": superseded})

    def ordered(self, rows: Sequence[Row]) -> list[Row]:
        """The rows as they are, or by the figure of a column; those without one come last."""
        if self.sort is None:
            return list(rows)
        return sorted(rows, key=lambda row: self._rank(row, str(self.sort)))

    def _rank(self, row: Row, column: str) -> float:
        found = (cell.metrics.get(self.metric) for cell in row.cells.get(column, ()))
        return min((_badness(metric) for metric in found if metric), default=float("inf"))


def _badness(metric: Metric) -> float:
    return -metric.value if metric.better == "higher" else metric.value


def _known(kind: str, names: Sequence[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
