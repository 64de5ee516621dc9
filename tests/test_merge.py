"""Merging: a pure function of the set of reports, and files that are refused by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from assay import backends
from assay.matrix import Matrix, MatrixCell
from assay.merge import merge
from assay.schema import Cell, Digest, Layer, Precision, Status, Throttling
from assay.session_report import SessionReport
from tests import strategies as make

FAMILIES, BACKENDS = make.FAMILIES, make.BACKENDS
several = st.lists(make.reports(), max_size=6)


def merged(*reports: SessionReport) -> Matrix:
    return merge(reports, FAMILIES, BACKENDS)


def at(matrix: Matrix, family: str = "bert", backend: str = "cpu", size: str = "tiny") -> list[MatrixCell]:
    """The cells of one place."""
    return [each for each in matrix.cells if (each.family, each.backend, each.size) == (family, backend, size)]


def sessions(cells: Sequence[MatrixCell]) -> list[str]:
    return [cell.session.id for cell in cells if cell.session]


# Properties


@given(several, st.randoms(use_true_random=False))
def test_order_and_copies_change_nothing(reports: list[SessionReport], random: Any) -> None:
    shuffled = [*reports, *random.choices(reports, k=3)] if reports else []
    random.shuffle(shuffled)
    assert merged(*shuffled) == merged(*reports)


@given(several, several)
def test_unions_may_be_taken_in_any_order(left: list[SessionReport], right: list[SessionReport]) -> None:
    assert merged(*left, *right) == merged(*right, *left) == merged(*right, *left, *right)


@given(several)
def test_nothing_is_lost_and_nothing_is_made_up(reports: list[SessionReport]) -> None:
    matrix = merged(*reports)
    kept = {(cell.session.id, json.dumps(observed(cell))) for cell in whole(matrix) if cell.session}
    largest = {report.id: max(len(each.cells) for each in reports if each.id == report.id) for report in reports}
    assert len([cell for cell in whole(matrix) if cell.session]) == sum(largest.values())
    made = {(report.id, json.dumps(observed(cell))) for report in reports for cell in report.cells}
    assert kept <= made


@given(several)
def test_no_place_is_empty_or_shown_twice(reports: list[SessionReport]) -> None:
    matrix = merged(*reports)
    for family in FAMILIES:
        for backend in BACKENDS:
            assert any((cell.family, cell.backend) == (family, backend) for cell in matrix.cells)
    keys = [
        (cell.family, cell.backend, cell.size, cell.precision, cell.checkpoint and cell.checkpoint.sha256,
         cell.workloads, cell.device, cell.session.machine.name if cell.session and not cell.checkpoint else "")
        for cell in matrix.cells
    ]  # fmt: skip
    assert len(keys) == len(set(keys))


@given(several)
def test_absence_never_covers_a_judged_cell(reports: list[SessionReport]) -> None:
    matrix = merged(*reports)
    places = {(cell.family, cell.backend, cell.size, cell.precision) for cell in whole(matrix) if judged(cell)}
    for cell in matrix.cells:
        place = (cell.family, cell.backend, cell.size, cell.precision)
        if cell.session and not judged(cell):
            assert place not in places
    shown = {(cell.family, cell.backend, cell.size, cell.precision) for cell in matrix.cells if judged(cell)}
    assert shown == places


@given(st.lists(make.reports(), max_size=6, unique_by=lambda report: report.id), st.sampled_from(list(Precision)))
def test_what_is_shown_of_one_precision_does_not_depend_on_the_others(
    reports: list[SessionReport], precision: Precision
) -> None:
    """Reports of several precisions are merged as if each precision had had reports of its own."""
    alone = [
        report.model_copy(update={"cells": tuple(cell for cell in report.cells if cell.precision is precision)})
        for report in reports
    ]

    def ran(matrix: Matrix, of: str) -> list[dict[str, Any]]:
        cells: tuple[MatrixCell, ...] = getattr(matrix, of)
        return [observed(cell) for cell in cells if cell.session and cell.precision is precision]

    for of in ("cells", "superseded"):
        assert ran(merged(*reports), of) == ran(merged(*alone), of)


@given(several)
def test_a_matrix_survives_its_file(reports: list[SessionReport]) -> None:
    matrix = merged(*reports)
    assert Matrix.model_validate_json(matrix.model_dump_json()) == matrix


def whole(matrix: Matrix) -> tuple[MatrixCell, ...]:
    return (*matrix.cells, *matrix.superseded)


def observed(cell: Cell) -> dict[str, Any]:
    return cell.model_dump(mode="json", include=set(Cell.model_fields))


def judged(cell: Cell) -> bool:
    return bool(cell.evidence) or cell.failure is not None


# Which cell is shown


def test_the_newest_wins_and_the_other_is_kept() -> None:
    matrix = merged(make.report(make.cell(), session="new", start=9), make.report(make.cell(), session="old"))
    assert sessions(at(matrix)) == ["new"]
    assert sessions(matrix.superseded) == ["old"]


def test_a_newer_bad_result_is_shown_too() -> None:
    mock = make.cell(evidence=make.evidence({(Layer.AGREEMENT, "follows_inputs"): False}))
    matrix = merged(make.report(mock, session="new", start=9), make.report(make.cell(), session="old"))
    assert [cell.status for cell in at(matrix)] == [Status.MOCK]
    matrix = merged(make.report(make.failed(known=True), session="new", start=9), make.report(make.cell()))
    assert [cell.status for cell in at(matrix)] == [Status.FAILED]


def test_of_the_same_moment_the_later_session_id_wins() -> None:
    matrix = merged(make.report(make.cell(), session="b"), make.report(make.cell(), session="a"))
    assert sessions(at(matrix)) == ["b"]


def test_times_of_other_zones_are_compared_as_times() -> None:
    early = make.cell(started_at="2026-01-01T12:00:00+05:00")
    late = make.cell(started_at="2026-01-01T08:00:00Z")
    matrix = merged(make.report(late, session="late"), make.report(early, session="early"))
    assert sessions(at(matrix)) == ["late"]


def test_other_devices_and_workloads_stand_beside_each_other() -> None:
    matrix = merged(
        make.report(make.cell(device="one"), session="1"), make.report(make.cell(device="two"), session="2"),
        make.report(make.cell(workloads=make.WORKLOADS[:1]), session="3"),
    )  # fmt: skip
    assert sorted(sessions(at(matrix))) == ["1", "2", "3"]
    assert not matrix.superseded


def test_absence_on_a_newer_machine_covers_nothing() -> None:
    run = make.report(make.cell(backend="cuda"), session="run", machine=make.on("gpu"))
    absent = make.report(make.unavailable(), session="absent", start=99, machine=make.on("laptop"))
    matrix = merged(run, absent)
    assert [cell.status for cell in at(matrix, backend="cuda")] == [Status.REAL]
    assert sessions(matrix.superseded) == ["absent"]


def test_absence_is_one_cell_whatever_rows_it_stands_in() -> None:
    other = make.report(make.cell(checkpoint=make.checkpoint("other")), session="s2")
    matrix = merged(make.report(make.cell()), other, make.report(make.unavailable(), session="s3"))
    assert [cell.status for cell in at(matrix, backend="cuda")] == [Status.UNAVAILABLE]


def test_absence_says_more_than_a_cell_that_holds_nothing() -> None:
    blank = make.unavailable().model_copy(update={"unavailable": None})
    matrix = merged(make.report(make.unavailable()), make.report(blank, session="s2", start=9))
    assert [cell.status for cell in at(matrix, backend="cuda")] == [Status.UNAVAILABLE]


def test_an_early_failure_speaks_for_its_own_machine_alone() -> None:
    here = make.report(make.cell(), session="here")
    there = make.report(make.cell(device="other"), session="there", machine=make.on("tower"))
    broken = make.report(make.failed(), session="broken", start=9)
    matrix = merged(here, there, broken)
    assert {cell.session.id: cell.status for cell in at(matrix) if cell.session} == {
        "there": Status.REAL, "broken": Status.FAILED,
    }  # fmt: skip
    assert sessions(matrix.superseded) == ["here"]
    mended = make.report(make.cell(), session="mended", start=20)
    assert set(sessions(at(merged(here, there, broken, mended)))) == {"there", "mended"}


def test_an_early_failure_does_not_cover_the_same_device_elsewhere() -> None:
    real = make.report(make.cell(), session="real")
    broken = make.report(make.failed(), session="broken", start=9, machine=make.on("tower"))
    assert Status.REAL in [cell.status for cell in at(merged(real, broken))]


def test_an_early_failure_of_one_of_the_users_checkpoints_covers_no_other() -> None:
    own = make.checkpoint("mine", "path")
    real = make.report(make.cell(size="own", checkpoint=own), session="real")
    broken = make.report(make.failed(size="own"), session="broken", start=9)
    assert {cell.status for cell in at(merged(real, broken), size="own")} == {Status.REAL, Status.FAILED}


def test_of_two_copies_of_a_session_the_fuller_then_the_later_counts() -> None:
    half = make.report(make.cell(), finished_at=None)
    full = make.report(make.cell(), make.cell("clip"))
    assert merged(half, full) == merged(full)
    assert merged(make.report(make.cell(), finished_at=make.moment(99)), half) == merged(
        make.report(make.cell(), finished_at=make.moment(99))
    )


# Cells that nobody ran, and order


def test_with_nothing_everything_is_pending() -> None:
    matrix = merged()
    assert [(cell.family, cell.backend) for cell in matrix.cells] == [
        ("bert", "cpu"), ("bert", "cuda"), ("clip", "cpu"), ("clip", "cuda"),
    ]  # fmt: skip
    assert {(cell.status, cell.size, cell.precision) for cell in matrix.cells} == {
        (Status.PENDING, "tiny", Precision.F32)
    }


def test_a_user_checkpoint_gets_its_own_row_and_no_other_family_does() -> None:
    own = make.cell(size="own", checkpoint=make.checkpoint("mine", "path"))
    matrix = merged(make.report(own), make.report(make.cell(), session="s2"))
    assert [(cell.family, cell.size, cell.backend, cell.status) for cell in matrix.cells] == [
        ("bert", "tiny", "cpu", Status.REAL), ("bert", "tiny", "cuda", Status.PENDING),
        ("bert", "own", "cpu", Status.REAL), ("bert", "own", "cuda", Status.PENDING),
        ("clip", "tiny", "cpu", Status.PENDING), ("clip", "tiny", "cuda", Status.PENDING),
    ]  # fmt: skip
    assert at(matrix, backend="cuda", size="own")[0].checkpoint == own.checkpoint


def test_rows_and_columns_that_are_not_installed_here_follow() -> None:
    matrix = merged(make.report(make.cell("bert", "abacus"), make.cell("aardvark", "abacus")))
    assert list(dict.fromkeys(cell.family for cell in matrix.cells)) == ["bert", "clip", "aardvark"]
    assert [cell.backend for cell in matrix.cells][:3] == ["cpu", "cuda", "abacus"]
    assert len(matrix.cells) == 9


def test_a_column_on_demand_stands_there_when_it_ran_and_then_last() -> None:
    assert {cell.backend for cell in make.matrix(make.report(make.cell())).cells} == set(backends.columns())
    matrix = make.matrix(make.report(make.cell(backend="cpu-compile")))
    assert list(dict.fromkeys(cell.backend for cell in matrix.cells)) == [*backends.columns(), "cpu-compile"]
    assert {cell.status for cell in at(matrix, "clip", "cpu-compile")} == {Status.PENDING}


# Warnings


def test_test_models_that_differ_are_apart_and_named() -> None:
    red, blue = make.checkpoint("red"), make.checkpoint("blue")
    matrix = merged(
        make.report(make.cell(checkpoint=red)), make.report(make.cell(backend="cuda", checkpoint=blue), session="s2")
    )
    (warning,) = matrix.warnings
    for word in ("bert", "tiny", f"{red.sha256[:8]} in cpu", f"{blue.sha256[:8]} in cuda"):
        assert word in warning
    assert [cell.status for cell in matrix.cells if cell.family == "bert"].count(Status.PENDING) == 2


def test_user_checkpoints_may_differ() -> None:
    cells = [make.cell(size="own", checkpoint=make.checkpoint(name, "path")) for name in ("red", "blue")]
    assert not merged(make.report(*cells)).warnings


def test_columns_with_another_torch_are_named_but_not_other_builds_of_it() -> None:
    def session(backend: str, version: str) -> SessionReport:
        environment = make.report().environment.model_copy(update={"packages": {"torch": version}})
        return make.report(make.cell(backend=backend), session=backend, environment=environment)

    assert not merged(session("cpu", "2.13.0+cpu"), session("cuda", "2.13.0")).warnings
    (warning,) = merged(session("cpu", "2.12.0"), session("cuda", "2.13.0")).warnings
    assert warning == "torch differs between columns: 2.12.0 in cpu; 2.13.0 in cuda"


def test_judges_that_disagree_about_one_checkpoint_are_named() -> None:
    def session(backend: str, total: float, **changes: Any) -> SessionReport:
        digest = Digest(output="logits", sums=(1.0, total), tolerance=1e-13)
        return make.report(make.cell(backend=backend, digests=(digest,), **changes), session=backend)

    close, far = session("cuda", 2 + 1.5e-13), session("openvino", 2 + 1e-9)
    assert not merged(session("cpu", 2.0), close).warnings
    (warning,) = merged(far, session("cpu", 2.0), close).warnings
    sha = make.checkpoint("bert-tiny").sha256[:8]
    environment = "(torch 2.13.0+cpu, on box)"
    assert warning == (
        f"bert, tiny, model {sha}: the judges disagree about the reference: "
        f"cpu {environment}, cuda {environment}; openvino {environment}"
    )
    other = session("openvino", 3.0, checkpoint=make.checkpoint("other", "path"))
    assert not merged(session("cpu", 2.0), other).warnings


# Files


def test_a_session_whose_cells_were_kept_from_the_processor_is_named_once() -> None:
    report = make.report(
        make.cell(throttling=Throttling(seconds=2.0, stolen=0.2, heat=0.0)),
        make.cell("clip", throttling=Throttling(seconds=2.0, quota=0.5)),
        make.cell("t5", throttling=Throttling(seconds=2.0, stolen=0.1)),
    )
    (warning,) = make.matrix(report).warnings
    assert warning == (
        "cpu on box, 2026-01-01T00:00: the machine was disturbed, clip: of the time in which it was timed 25.0% was "
        "stopped by the quota of the control group, and 1 other cell"
    )
