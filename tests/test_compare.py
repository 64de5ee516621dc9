"""`assay compare`: which cells are paired, what is a regression, and what is not compared."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay import families
from assay.cli import main
from assay.compare import Comparison, Side, compare, read
from assay.matrix import Matrix, MatrixCell
from assay.merge import merge
from assay.pairing import pairs
from assay.schema import Cell, Check, Layer, Metric, Precision, Status
from assay.session_report import SessionReport
from assay.status import conclude
from tests import strategies as make

REAL = make.evidence()
MOCK = make.evidence({(Layer.AGREEMENT, "follows_inputs"): False})
NAMES = families.names()


def side(*reports: SessionReport) -> Side:
    return Side(make.matrix(*reports), None)


def between(before: Sequence[Cell], after: Sequence[Cell]) -> Comparison:
    return compare(side(make.report(*before, session="old")), side(make.report(*after, session="new", start=9)))


def timed(family: str, seconds: float, backend: str = "cpu") -> Cell:
    """A cell whose fastest call took so long, and the others longer."""
    samples = tuple(seconds * factor for factor in (1.3, 1.0, 1.1, 1.7, 1.2, 1.05))
    metrics = {
        "latency": Metric(value=1.15 * seconds, unit="s", low=seconds, high=1.7 * seconds, samples=6),
        "tokens_per_second": Metric(value=16 / seconds, unit="tokens/s", samples=6, better="higher"),
        "dimension": Metric(value=64, unit="dimensions", better="neither"),
        "export_time": Metric(value=7.5, unit="s"),
    }
    return make.cell(family, backend, metrics=metrics, samples={"latency": samples})


def runs(count: int, seed: int, noise: float, changed: dict[str, float]) -> list[SessionReport]:
    """So many runs of all families, each figure off by the noise."""
    draw = random.Random(seed)
    return [
        make.report(
            *(timed(name, 1e-3 * changed.get(name, 1.0) * draw.lognormvariate(0, noise)) for name in NAMES),
            session=f"{seed}-{index}", start=index,
        )
        for index in range(count)
    ]  # fmt: skip


def found(comparison: Comparison) -> list[tuple[str, str]]:
    return [(each.cell.split()[0], each.verdict) for each in comparison.metrics if each.verdict]


# Statuses


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (make.cell(), make.cell(evidence=MOCK), "regression"),
        (make.cell(), make.failed(), "regression"),
        (make.cell(), make.failed(known=True), "regression"),
        (make.cell(), make.unavailable(backend="cpu"), "regression"),
        (make.failed(), make.cell(), "improvement"),
        (make.unavailable(backend="cpu"), make.cell(), "improvement"),
        (make.cell(evidence=MOCK), make.failed(), "change"),
        (make.unavailable(backend="cpu"), make.failed(), "change"),
    ],
)  # fmt: skip
def test_real_to_anything_is_a_regression_and_to_real_an_improvement(before: Cell, after: Cell, verdict: str) -> None:
    comparison = between([before], [after])
    (change,) = comparison.statuses
    assert (change.cell, change.base, change.new) == ("bert on cpu, tiny, f32", before.status, after.status)
    assert change.verdict == verdict
    assert (comparison.regressions, comparison.improvements) == (verdict == "regression", verdict == "improvement")
    assert change.reason == ("" if after.status is Status.REAL else after.reason)


def test_a_cell_that_nobody_runs_any_more_is_a_regression_of_a_matrix() -> None:
    (change,) = between([make.cell(), make.cell("t5")], [make.cell()]).statuses
    assert (change.cell, change.new, change.verdict) == ("t5 on cpu, tiny, f32", Status.PENDING, "regression")


def test_session_reports_are_asked_only_what_they_set_out_to_run() -> None:
    base = side(make.report(make.cell(), make.cell("t5")), make.report(make.cell(backend="openvino"), session="s2"))
    new = make.matrix(make.report(make.cell("t5", evidence=MOCK), session="new"))
    comparison = compare(base, Side(new, frozenset({("cpu", "t5", "tiny", Precision.F32)})))
    assert [(each.cell, each.new) for each in comparison.statuses] == [("t5 on cpu, tiny, f32", Status.MOCK)]
    assert comparison.cells == 1


def test_a_session_of_one_size_says_nothing_of_another(tmp_path: Path) -> None:
    base = side(make.report(make.cell(), make.cell(size="base"), make.cell("t5"), make.cell("t5", size="base")))
    report = make.report(make.cell(size="base", evidence=MOCK), session="new")
    report = report.model_copy(update={"planned": ("bert", "t5")})  # and was interrupted before t5
    (tmp_path / "new.json").write_text(report.model_dump_json(), encoding="utf-8")
    found = compare(base, read(tmp_path / "new.json")).statuses
    assert [(each.cell, each.new) for each in found] == [
        ("bert on cpu, base, f32", Status.MOCK), ("t5 on cpu, base, f32", Status.PENDING),
    ]  # fmt: skip


def test_a_session_of_one_checkpoint_of_a_user_says_nothing_of_another(tmp_path: Path) -> None:
    mine, other = (make.cell(size="own", checkpoint=make.checkpoint(name, "path")) for name in ("mine", "other"))
    broken = mine.model_copy(update={"evidence": MOCK})
    (tmp_path / "new.json").write_text(make.report(broken, session="new").model_dump_json(), encoding="utf-8")
    found = compare(side(make.report(mine), make.report(other, session="s2")), read(tmp_path / "new.json"))
    assert mine.checkpoint
    name = f"bert on cpu, mine {mine.checkpoint.sha256[:8]}, f32"  # of two in one row
    assert [(each.cell, each.new) for each in found.statuses] == [(name, Status.MOCK)]
    assert (found.cells, found.notes) == (1, [])


def test_a_users_checkpoints_are_not_mixed_up_and_a_test_model_may_change() -> None:
    mine, other = (make.cell(size="own", checkpoint=make.checkpoint(name, "path")) for name in ("mine", "other"))
    comparison = between([mine], [other])
    assert [each.new for each in comparison.statuses] == [Status.PENDING]
    assert any("only in the new one: bert on cpu, other" in note for note in comparison.notes)
    comparison = between([make.cell()], [make.cell(checkpoint=make.checkpoint("made otherwise"))])
    assert comparison.statuses == [] and not comparison.metrics
    assert comparison.notes == ["figures not compared, other weights: bert on cpu, tiny, f32"]


def likely(old: MatrixCell, new: Sequence[MatrixCell]) -> MatrixCell | None:
    """What stands in a cell's place, looked for among all cells."""

    def alike(one: MatrixCell, other: MatrixCell) -> list[bool]:
        machines = [cell.session.machine.name if cell.session else "" for cell in (one, other)]
        return [one.checkpoint == other.checkpoint, one.device == other.device, one.workloads == other.workloads,
                machines[0] == machines[1]]  # fmt: skip

    def may(other: MatrixCell) -> bool:
        place, its = ((each.family, each.backend, each.size, each.precision) for each in (old, other))
        if place != its or None in (old.checkpoint, other.checkpoint):
            return place == its
        assert old.checkpoint and other.checkpoint
        both_local = old.checkpoint.source == other.checkpoint.source == "local"
        return both_local or old.checkpoint.sha256 == other.checkpoint.sha256

    return max(filter(may, new), key=lambda other: alike(old, other), default=None)


