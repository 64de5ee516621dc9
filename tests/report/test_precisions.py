"""A family in several precisions, each a cell of its own: every reader tells which is which."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from assay import expect
from assay.cli import main
from assay.compare import Side, compare, read
from assay.export import FORMATS
from assay.matrix import Matrix
from assay.report import explain, markdown, page
from assay.report.names import names
from assay.report.terminal import print_matrix
from assay.schema import FLOATS, Layer, Metric, Precision, Status
from tests import strategies as make
from tests.report.conftest import Open

ABSENT = {"reason": "matrix products in f32 alone", "looked_for": ("kernels: none",)}
LATENCY = {Precision.F32: 2e-3, Precision.BF16: 1e-3, Precision.F16: 4e-3}
SEED = {"challenge": "0" * 32}


def cell(precision: Precision, **changes: Any) -> Any:
    """A cell of BERT on `cpu` whose latency tells its precision."""
    latency = Metric(value=LATENCY[precision], unit="s")
    rate = Metric(value=16 / LATENCY[precision], unit="tokens/s", better="higher")
    metrics = {"latency": latency, "tokens_per_second": rate}
    samples = {"latency": tuple(LATENCY[precision] * factor for factor in (1.0, 1.1, 1.2))}
    return make.cell(precision=precision, metrics=metrics, samples=samples, seeds=SEED, **changes)


def everything() -> Matrix:
    """BERT in three precisions: REAL, REAL, INACCURATE on `cpu`; REAL and twice UNAVAILABLE on `onnxruntime`."""
    wrong = make.evidence({(Layer.AGREEMENT, "error"): False})
    own = [cell(Precision.F32), cell(Precision.BF16), cell(Precision.F16, evidence=wrong)]
    absent = [make.unavailable(backend="onnxruntime", precision=each, unavailable=ABSENT) for each in ("bf16", "f16")]
    return make.merge(
        [
            make.report(*own, precisions=FLOATS),
            make.report(make.cell(backend="onnxruntime"), *absent, session="s2", precisions=FLOATS),
        ],
        ("bert",), ("cpu", "onnxruntime"),
    )  # fmt: skip


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_every_precision_is_a_row_with_its_own_cells() -> None:
    shown = {(each.backend, each.precision): each.status for each in everything().cells}
    assert shown == {
        ("cpu", "f32"): Status.REAL, ("cpu", "bf16"): Status.REAL, ("cpu", "f16"): Status.INACCURATE,
        ("onnxruntime", "f32"): Status.REAL, ("onnxruntime", "bf16"): Status.UNAVAILABLE,
        ("onnxruntime", "f16"): Status.UNAVAILABLE,
    }  # fmt: skip


def test_the_terminal_has_a_table_for_each_and_names_it_beside_figures() -> None:
    stream = io.StringIO()
    print_matrix(everything(), stream, width=80)
    text = stream.getvalue()
    titles = [line.strip() for line in lines(text, "tiny, ") if "latency" in line]
    assert titles == [f"tiny, {each}: latency" for each in FLOATS]
    figures = text[text.index("error / bound") :].splitlines()
    below = [figures[at + 1].split()[:2] for at, line in enumerate(figures) if line.startswith("BERT")]
    assert below == [["tiny,", each] for each in ("f32", "f32", "bf16", "f16")]
    assert "INACCURATE cpu: BERT (tiny, f16)" in text
    assert "UNAVAILABLE onnxruntime: BERT (tiny, bf16, f16). matrix products in f32 alone" in (" ".join(text.split()))


def test_the_status_page_tells_the_precision_of_every_row_figure_and_log() -> None:
    broken = make.failed(precision="f16", checkpoint=make.checkpoint("bert-tiny"))
    text = markdown.render(make.matrix(make.report(cell(Precision.F32), cell(Precision.BF16), broken)))
    assert "BERT on cpu, f16: end of the builder's log" in text
    assert [line.split("|")[2].strip() for line in lines(text, "| BERT |")[:3]] == [
        f"tiny, {each}, `{make.checkpoint('bert-tiny').sha256[:8]}`" for each in FLOATS
    ]
    assert len(lines(text, "| BERT (tiny, bf16) | latency |")) == 1


def test_the_page_tells_them_apart_in_its_views_by_kind(show: Open) -> None:
    tab = show(everything(), "#view=text")
    heads = tab.locator("#figures .card").first.locator("tbody th").all_inner_texts()
    assert [head.split("\n") for head in heads] == [["BERT", f"tiny, {each}"] for each in FLOATS]
    assert tab.locator("#figures .card").first.get_by_text("2.0×").count() == 0  # of no precision against another


def test_the_page_has_a_heading_for_each_precision() -> None:
    text = page.render(everything())
    assert [text.count(f'scope="rowgroup">tiny, {each}<') for each in FLOATS] == [1, 1, 1]


def test_a_single_precision_is_named_once_and_not_at_every_figure() -> None:
    stream = io.StringIO()
    print_matrix(make.full_matrix(), stream, width=80)
    assert stream.getvalue().count("f32") == 1


def test_names_for_machines_are_different_ones() -> None:
    matrix = everything()
    for device in (False, True):
        assert len(set(names(matrix.cells, device=device))) == len(matrix.cells)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_format_for_other_programs_has_them_apart(form: str, tmp_path: Path) -> None:
    (tmp_path / "matrix.json").write_text(everything().model_dump_json(), encoding="utf-8")
    assert main(["export", form, str(tmp_path / "matrix.json"), "--output", str(tmp_path)]) == 0
    if form == "junit":
        cases = [each.get("name") for each in ET.parse(tmp_path / "junit.xml").iter("testcase")]  # noqa: S314
        assert len(set(cases)) == len(cases) == 6
    if form == "badges":
        rows = {path.stem for path in (tmp_path / "badges").glob("row-*")}
        assert rows == {f"row-bert-tiny-{each}" for each in FLOATS}


def test_each_is_explained_with_the_command_that_runs_it_again() -> None:
    cells = explain.find(everything(), "bert", "cpu")
    assert [explain.again(each) for each in cells] == [
        "nox -s cpu -- --family bert",
        "nox -s cpu -- --family bert --precision bf16",
        "nox -s cpu -- --family bert --precision f16",
    ]
    stream = io.StringIO()
    explain.print_cells(cells, stream, width=100)
    assert [line.split(",")[1].strip() for line in lines(stream.getvalue(), "  tiny, ")] == list(FLOATS)


def test_a_known_failure_of_one_precision_is_none_of_another() -> None:
    ran = [each for each in everything().cells if each.session]
    known = expect.known_failures(ran).known_failures
    assert [(each.family, each.precision, each.status) for each in known] == [("bert", "f16", "INACCURATE")]
    assert expect.surprises(ran, known) == []
    other = [each.model_copy(update={"precision": Precision.BF16}) for each in known]
    assert len(expect.surprises(ran, other)) == 2


def test_the_statements_of_all_three_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "matrix.json").write_text(everything().model_dump_json(), encoding="utf-8")
    arguments = [str(tmp_path / "matrix.json"), "--backend", "cpu", "--output", str(tmp_path)]
    assert main(["attest", *arguments]) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "attestations.intoto.jsonl"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(each["precision"], each["result"]) for each in found] == [
        ("f32", "PASSED"), ("bf16", "PASSED"), ("f16", "FAILED"),
    ]  # fmt: skip


# Comparing


def test_a_report_is_asked_only_for_the_precisions_that_it_set_out_to_run(tmp_path: Path) -> None:
    base = Side(everything(), None)
    for precisions, missing in ((("f32",), 0), (("f32", "bf16"), 1), ((), 0)):
        report = make.report(cell(Precision.F32), session="new", start=9, precisions=precisions)
        (tmp_path / "new.json").write_text(report.model_dump_json(), encoding="utf-8")
        found = compare(base, read(tmp_path / "new.json"))
        assert [each.cell for each in found.statuses] == ["bert on cpu, tiny, bf16"] * missing


def test_a_precision_that_got_worse_is_no_other_one() -> None:
    mock = make.evidence({(Layer.AGREEMENT, "follows_inputs"): False})
    worse = [cell(Precision.F32), cell(Precision.BF16, evidence=mock), cell(Precision.F16)]
    found = compare(Side(everything(), None), Side(make.matrix(make.report(*worse, session="new", start=9)), None))
    changed = {each.cell: each.verdict for each in found.statuses if "cpu" in each.cell}
    assert changed == {"bert on cpu, tiny, bf16": "regression", "bert on cpu, tiny, f16": "improvement"}
