"""Several precisions in one session, as users run them: real processes, real arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assay.cli import main
from assay.matrix import Matrix
from assay.schema import FLOATS, Cell, Check, Layer, Precision, Status
from assay.session_report import SessionReport
from tests.conftest import Assay, report_in

EPSILON = {Precision.F32: 2.0**-24, Precision.BF16: 2.0**-8, Precision.F16: 2.0**-11}


def error_of(cell: Cell) -> Check:
    """Its error against the reference, with the bound."""
    layer = cell.layer(Layer.AGREEMENT)
    check = layer.check("error") if layer else None
    assert check is not None
    return check


@pytest.fixture(scope="module")
def reports(assay: Assay, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a session of BERT in three precisions on `cpu`."""
    folder = tmp_path_factory.mktemp("reports")
    done = assay("run", "--backend", "cpu", "--family", "bert", "--precision", "f32,bf16", "--precision", "f16",
                 "--reports", folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = {line.partition(":")[0].partition("] ")[2] for line in done.stderr.splitlines() if "REAL" in line}
    assert said == {f"✔ REAL bert on cpu, {each}" for each in FLOATS}
    return folder


@pytest.fixture(scope="module")
def report(reports: Path) -> SessionReport:
    return report_in(reports / "sessions")


def test_each_precision_is_a_cell_that_computed_in_it(report: SessionReport) -> None:
    assert [cell.precision for cell in report.cells] == list(FLOATS)
    assert {cell.status for cell in report.cells} == {Status.REAL}
    assert len({cell.seeds["challenge"] for cell in report.cells}) == 3
    for cell in report.cells:
        agreement, placement = cell.layer(Layer.AGREEMENT), cell.layer(Layer.PLACEMENT)
        assert agreement is not None and placement is not None
        error, executed = agreement.check("error"), placement.check("precision")
        assert executed is not None and executed.text.endswith(f"ran in {cell.precision}")
        assert error is not None and error.value is not None and error.bound is not None
        # Neither as good as a higher precision nor as bad as a lower one.
        assert EPSILON[cell.precision] / 8 < error.value < error.bound < 256 * EPSILON[cell.precision]


def test_judges_agree_about_the_reference_with_a_tolerance_that_is_the_same_in_all(report: SessionReport) -> None:
    sums = {cell.digests[0].sums for cell in report.cells}
    assert len(sums) == 1  # one machine, one reference
    tolerances = [cell.digests[0].tolerance for cell in report.cells]
    assert max(tolerances) < 2 * min(tolerances)


def test_a_merge_has_nothing_to_warn_about(reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", str(reports / "sessions"), "--output", str(tmp_path)]) == 0
    capsys.readouterr()
    matrix = Matrix.model_validate_json((tmp_path / "matrix.json").read_text(encoding="utf-8"))
    # That somebody else used the machine meanwhile is true of the machine, not of the precisions.
    assert [each for each in matrix.warnings if "the machine was disturbed" not in each] == []
    assert matrix.superseded == ()
    ran = [cell for cell in matrix.cells if cell.session]
    assert [(cell.precision, cell.status) for cell in ran] == [(each, Status.REAL) for each in FLOATS]


def test_whoever_goes_on_with_it_finds_nothing_to_do(
    assay: Assay, reports: Path, report: SessionReport
) -> None:  # fmt: skip
    done = assay("run", "--backend", "cpu", "--family", "bert", "--precision", "f16,bf16,f32", "--only-failed",
                 "--reports", reports)  # fmt: skip
    assert done.returncode == 0 and "cpu: 0 cells" in done.stderr
    assert report_in(reports / "sessions").cells == report.cells


def test_the_cell_of_one_precision_is_replayed(assay: Assay, reports: Path, report: SessionReport) -> None:
    path = reports / "sessions" / f"cpu-{report.id}.json"
    done = assay("run", "--backend", "cpu", "--family", "bert", "--precision", "bf16", "--reports", reports,
                 "--replay", path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "assay: replayed: every verdict is the same" in done.stderr
    (after,) = report_in(reports / "replays" / "sessions").cells
    assert (after.precision, after.seeds) == (Precision.BF16, report.cells[1].seeds)


def test_what_a_runtime_has_not_is_unavailable_and_the_rest_runs(assay: Assay, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    arguments = ("run", "--backend", "onnxruntime", "--family", "bert", "--precision", "f32,bf16", "--json")
    done = assay(*arguments, "--reports", tmp_path)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = {cell["precision"]: cell for cell in json.loads(done.stdout)["cells"]}
    assert {precision: cell["status"] for precision, cell in found.items()} == {"f32": "REAL", "bf16": "UNAVAILABLE"}
    assert found["bf16"]["reason"] == "ONNX Runtime's CPU provider has matrix products in f32 alone"
    assert found["bf16"]["unavailable"]["looked_for"] and not found["bf16"]["phases"]
    assert assay(*arguments, "--require-real", "--resume", "--reports", tmp_path).returncode == 1


@pytest.mark.parametrize(("backend", "needed"), [("openvino", "nncf"), ("onnxruntime", "onnxruntime")])
def test_weights_in_int8_are_a_cell_of_their_own_with_a_bound_of_its_own(
    backend: str, needed: str, assay: Assay, tmp_path: Path
) -> None:
    pytest.importorskip(needed)
    done = assay("run", "--backend", backend, "--family", "language-model", "--precision", "f32,int8",
                 "--reports", tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    wide, narrow = report_in(tmp_path / "sessions").cells
    assert (wide.precision, narrow.precision) == (Precision.F32, Precision.INT8)
    assert wide.status is narrow.status is Status.REAL
    for part in ("value", "bound"):
        before, after = (getattr(error_of(cell), part) for cell in (wide, narrow))
        assert after > 1e3 * before  # 24 bits and 8
    assert narrow.metrics["bytes_per_step"].value < 0.6 * wide.metrics["bytes_per_step"].value


def test_torch_has_no_weights_in_int8(assay: Assay, tmp_path: Path) -> None:
    done = assay("run", "--backend", "cpu", "--family", "bert", "--precision", "int8", "--reports", tmp_path)
    assert done.returncode == 0, done.stderr
    (cell,) = report_in(tmp_path / "sessions").cells
    assert cell.status is Status.UNAVAILABLE and cell.reason.endswith(", not in int8")
