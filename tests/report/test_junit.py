"""`junit.xml`, by its schema and by a reader of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml, Skipped

from assay.matrix import Matrix
from assay.report.junit import files
from assay.schema import Failure as Broken
from assay.schema import Status
from tests import strategies as make

SCHEMA = xmlschema.XMLSchema(Path(__file__).parent / "schemas" / "junit-10.xsd")


def rendered(matrix: Matrix) -> str:
    ((name, text),) = files(matrix).items()
    assert name == "junit.xml"
    return text


def read(matrix: Matrix) -> JUnitXml:
    return JUnitXml.fromstring(rendered(matrix).encode())


def test_every_status_is_a_valid_file_of_a_suite_a_backend_and_a_case_a_cell() -> None:
    matrix = make.full_matrix()
    SCHEMA.validate(rendered(matrix))
    suites = {suite.name: suite for suite in read(matrix)}
    assert list(suites) == ["cpu", "cuda", "openvino", "onnxruntime"]
    assert {len(list(suite)) for suite in suites.values()} == {10}
    assert [(each.tests, each.failures, each.errors, each.skipped) for each in suites.values()] == [
        (10, 0, 0, 0), (10, 0, 0, 10), (10, 4, 1, 5), (10, 0, 0, 10),
    ]  # fmt: skip
    assert len({(case.classname, case.name) for suite in suites.values() for case in suite}) == 40


def test_the_schema_catches_what_is_no_junit() -> None:
    text = rendered(make.full_matrix())
    for broken in (
        text.replace("testcase", "case"),
        text.replace(' name="cpu"', ""),
        text.replace('time="', 'time="x'),
    ):
        with pytest.raises(xmlschema.XMLSchemaValidationError):
            SCHEMA.validate(broken)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.REAL, None), (Status.INACCURATE, Failure), (Status.FALLBACK, Failure), (Status.MOCK, Failure),
        (Status.UNPROVEN, Failure), (Status.FAILED, Error), (Status.UNAVAILABLE, Skipped), (Status.PENDING, Skipped),
    ],
)  # fmt: skip
def test_a_status_is_an_outcome_with_its_cause(status: Status, kind: type | None) -> None:
    matrix = make.full_matrix()
    cell = next(cell for cell in matrix.cells if cell.status is status)
    name = f"{cell.family} on {cell.backend}, tiny, f32"
    case = next(case for suite in read(matrix) for case in suite if case.name == name)
    if kind is None:
        assert case.is_passed and "latency: 1.90 ms" in case.system_out
        return
    (result,) = case.result
    assert isinstance(result, kind)
    assert (result.type, result.message) == (status, cell.reason)
    assert cell.reason in (result.text or "")


def test_a_log_and_what_was_looked_for_are_there_whatever_they_hold() -> None:
    log = "one\x1b[31m red\x00\n<![CDATA[ ]]> & \ufffe \U0001f600"
    failure = Broken(role="runner", phase="run", reason="exit\x01 <1>", log=log)
    matrix = make.matrix(make.report(make.failed(failure=failure), make.unavailable("clip", "cpu")))
    SCHEMA.validate(rendered(matrix))
    cases = {case.name: case.result[0].text for suite in read(matrix) for case in suite if case.result}
    assert "one[31m red\n<![CDATA[ ]]> &  \U0001f600" in cases["bert on cpu, tiny, f32"]
    assert "looked for: libcuda.so.1" in cases["clip on cpu, tiny, f32"]


@settings(max_examples=25)
@given(st.lists(make.reports(), max_size=5))
def test_any_matrix_is_valid_and_no_case_is_lost(reports: list[make.SessionReport]) -> None:
    matrix = make.matrix(*reports)
    SCHEMA.validate(rendered(matrix))
    cases = [(case.classname, case.name) for suite in read(matrix) for case in suite]
    assert len(set(cases)) == len(cases) == len(matrix.cells)
