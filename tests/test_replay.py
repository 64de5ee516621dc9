"""A recorded cell once more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay import cache
from assay.cli import main
from assay.replay import asked, differences, recorded
from assay.schema import Cell, Layer
from tests import strategies as make
from tests.conftest import Assay, raw_report_in, report_in

SEED = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """A session report of these cells, as a file."""

    def written(*cells: Cell) -> Path:
        path = tmp_path / "report.json"
        path.write_text(make.report(*cells).model_dump_json(), encoding="utf-8")
        return path

    return written


def test_a_replay_has_the_same_inputs_and_the_same_verdicts_without_a_cache_and_tells_where_not(
    assay: Assay, tmp_path: Path
) -> None:
    """The outputs of a torch column are the same bits; a forged report, whose cell had failed, is told apart."""
    first = assay("run", "--backend", "cpu", "--family", "bert", "--reports", tmp_path)
    assert first.returncode == 0, first.stderr
    (path,) = (tmp_path / "sessions").glob("*.json")
    arguments = ("run", "--backend", "cpu", "--family", "bert", "--reports", tmp_path, "--replay")
    done = assay(*arguments, path, env={"ASSAY_CACHE": str(tmp_path / "empty")})
    assert done.returncode == 0, done.stderr
    assert "assay: replayed: every verdict is the same" in done.stderr
    (before,), (after,) = (report_in(tmp_path / part / "sessions").cells for part in ("", "replays"))
    assert after.seeds == before.seeds
    assert after.checkpoint == before.checkpoint
    assert after.notes == (*before.notes, "replayed: the inputs were known beforehand")
    evidence = [cell.layer(Layer.AGREEMENT) for cell in (before, after)]
    old, new = ([check.value for check in each.checks] if each else [] for each in evidence)
    assert new == pytest.approx(old, rel=1e-6)  # the reference, a batch with calls picked by chance, sums in float64

    data = raw_report_in(tmp_path / "sessions")
    check: dict[str, Any] = data["cells"][0]["evidence"][0]["checks"][0]
    check["value"] = 2 * check["bound"]
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(data), encoding="utf-8")
    done = assay(*arguments, forged)
    assert done.returncode == 1
    assert "assay: replayed: the status was INACCURATE, now it is REAL" in done.stderr
    assert f"assay: replayed: agreement {check['name']}: was failed, is passed" in done.stderr


@pytest.mark.parametrize(
    ("cell", "arguments", "message"),
    [
        (make.cell("t5", seeds={"challenge": SEED}), ("--family", "bert"), "holds no cell of bert f32; it has t5 f32"),
        (make.failed(), ("--family", "bert"), "bert was FAILED before its inputs were drawn: nothing to replay"),
        (make.cell(backend="openvino", seeds={"challenge": SEED}), ("--family", "bert"),
         "is a report of openvino, not of cpu"),
        (make.cell(seeds={"challenge": SEED}), ("--family", "bert,t5"), "--replay takes one cell"),
        (make.cell(seeds={"challenge": "seven"}), ("--family", "bert"), "is not 32 hexadecimal digits"),
        (make.cell(seeds={"challenge": SEED}), (), "--replay takes one cell"),
        (make.cell(seeds={"challenge": SEED}), ("--family", "bert", "--precision", "f32,bf16"),
         "--replay takes one cell: name it by one --precision"),
        (make.cell(precision="bf16", seeds={"challenge": SEED}), ("--family", "bert", "--precision", "f16"),
         "holds no cell of bert f16; it has bert bf16"),
        (make.cell(seeds={"challenge": SEED}), ("--family", "bert", "--resume"), "--resume, --only-failed"),
        (make.cell(size="own", checkpoint=make.checkpoint("mine", "path"), seeds={"challenge": SEED}),
         ("--family", "bert"), "the cell was about mine: name its folder, --model bert=DIR"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed_is_refused_in_a_line(
    cell: Cell, arguments: tuple[str, ...], message: str, written: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["run", "--backend", "cpu", *arguments, "--replay", str(written(cell))]) == 2
    found = capsys.readouterr().err
    assert message in found and len(found.splitlines()) == 1


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), ("{", ""), ("{}", "")])
def test_a_file_that_is_no_report_is_refused_in_a_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert main(["run", "--backend", "cpu", "--family", "bert", "--replay", str(path)]) == 2
    found = capsys.readouterr().err
    assert f"{path}: {message}" in found and len(found.splitlines()) == 1


def test_another_checkpoint_than_the_cells_is_refused(
    written: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from assay import checkpoints

    with cache.held():
        other = checkpoints.local("bert").path
    cell = make.cell(size="own", checkpoint=make.checkpoint("mine", "path"), seeds={"challenge": SEED})
    arguments = ["run", "--backend", "cpu", "--model", f"bert={other}", "--replay", str(written(cell))]
    assert main(arguments) == 2
    assert "is not the checkpoint of that cell" in capsys.readouterr().err


def test_of_several_precisions_the_one_that_is_named_is_replayed_else_f32_else_the_only_one(
    written: Callable[..., Path],
) -> None:
    cells = [make.cell(precision=each, seeds={"challenge": SEED}) for each in ("bf16", "f32", "f16")]
    path = written(*cells)
    assert [recorded(path, "cpu", "bert", each).precision for each in ("f16", "bf16", "f32")] == ["f16", "bf16", "f32"]
    assert recorded(path, "cpu", "bert").precision == "f32"
    only = recorded(written(cells[2]), "cpu", "bert")
    assert asked(only, {})["precisions"] == ["f16"]


def test_a_cell_of_the_hub_is_asked_for_at_its_commit() -> None:
    hub = make.checkpoint("org/name", "hub").model_copy(update={"revision": "abc123"})
    wanted = asked(make.cell(size="own", checkpoint=hub), {})
    assert wanted["models"] == {"bert": "org/name@abc123"}


def test_differences_name_the_status_the_checks_and_another_test_model() -> None:
    before = make.cell(evidence=make.evidence({(Layer.TIMING, "covered"): False}))
    after = make.cell(checkpoint=make.checkpoint("other"), evidence=make.cell().evidence[:3])
    lines = differences(before, after)
    assert lines[0].startswith("the test model is another one")
    assert lines[1].startswith("the status was MOCK, now it is UNPROVEN: timing")
    assert "timing covered: was failed, is not made" in lines
    assert differences(before, before) == []
