"""The matrix: the merge of session reports, each cell with the session behind it."""

from __future__ import annotations

from typing import Literal, Self

from assay.records import Record, Timestamp
from assay.schema import SCHEMA_VERSION, Cell
from assay.session_report import Environment, Machine, MachinePeak


class SessionRef(Record):
    """The session behind a cell of the matrix; `asked_device` is what `--device` said."""

    id: str
    asked_device: str | None = None
    started_at: Timestamp
    machine: Machine
    environment: Environment
    peaks: tuple[MachinePeak, ...] = ()


class MatrixCell(Cell):
    """A cell and its session; None where nobody has run it yet."""

    session: SessionRef | None = None

    @classmethod
    def of(cls, cell: Cell, session: SessionRef) -> Self:
        """A cell that was read, and so validated, with its session; what it has concluded is kept."""
        made = cls.__new__(cls)
        # As pickling makes one again: to validate every field once more takes as long as all else of a merge.
        made.__setstate__(cell.__getstate__() | {
            "__dict__": cell.__dict__ | {"session": session},
            "__pydantic_fields_set__": cell.model_fields_set | {"session"},
        })  # fmt: skip
        return made


class Matrix(Record):
    """The merge of session reports: `cells` are shown, `superseded` are the others of their keys."""

    schema_version: Literal[1] = SCHEMA_VERSION
    cells: tuple[MatrixCell, ...]
    superseded: tuple[MatrixCell, ...] = ()
    warnings: tuple[str, ...] = ()