@settings(max_examples=60)
@given(st.lists(make.reports(), max_size=5), st.lists(make.reports(), max_size=5))
def test_looking_under_the_hash_finds_what_looking_everywhere_does(
    before: list[SessionReport], after: list[SessionReport]
) -> None:
    old, new = (make.matrix(*reports).cells for reports in (before, after))
    assert [pair.old for pair in pairs(old, new)] == list(old)
    for pair in pairs(old, new):
        assert pair.new is likely(pair.old, new)


def test_a_cell_is_concluded_once_and_by_its_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(cell: Cell) -> tuple[Status, str]:
        asked.append(id(cell))
        return conclude(cell)

    before, after = make.full_matrix(), make.full_matrix()
    with monkeypatch.context() as patch:
        patch.setattr("assay.status.conclude", counted)
        compare(Side(before, None), Side(after, None))
    assert len(asked) == len(set(asked)) > 0
    assert all(conclude(cell) == (cell.status, cell.reason) for cell in (*before.cells, *after.cells))


@settings(max_examples=30)
@given(st.lists(make.reports(), max_size=5))
def test_a_matrix_does_not_differ_from_itself(reports: list[SessionReport]) -> None:
    one = side(*reports)
    comparison = compare(one, one)
    assert (comparison.statuses, comparison.errors, comparison.notes) == ([], [], [])
    assert not found(comparison)


