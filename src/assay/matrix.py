"""The matrix: the merge of session reports, each cell with the session behind it."""

from __future__ import annotations

from typing import Literal

from assay.records import Record, Timestamp
from assay.schema import SCHEMA_VERSION, Cell
from assay.session_report import Environment, Machine, MachinePeak


class SessionRef(Record):
    """The session behind a cell of the matrix."""

    id: str
    started_at: Timestamp
    machine: Machine
    environment: Environment
    peaks: tuple[MachinePeak, ...] = ()


class MatrixCell(Cell):
    """A cell and its session; None where nobody has run it yet."""

    session: SessionRef | None = None


class Matrix(Record):
    """The merge of session reports: `cells` are shown, `superseded` are the others of their keys."""

    schema_version: Literal[1] = SCHEMA_VERSION
    cells: tuple[MatrixCell, ...]
    superseded: tuple[MatrixCell, ...] = ()
    warnings: tuple[str, ...] = ()
