"""Sessions as users run them: real processes, real runtimes, and backends that misbehave."""

from __future__ import annotations

import json
from pathlib import Path

from assay import families
from assay.schema import Status
from tests.conftest import Assay, report_in

FAULTY = "clip"


THIRD_PARTY = Status.UNPROVEN
"""The best that a backend of another package can be: its trace is its own."""


def test_a_crash_costs_one_cell_alone(assay: Assay, tmp_path: Path) -> None:
    chosen = ("bert", FAULTY, "llama")
    done = assay("run", "--backend", "crashing", "--family", ",".join(chosen), "--reports", tmp_path)
    assert done.returncode == 1
    cells = {cell.family: cell for cell in report_in(tmp_path / "sessions").cells}
    assert {family: cell.status for family, cell in cells.items()} == {
        "bert": THIRD_PARTY, FAULTY: Status.FAILED, "llama": THIRD_PARTY,
    }  # fmt: skip
    failure = cells[FAULTY].failure
    assert failure is not None
    assert (failure.role, failure.phase, failure.signal) == ("runner", "load", "SIGSEGV")
    assert "about to fall over" in failure.log


def test_a_hang_is_killed_at_its_limit_and_named(assay: Assay, tmp_path: Path) -> None:
    chosen = f"bert,{FAULTY}"
    done = assay("run", "--backend", "hanging", "--family", chosen, "--timeout", "45", "--reports", tmp_path)
    assert done.returncode == 1
    cells = {cell.family: cell for cell in report_in(tmp_path / "sessions").cells}
    assert cells["bert"].status is THIRD_PARTY
    failure = cells[FAULTY].failure
    assert failure is not None
    assert (failure.role, failure.phase, failure.signal) == ("runner", "compile", "SIGKILL")
    assert "within 45 s" in failure.reason


def test_missing_software_is_failed_and_not_unavailable(assay: Assay, tmp_path: Path) -> None:
    done = assay("run", "--backend", "homeless", "--family", "bert", "--reports", tmp_path)
    assert done.returncode == 1
    (cell,) = report_in(tmp_path / "sessions").cells
    assert cell.status is Status.FAILED
    assert "a_runtime_that_is_not_installed" in cell.reason


def test_resume_runs_only_what_is_missing(assay: Assay, tmp_path: Path) -> None:
    command = ("run", "--backend", "cpu", "--family", "bert,t5", "--reports", tmp_path)
    assert assay(*command).returncode == 0
    (path,) = (tmp_path / "sessions").glob("*.json")
    report = json.loads(path.read_text(encoding="utf-8"))
    kept = report["cells"].pop(0)
    report["cells"] = [kept]
    path.write_text(json.dumps(report), encoding="utf-8")
    assert assay(*command, "--resume").returncode == 0
    again = report_in(tmp_path / "sessions")
    assert [cell.family for cell in again.cells] == ["bert", "t5"]
    assert again.cells[0].started_at == kept["started_at"]
    assert again.cells[1].started_at is not None and again.cells[1].started_at > kept["started_at"]


def test_an_absent_device_leaves_unavailable_cells_without_starting_anything(assay: Assay, tmp_path: Path) -> None:
    done = assay("run", "--backend", "cuda", "--reports", tmp_path, env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0
    cells = report_in(tmp_path / "sessions").cells
    assert [cell.family for cell in cells] == list(families.ORDER)
    for cell in cells:
        assert cell.status is Status.UNAVAILABLE
        assert cell.unavailable is not None and cell.unavailable.looked_for
        assert cell.phases == ()