# Errors


@pytest.mark.parametrize(("error", "shown"), [(1.9e-7, False), (2.1e-7, True), (0.4e-7, True)])
def test_an_agreement_error_that_moved_is_shown_and_is_no_regression(error: float, shown: bool) -> None:
    first, *rest = REAL
    checks = (first.checks[0], *first.checks[1:])
    moved = [
        check if check.name != "error" else Check(name="error", value=error, bound=1e-6, text="error")
        for check in checks
    ]
    after = make.cell(evidence=(first.model_copy(update={"checks": tuple(moved)}), *rest))
    comparison = between([make.cell()], [after])
    assert [round(each.new / each.base, 6) for each in comparison.errors] == ([error / 1e-7] if shown else [])
    assert comparison.regressions == 0


# Figures


def test_one_run_a_side_finds_what_stands_out_of_what_all_figures_do() -> None:
    comparison = compare(side(*runs(1, 1, 0.02, {})), side(*runs(1, 2, 0.02, {"t5": 2.0, "clip": 0.5})))
    assert sorted(found(comparison)) == [("clip", "improvement"), ("t5", "regression")]
    (slower,) = [each for each in comparison.metrics if each.verdict == "regression"]
    assert slower.ratio == pytest.approx(2.0, rel=0.1) and slower.runs == (1, 1) and slower.p < 0.05


def test_what_all_figures_do_is_said_and_is_no_regression_until_runs_are_repeated() -> None:
    slow = dict.fromkeys(NAMES, 1.5)
    comparison = compare(side(*runs(1, 1, 0.02, {})), side(*runs(1, 2, 0.02, slow)))
    assert not found(comparison) and comparison.common == {"sampled times": pytest.approx(1.5, rel=0.1)}
    comparison = compare(side(*runs(4, 1, 0.02, {})), side(*runs(4, 2, 0.02, slow)))
    assert found(comparison) == [(name, "regression") for name in NAMES]
    assert {each.runs for each in comparison.metrics} == {(4, 4)}


def test_noise_is_no_regression() -> None:
    for noise in (0.02, 0.3):
        for count in (1, 3):
            alarms = [found(compare(side(*runs(count, 2 * i, noise, {})), side(*runs(count, 2 * i + 1, noise, {}))))
                      for i in range(10)]  # fmt: skip
            assert sum(map(bool, alarms)) <= 2, (noise, count, alarms)


def test_where_a_sweep_ended_is_no_figure_of_a_backend() -> None:
    def measured(batch: int) -> Cell:
        rows = Metric(value=batch, unit="rows", better="neither")
        return make.cell(metrics={**make.cell().metrics, "throughput_batch": rows, "knee_batch": rows})

    base, new = (side(make.report(measured(batch), session=str(batch))) for batch in (1, 64))
    assert not any("batch" in change.metric for change in compare(base, new).metrics)


def test_the_threshold_is_what_matters_to_people() -> None:
    base, new = side(*runs(8, 1, 0.001, {})), side(*runs(8, 2, 0.001, {"t5": 1.1}))
    assert found(compare(base, new)) == [("t5", "regression")]
    assert found(compare(base, new, threshold=0.2)) == []


