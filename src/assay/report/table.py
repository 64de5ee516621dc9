"""One row for each cell and metric, under column names that stay: CSV, and Parquet to be kept as history.

A cell without figures has one row without a metric, so that its status is in the history too.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from assay.errors import UsageError
from assay.matrix import Matrix, MatrixCell
from assay.report import grid
from assay.schema import Metric

COLUMNS: Mapping[str, type] = {
    "family": str, "backend": str, "size": str, "precision": str, "device": str, "workloads": str,
    "checkpoint": str, "checkpoint_sha256": str, "checkpoint_source": str, "checkpoint_revision": str,
    "status": str, "reason": str, "agreement_error": float, "agreement_bound": float, "started_at": datetime,
    "metric": str, "value": float, "unit": str, "low": float, "high": float, "samples": int, "stable": bool,
    "better": str,
    "session": str, "machine": str, "system": str, "processor": str, "cores": int, "memory": int, "threads": int,
    "python": str, "assay": str, "packages": str,
}  # fmt: skip
"""Names and types. `workloads` and `packages` are JSON; times are UTC; what is not known is empty (null)."""


def rows(matrix: Matrix) -> Iterator[dict[str, Any]]:
    """The rows, each with every column; superseded cells had theirs when they were shown."""
    for cell in matrix.cells:
        about = _cell(cell) | _session(cell)
        figures: list[dict[str, Any]] = [_metric(name, metric) for name, metric in cell.metrics.items()]
        for figure in figures or [{}]:
            row = about | figure
            yield {name: row.get(name) for name in COLUMNS}


def csv_files(matrix: Matrix) -> dict[str, str]:
    """`matrix.csv`."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows(matrix):
        writer.writerow(
            {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}
        )
    return {"matrix.csv": stream.getvalue()}


def parquet_files(matrix: Matrix) -> dict[str, bytes]:
    """`matrix.parquet`.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed here; `python -m pip install pyarrow`"
        ) from None
    types = {
        str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_(),
        datetime: pa.timestamp("ms", tz="UTC"),
    }  # fmt: skip
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(list(rows(matrix)), schema=schema), sink)
    return {"matrix.parquet": sink.getvalue().to_pybytes()}


def _cell(cell: MatrixCell) -> dict[str, Any]:
    checkpoint, agreement = cell.checkpoint, grid.agreement(cell)
    started = cell.started_at or (cell.session.started_at if cell.session else None)
    found: dict[str, Any] = {
        "family": cell.family, "backend": cell.backend, "size": cell.size, "precision": str(cell.precision),
        "device": cell.device, "workloads": _json([each.model_dump() for each in cell.workloads]),
        "status": str(cell.status), "reason": cell.reason,
        "started_at": datetime.fromisoformat(started).astimezone(UTC) if started else None,
    }  # fmt: skip
    if checkpoint:
        found |= {
            "checkpoint": checkpoint.name, "checkpoint_sha256": checkpoint.sha256,
            "checkpoint_source": checkpoint.source, "checkpoint_revision": checkpoint.revision,
        }  # fmt: skip
    if agreement:
        found |= {"agreement_error": agreement.value, "agreement_bound": agreement.bound}
    return found


def _session(cell: MatrixCell) -> dict[str, Any]:
    if cell.session is None:
        return {}
    machine, software = cell.session.machine, cell.session.environment
    return {
        "session": cell.session.id, "machine": machine.name, "system": machine.system, "processor": machine.processor,
        "cores": machine.cores, "memory": machine.memory, "threads": software.threads, "python": software.python,
        "assay": software.assay, "packages": _json(software.packages),
    }  # fmt: skip


def _metric(name: str, metric: Metric) -> dict[str, Any]:
    return {"metric": name, **metric.model_dump()}


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
