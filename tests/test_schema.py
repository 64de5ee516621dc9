"""The records: what is written can be read, what is foreign is refused, what is derived is not believed."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from pydantic import ValidationError

from assay.matrix import Matrix
from assay.merge import merge
from assay.schema import Cell, Check, Diagnosis, Evidence, Layer, Metric, Status, Verdict
from assay.session_report import SessionReport
from tests import strategies as make


def dumped(report: SessionReport | None = None) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((report or make.report(make.cell())).model_dump_json())
    return data


@given(make.reports())
def test_a_report_survives_its_file(report: SessionReport) -> None:
    assert SessionReport.model_validate_json(report.model_dump_json()) == report


@given(make.reports())
def test_what_is_written_follows_the_published_schema(report: SessionReport) -> None:
    schema = SessionReport.model_json_schema(mode="serialization")
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(dumped(report))


def test_a_matrix_follows_its_schema() -> None:
    report = make.report(make.cell(), make.failed("clip"), make.unavailable())
    matrix = merge([report, make.report(make.cell(), session="s0", start=-1)], make.FAMILIES, make.BACKENDS)
    schema = Matrix.model_json_schema(mode="serialization")
    jsonschema.Draft202012Validator(schema).validate(json.loads(matrix.model_dump_json()))


def test_the_published_schema_refuses_what_is_not_in_it() -> None:
    validator = jsonschema.Draft202012Validator(SessionReport.model_json_schema(mode="serialization"))
    data = dumped()
    data["cells"][0]["colour"] = "red"
    assert not validator.is_valid(data)


def test_a_consumer_finds_the_promised_keys() -> None:
    report = make.report(make.cell())
    cell = json.loads(merge([report], ["bert"], ["cpu"]).model_dump_json())["cells"][0]
    promised = {
        "family", "backend", "size", "precision", "status", "reason", "checkpoint", "evidence", "metrics", "session",
    }  # fmt: skip
    assert promised <= set(cell)
    assert {"layer", "verdict", "value", "bound", "text"} <= set(cell["evidence"][0])
    assert {"value", "unit", "low", "high", "samples", "stable"} <= set(cell["metrics"]["latency"])
    assert {"sha256", "source"} <= set(cell["checkpoint"])
    assert {"id", "started_at", "machine", "environment"} <= set(cell["session"])


@pytest.mark.parametrize("path", ["", "cells.0", "cells.0.metrics.latency", "cells.0.evidence.0.checks.0", "machine"])
def test_unknown_keys_are_refused_where_they_are(path: str) -> None:
    data = dumped()
    place: Any = data
    parts = tuple(int(part) if part.isdigit() else part for part in path.split(".") if part)
    for part in parts:
        place = place[part]
    place["colour"] = "red"
    with pytest.raises(ValidationError) as caught:
        SessionReport.model_validate(data)
    assert [error["loc"] for error in caught.value.errors()] == [(*parts, "colour")]


def test_a_layer_stands_once_in_a_cell() -> None:
    data = dumped()
    data["cells"][0]["evidence"] *= 2
    with pytest.raises(ValidationError, match="holds a layer more than once"):
        SessionReport.model_validate(data)


def test_stored_words_are_not_believed() -> None:
    cell = make.cell(evidence=make.evidence({(Layer.AGREEMENT, "error"): False}))
    data = dumped(make.report(cell))
    data["cells"][0] |= {"status": "REAL", "reason": "trust me"}
    for evidence in data["cells"][0]["evidence"]:
        evidence |= {"verdict": "passed", "value": 0.0, "bound": 1.0, "text": "trust me"}
        for check in evidence["checks"]:
            check["verdict"] = "passed"
    read = SessionReport.model_validate(data)
    assert read.cells[0] == cell
    assert read.cells[0].status is Status.INACCURATE


def test_what_was_concluded_stays_with_its_record_and_in_no_copy_of_it() -> None:
    cell = make.cell()
    assert (cell.status, cell.evidence[0].verdict) == (Status.REAL, Verdict.PASSED)
    assert dict(cell).keys() == Cell.model_fields.keys()
    assert cell == make.cell()
    failed = cell.evidence[0].model_copy(update={"checks": (make.check("error", passed=False),)})
    copy = cell.model_copy(update={"evidence": (failed, *cell.evidence[1:])})
    assert (copy.status, failed.verdict, cell.status) == (Status.INACCURATE, Verdict.FAILED, Status.REAL)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_figures_are_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Metric(value=value, unit="s")
    with pytest.raises(ValidationError, match="finite"):
        Check(name="error", value=value, bound=1.0, text="")
    with pytest.raises(ValidationError, match="finite"):
        make.cell(seconds=value)


@pytest.mark.parametrize("text", ["yesterday", "2026-01-01", "2026-01-01T00:00:00"])
def test_moments_name_their_time_zone(text: str) -> None:
    with pytest.raises(ValidationError):
        make.report(make.cell(), started_at=text)


@pytest.mark.parametrize(
    ("value", "bound", "sense", "verdict"),
    [
        (1.0, 1.0, "at_most", Verdict.PASSED), (1.1, 1.0, "at_most", Verdict.FAILED),
        (1.0, 1.0, "at_least", Verdict.PASSED), (0.9, 1.0, "at_least", Verdict.FAILED),
        (None, 1.0, "at_most", Verdict.NOT_JUDGED), (1.0, None, "at_most", Verdict.NOT_JUDGED),
    ],
)  # fmt: skip
def test_a_check_compares_its_number_with_its_bound(
    value: float | None, bound: float | None, sense: Any, verdict: Verdict
) -> None:
    assert Check(name="n", value=value, bound=bound, sense=sense, text="t").verdict is verdict


@pytest.mark.parametrize(
    ("checks", "not_judged", "verdict", "text"),
    [
        ((True, True), None, Verdict.PASSED, "0"),
        ((True, None), None, Verdict.NOT_JUDGED, "1"),
        ((None, False), None, Verdict.FAILED, "1"),
        ((True, False), "why not", Verdict.FAILED, "1"),
        ((True,), "why not", Verdict.NOT_JUDGED, "why not"),
        ((), "why not", Verdict.NOT_JUDGED, "why not"),
        ((), None, Verdict.NOT_JUDGED, "no check was made"),
    ],
)  # fmt: skip
def test_a_layer_is_as_good_as_its_worst_check(
    checks: tuple[bool | None, ...], not_judged: str | None, verdict: Verdict, text: str
) -> None:
    made = tuple(make.check(f"c{index}", passed=passed, text=str(index)) for index, passed in enumerate(checks))
    evidence = Evidence(layer=Layer.TIMING, checks=made, not_judged=not_judged)
    assert (evidence.verdict, evidence.text) == (verdict, text)


def test_what_a_diagnosis_concludes_is_derived_from_its_stages() -> None:
    found = make.diagnosis()
    assert found.guilty == "ONNX"
    assert found.text == "the difference enters at exported program or ONNX, first in encoder.layer.1"
    forged = json.loads(found.model_dump_json()) | {"guilty": "torch", "text": "torch did it"}
    assert Diagnosis.model_validate(forged) == found
    nothing = Diagnosis(call="padded", not_examined="killed by SIGKILL")
    assert nothing.text == "where the difference enters is not known: killed by SIGKILL"


def test_no_status_follows_from_a_diagnosis_and_reports_without_one_are_read() -> None:
    real = make.cell(diagnosis=make.diagnosis())
    assert real.status is Status.REAL
    older = json.loads(real.model_dump_json())
    del older["diagnosis"]
    assert Cell.model_validate(older).diagnosis is None