def test_rates_that_follow_from_times_and_equal_measurements_are_not_counted_again() -> None:
    comparison = between([timed("bert", 1e-3)], [timed("bert", 2e-3)])
    assert [each.metric for each in comparison.metrics] == ["latency"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"processor": "Another"}, "other processor"),
        ({"cores": 4}, "other number of cores"),
    ],
)
def test_figures_of_another_machine_are_not_compared_and_statuses_are(changes: dict[str, Any], why: str) -> None:
    machine = make.report().machine.model_copy(update=changes)
    new = make.report(timed("bert", 9e-3), make.failed("t5"), session="new", start=9, machine=machine)
    comparison = compare(side(make.report(timed("bert", 1e-3), make.cell("t5"))), side(new))
    assert comparison.metrics == [] and [each.verdict for each in comparison.statuses] == ["regression"]
    assert comparison.notes == [f"figures not compared, {why}: bert on cpu, tiny, f32"]


def test_figures_of_another_number_of_threads_or_device_are_not_compared() -> None:
    software = make.report().environment.model_copy(update={"threads": 1})
    base = side(make.report(timed("bert", 1e-3)))
    other = side(make.report(timed("bert", 9e-3), environment=software))
    assert compare(base, other).notes == ["figures not compared, other number of threads: bert on cpu, tiny, f32"]
    other = side(make.report(timed("bert", 9e-3).model_copy(update={"device": "Other Processor"})))
    assert compare(base, other).notes == ["figures not compared, other device: bert on cpu, tiny, f32"]


def test_what_other_software_measured_is_no_repeated_run() -> None:
    older = make.report().environment.model_copy(update={"packages": {"torch": "2.12.0"}})
    base = side(make.report(timed("bert", 1e-3), session="a"), make.report(timed("bert", 9e-3), session="b", start=-9,
                                                                        environment=older))  # fmt: skip
    (change,) = compare(base, side(make.report(timed("bert", 1.01e-3)))).metrics
    assert change.runs == (1, 1)


# The command


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def written(name: str, content: Matrix | SessionReport) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content.model_dump_json(), encoding="utf-8")
        return path

    return written


def test_exit_codes_and_the_baseline(written: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = (make.matrix(make.report(cell)) for cell in (make.cell(), make.failed()))
    base, new = written("base.json", bad), written("new.json", good)
    assert main(["compare", str(base), str(new), "--update-baseline"]) == 0
    assert "✔ improvement: bert on cpu, tiny, f32: FAILED → REAL" in capsys.readouterr().out
    assert Matrix.model_validate_json(base.read_text(encoding="utf-8")) == good
    new = written("new.json", bad)
    assert main(["compare", str(base), str(new), "--update-baseline"]) == 1
    assert "1 regression in 1 cells" in capsys.readouterr().out
    assert Matrix.model_validate_json(base.read_text(encoding="utf-8")) == good


def test_folders_of_reports_are_repeated_runs(written: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    for count, seed, folder, changed in ((4, 1, "base", {}), (4, 2, "new", {"t5": 1.5})):
        for report in runs(count, seed, 0.02, changed):
            written(f"{folder}/{report.id}.json", report)
    base = written("base/0.json", runs(1, 3, 0.02, {})[0]).parent
    assert main(["compare", str(base), str(base.parent / "new"), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [(each["cell"], each["runs"]) for each in data["metrics"] if each["verdict"]] == [
        ("t5 on cpu, tiny, f32", [5, 4])
    ]  # fmt: skip
    assert data["regressions"] == 1 and len(data["metrics"]) == 10


def test_a_mistake_is_one_line(
    written: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    matrix = str(written("matrix.json", make.matrix(make.report(make.cell()))))
    report = str(written("report.json", make.report(make.cell())))
    empty = str(written("empty.json", merge([], make.FAMILIES, make.BACKENDS)))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for arguments, said in (
        (["none.json", matrix], "none.json: no such file or folder"),
        ([matrix, str(broken)], "broken.json: is not JSON"),
        ([empty, matrix], "empty.json: no cell that was run"),
        ([matrix, matrix, "--json", "--markdown"], "--json and --markdown do not go together"),
        ([matrix, matrix, "--threshold", "-1"], "--threshold takes percent, not -1.0"),
        ([matrix, matrix, "--threshold", "nan"], "--threshold takes percent, not nan"),
        ([report, matrix, "--update-baseline"], "--update-baseline takes two matrices"),
        ([matrix, report, "--update-baseline"], "--update-baseline takes two matrices"),
    ):
        assert main(["compare", *arguments]) == 2, arguments
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
