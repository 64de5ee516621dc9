"""CSV and Parquet, by their readers."""

from __future__ import annotations

import csv
import io
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from assay.errors import UsageError
from assay.matrix import Matrix
from assay.report.table import COLUMNS, csv_files, parquet_files, rows
from assay.schema import Status
from tests import strategies as make


def read_parquet(matrix: Matrix) -> pa.Table:
    return parquet.read_table(pa.BufferReader(parquet_files(matrix)["matrix.parquet"]))


def read_csv(matrix: Matrix) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_files(matrix)["matrix.csv"])))


def test_one_row_for_each_cell_and_metric_and_one_for_a_cell_without() -> None:
    matrix = make.full_matrix()
    table = read_parquet(matrix)
    assert table.num_rows == sum(max(1, len(cell.metrics)) for cell in matrix.cells)
    seen = {(row["family"], row["backend"], row["status"]) for row in table.to_pylist()}
    assert seen == {(cell.family, cell.backend, cell.status) for cell in matrix.cells}
    assert {row["status"] for row in table.to_pylist() if row["metric"] is None} == {
        Status.FAILED, Status.UNAVAILABLE, Status.PENDING,
    }  # fmt: skip


def test_figures_times_and_versions_come_back() -> None:
    row = next(each for each in read_parquet(make.full_matrix()).to_pylist() if each["metric"] == "latency")
    assert (row["value"], row["low"], row["high"], row["samples"], row["stable"]) == (
        1.9e-3,
        1.85e-3,
        1.95e-3,
        200,
        True,
    )
    assert (row["unit"], row["better"], row["cores"], row["agreement_error"]) == ("s", "lower", 2, 1e-7)
    assert row["started_at"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert row["packages"] == '{"torch":"2.13.0+cpu"}'


def test_a_column_has_one_name_and_type_whatever_the_matrix_holds() -> None:
    """Files of years lie in one folder and are read as one table: a column of nothing but nulls has its type too."""
    empty = make.matrix(make.report(make.unavailable()))
    assert read_parquet(empty).schema.equals(read_parquet(make.full_matrix()).schema)
    assert read_parquet(empty).column_names == list(COLUMNS)
    both = pa.concat_tables([read_parquet(empty), read_parquet(make.full_matrix())])
    assert both.num_rows == read_parquet(empty).num_rows + read_parquet(make.full_matrix()).num_rows


@settings(max_examples=25)
@given(st.lists(make.reports(), max_size=4))
def test_csv_and_parquet_say_the_same(reports: list[make.SessionReport]) -> None:
    matrix = make.matrix(*reports)
    for mine, theirs in zip(read_csv(matrix), read_parquet(matrix).to_pylist(), strict=True):
        for name, value in theirs.items():
            shown = value.isoformat() if isinstance(value, datetime) else "" if value is None else str(value)
            assert mine[name] == shown, name


def test_another_reader_of_csv_finds_the_types() -> None:
    text = csv_files(make.full_matrix())["matrix.csv"].encode()
    table = arrow_csv.read_csv(io.BytesIO(text), parse_options=arrow_csv.ParseOptions(newlines_in_values=True))
    assert table.num_rows == len(list(rows(make.full_matrix())))
    for name in ("value", "agreement_error"):
        assert pa.types.is_floating(table.schema.field(name).type)
    assert pa.types.is_boolean(table.schema.field("stable").type)


def test_without_pyarrow_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        UsageError, match=r"needs pyarrow, which is not installed here; `python -m pip install pyarrow`"
    ):
        parquet_files(make.full_matrix())
