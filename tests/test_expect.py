"""Known failures: what is listed, what is refused, and what a run must not find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay import expect
from assay.errors import UsageError
from assay.known_failures import KnownFailure, KnownFailures
from assay.merge import merge
from assay.schema import Cell, Layer, Status
from assay.session_report import SessionReport
from tests import strategies as make

INACCURATE = make.evidence({(Layer.AGREEMENT, "error"): False})
BERT: dict[str, Any] = {"family": "bert", "backend": "cpu", "size": "tiny", "precision": "f32", "status": "FAILED"}


def known(*cells: Cell) -> tuple[KnownFailure, ...]:
    return expect.known_failures(cells).known_failures


def own(name: str, cell: Cell) -> Cell:
    return cell.model_copy(update={"size": "own", "checkpoint": make.checkpoint(name, "path")})


def write(path: Path, record: SessionReport | KnownFailures | Any) -> Path:
    text = json.dumps(record) if isinstance(record, dict) else record.model_dump_json(exclude_none=True)
    path.write_text(text, encoding="utf-8")
    return path


# The list


def test_only_what_is_known_to_fail_is_listed() -> None:
    cells = (make.cell(), make.unavailable("clip"), make.failed("t5"), make.cell("clap", evidence=INACCURATE))
    assert [(each.family, each.status, each.note) for each in known(*cells)] == [
        ("t5", Status.FAILED, "builder, build: killed by SIGSEGV"),
        ("clap", Status.INACCURATE, "error was looked at"),
    ]


def test_only_a_users_checkpoint_is_named() -> None:
    local, mine = make.failed(known=True), own("mine", make.failed(known=True))
    assert [each.checkpoint for each in known(local, mine)] == [None, "mine"]


def test_the_list_is_small_and_survives_its_file(tmp_path: Path) -> None:
    failures = expect.known_failures([make.failed(), own("mine", make.failed("t5"))])
    path = write(tmp_path / "expected.json", failures)
    assert expect.read(path) == failures.known_failures
    data = json.loads(path.read_text())
    assert set(data["known_failures"][0]) == {"family", "backend", "size", "precision", "status", "note"}
    validator = jsonschema.Draft202012Validator(KnownFailures.model_json_schema(mode="serialization"))
    validator.validate(data)


def test_a_matrix_and_its_reports_make_the_same_list(tmp_path: Path) -> None:
    old = make.report(make.failed(), make.failed("clip"), session="old")
    new = make.report(make.cell("clip"), make.unavailable("t5", "cpu"), session="new", start=9)
    (tmp_path / "sessions").mkdir()
    for each in (old, new):
        write(tmp_path / "sessions" / f"{each.id}.json", each)
    matrix = tmp_path / "matrix.json"
    matrix.write_text(merge([old, new], make.FAMILIES, make.BACKENDS).model_dump_json())
    listed = [known(*expect.measured([path])) for path in (matrix, tmp_path / "sessions")]
    assert listed[0] == listed[1]
    assert [each.family for each in listed[0]] == ["bert"]  # and no PENDING cell, and no superseded one


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"name": "foreign"}, "foreign.json: is not a session report of assay"),
        ({"schema_version": 1, "cells": [{}]}, "foreign.json: cells[0].family: missing"),
        ({"schema_version": 1, "known_failures": []}, "is not a session report but a list of known failures"),
    ],
)
def test_a_list_is_made_of_nothing_half_read(tmp_path: Path, content: Any, words: str) -> None:
    good, bad = write(tmp_path / "good.json", make.report(make.cell())), write(tmp_path / "foreign.json", content)
    with pytest.raises(UsageError) as caught:
        expect.measured([bad])
    assert words in str(caught.value)
    with pytest.raises(UsageError, match=r"foreign\.json"):
        expect.measured([good, bad])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"known_failures": []}, "is not a list of known failures of assay: it has no schema_version"),
        ({"schema_version": 2, "known_failures": []}, "schema_version 2 is newer than this assay reads (1)"),
        ({"schema_version": 1}, "is not a list of known failures"),
        (make.report(), "is not a list of known failures but a session report"),
        ({"schema_version": 1, "cells": []}, "is not a list of known failures but a matrix"),
        ({"schema_version": 1, "known_failures": {}}, "known_failures: "),
        ({"schema_version": 1, "known_failures": [{"family": "bert"}]}, "known_failures[0].backend: missing (and 3"),
        ({"schema_version": 1, "known_failures": [BERT | {"colour": "red"}]}, "known_failures[0].colour: unknown key"),
        ({"schema_version": 1, "known_failures": [BERT | {"status": "BROKEN"}]}, "known_failures[0].status: Input"),
        ({"schema_version": 1, "known_failures": [BERT | {"status": "REAL"}]},
         "known_failures[0].status: REAL is no failure: leave the cell out"),
        ({"schema_version": 1, "known_failures": [BERT | {"status": "UNAVAILABLE"}]}, "UNAVAILABLE is no failure"),
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused_in_a_line(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        expect.read(write(tmp_path / "expected.json", content))
    assert str(caught.value).startswith(f"{tmp_path / 'expected.json'}: ")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    (tmp_path / "expected.json").write_text('{"schema_version": 1, "known')
    with pytest.raises(UsageError, match="is not JSON, or was cut off"):
        expect.read(tmp_path / "expected.json")


# What is found


@given(st.lists(make.reports(), max_size=6))
def test_what_was_measured_is_no_surprise(reports: list[SessionReport]) -> None:
    cells = [cell for cell in merge(reports, make.FAMILIES, make.BACKENDS).cells if cell.session]
    assert expect.surprises(cells, known(*cells)) == []


@given(st.lists(make.reports(), max_size=6))
def test_without_a_list_everything_but_real_and_unavailable_is_a_surprise(reports: list[SessionReport]) -> None:
    cells = [cell for report in reports for cell in report.cells]
    bad = [cell for cell in cells if cell.status not in (Status.REAL, Status.UNAVAILABLE)]
    assert len(expect.surprises(cells, ())) == len(bad)
    assert len(expect.surprises(cells, (), require_real=True)) == len([c for c in cells if c.status != "REAL"])


@pytest.mark.parametrize(
    ("failure", "found", "line"),
    [
        (make.failed(), make.failed(known=True), None),
        (make.failed(), make.cell(evidence=INACCURATE), "expected FAILED, found INACCURATE: error was looked at"),
        (make.failed(), make.cell(), "expected FAILED, found REAL, a known failure that has gone"),
        (make.failed("clip"), make.failed(), "expected REAL, found FAILED: builder, build: killed by SIGSEGV"),
        (make.failed(backend="openvino"), make.failed(), "expected REAL, found FAILED: "),
        (make.failed(precision="bf16"), make.failed(), "expected REAL, found FAILED: "),
        (make.failed(size="base"), make.failed(), "expected REAL, found FAILED: "),
    ],
)
def test_another_status_than_expected_is_a_surprise(failure: Cell, found: Cell, line: str | None) -> None:
    lines = expect.surprises([found], known(failure))
    assert len(lines) == (line is not None)
    assert all(each.startswith("bert on cpu (tiny, f32): ") and line and line in each for each in lines)


def test_each_of_the_users_checkpoints_is_known_by_its_name() -> None:
    failures = known(own("red", make.failed(known=True)))
    assert expect.surprises([own("red", make.failed(known=True)), own("blue", make.cell())], failures) == []
    (line,) = expect.surprises([own("blue", make.failed(known=True))], failures)
    assert line.startswith("bert on cpu (blue, own, f32): expected REAL, found FAILED")


def test_a_failure_before_the_checkpoint_was_known_may_be_of_any() -> None:
    early = make.failed(size="own")
    assert expect.surprises([early], known(own("red", make.failed(known=True)))) == []
    assert expect.surprises([own("red", make.failed(known=True))], known(early)) == []
    assert len(expect.surprises([own("red", make.cell())], known(early))) == 1


def test_on_several_machines_a_failure_need_be_found_on_one() -> None:
    here, there = make.cell(device="one"), make.failed(device="two", known=True)
    failures = known(there)
    assert expect.surprises([here, there], failures) == []
    assert len(expect.surprises([here], failures)) == 1


def test_a_surprise_is_one_line_whatever_the_reason() -> None:
    cell = make.failed()
    assert cell.failure is not None
    spoilt = cell.model_copy(update={"failure": cell.failure.model_copy(update={"reason": "a\nb\x1b[2J"})})
    (line,) = expect.surprises([spoilt], ())
    assert line.isprintable()
