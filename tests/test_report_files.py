"""Files that are read, and files that are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assay.errors import UsageError
from assay.matrix import Matrix
from assay.report_files import read, read_matrix
from assay.schema import Layer, Status
from assay.session_report import SessionReport
from tests import strategies as make


def write(path: Path, report: SessionReport | Matrix, **changes: Any) -> Path:
    data = json.loads(report.model_dump_json()) | changes
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_files_and_folders_are_read_once(tmp_path: Path) -> None:
    report = make.report(make.cell())
    path = write(tmp_path / "a.json", report)
    (tmp_path / "notes.txt").write_text("not mine")
    assert read([tmp_path, path, tmp_path]) == ([report], [])


def test_a_tampered_status_is_ignored(tmp_path: Path) -> None:
    mock = make.cell(evidence=make.evidence({(Layer.WEIGHTS, "follows_weights"): False}))
    data = json.loads(make.report(mock).model_dump_json())
    data["cells"][0]["status"] = "REAL"
    for layer in data["cells"][0]["evidence"]:
        layer["verdict"] = "passed"
        for check in layer["checks"]:
            check["verdict"] = "passed"
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    reports, problems = read([path])
    assert not problems
    assert [cell.status for cell in make.matrix(*reports).cells if cell.session] == [Status.MOCK]


def broken(data: dict[str, Any], *path: Any, value: Any) -> bytes:
    place = data
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON, or was cut off"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"[1, 2", "is not JSON, or was cut off"),
        (b"[" * 100_000, "recursion limit exceeded"),
        (b"[]", "is not a session report of assay"),
        (b'{"name": "package"}', "it has no schema_version"),
        (b'{"schema_version": 2}', "schema_version 2 is newer than this assay reads (1)"),
        (b'{"schema_version": "1"}', "schema_version: should be a whole number"),
        (b'{"schema_version": 1}', "is not a session report"),
        (lambda data: json.dumps(data).encode()[:-50], "was cut off"),
        (lambda data: broken(data, "cells", 0, "metrics", "latency", "value", value="fast"),
         "cells[0].metrics.latency.value: "),
        (lambda data: broken(data, "cells", 0, "metrics", "latency", "colour", value="red"),
         "cells[0].metrics.latency.colour: unknown key"),
        (lambda data: broken(data, "cells", 0, "evidence", 1, "checks", 0, "value", value=float("nan")),
         "cells[0].evidence[1].checks[0].value: Input should be a finite number"),
        (lambda data: broken(data, "cells", 0, "samples", "latency", 2, value=1e999),
         "cells[0].samples.latency[2]: Input should be a finite number"),
        (lambda data: broken(data, "cells", 0, "checkpoint", "sha256", value="abc"), "cells[0].checkpoint.sha256: "),
        (lambda data: broken(data, "started_at", value="yesterday"), "started_at: "),
        (lambda data: broken(data, "started_at", value="2026-01-01"), "started_at: must name its time zone"),
        (lambda data: broken(data, "schema_version", value=0), "schema_version: "),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_and_skipped(tmp_path: Path, content: Any, reason: str) -> None:
    good = make.report(make.cell())
    if callable(content):
        content = content(json.loads(make.report(make.cell(), session="s2").model_dump_json()))
    (tmp_path / "bad.json").write_bytes(content)
    write(tmp_path / "good.json", good)
    reports, problems = read([tmp_path])
    assert reports == [good]
    (problem,) = problems
    assert problem.path == tmp_path / "bad.json"
    assert "\n" not in problem.reason
    assert reason in problem.reason


def test_a_matrix_is_no_session_report_and_the_other_way_round(tmp_path: Path) -> None:
    report = make.report(make.cell())
    matrix = write(tmp_path / "matrix.json", make.matrix(report))
    session = write(tmp_path / "session.json", report)
    assert [str(problem) for problem in read([matrix])[1]] == [f"{matrix}: is not a session report but a matrix"]
    with pytest.raises(UsageError, match="is not a matrix but a session report"):
        read_matrix(session)
    with pytest.raises(UsageError, match="no such file"):
        read_matrix(tmp_path / "nothing.json")
    assert read_matrix(matrix) == make.matrix(report)


def test_a_path_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    ((problem,), reports) = (read([tmp_path / "none.json"])[1], read([tmp_path / "none.json"])[0])
    assert not reports
    assert problem.reason == "cannot be read: No such file or directory"
