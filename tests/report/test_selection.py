"""What of a matrix is shown, with which figure, in which order."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from assay.errors import UsageError
from assay.matrix import Matrix
from assay.report.selection import Selection
from assay.report.terminal import print_matrix
from assay.schema import Metric
from tests import strategies as make
from tests.conftest import Assay


def measured() -> Matrix:
    """Three rows on two columns; T5 has no rate on the second."""
    speed = {"bert": (3e-3, 10.0), "clip": (1e-3, 30.0), "t5": (2e-3, None)}

    def metrics(latency: float, rate: float | None) -> dict[str, Metric]:
        found = {"latency": Metric(value=latency, unit="s", better="lower")}
        return found | ({"rate": Metric(value=rate, unit="items/s", better="higher")} if rate else {})

    cells = [make.cell(name, metrics=metrics(*figures)) for name, figures in speed.items()]
    return make.matrix(
        make.report(*cells, make.cell("bert", "openvino", metrics=metrics(5e-3, 7.0))),
        make.report(make.cell("clip"), session="s0", start=-1),
    )


def shown(selection: Selection) -> list[str]:
    stream = io.StringIO()
    print_matrix(measured(), stream, width=100, selection=selection)
    return [" ".join(line.split()) for line in stream.getvalue().splitlines()]


def families(lines: list[str]) -> list[str]:
    """The rows of the first table, as far as something was measured."""
    return [line.split()[0] for line in lines[2 : lines.index("", 2)] if "REAL" in line]


def test_rows_and_columns_are_kept_by_name() -> None:
    found = Selection(families=["bert", "t5"], backends=["cpu"]).of(measured())
    assert {(cell.family, cell.backend) for cell in found.cells} == {("bert", "cpu"), ("t5", "cpu")}
    assert not found.superseded
    assert Selection(families=["clip"]).of(measured()).superseded
    lines = shown(Selection(families=["bert"], backends=["openvino"]))
    assert lines[:3] == ["tiny, f32: latency", "family openvino", "BERT ✔ REAL 5.00 ms"]


def test_rows_are_ordered_by_a_column_the_best_first_and_those_without_a_figure_last() -> None:
    assert families(shown(Selection())) == ["BERT", "CLIP", "T5"]
    assert families(shown(Selection(sort="cpu"))) == ["CLIP", "T5", "BERT"]
    assert families(shown(Selection(sort="cpu", metric="rate"))) == ["CLIP", "BERT", "T5"]
    assert families(shown(Selection(sort="openvino"))) == ["BERT", "CLIP", "T5"]


def test_another_figure_stands_beside_the_statuses() -> None:
    lines = shown(Selection(metric="rate"))
    assert lines[0] == "tiny, f32: rate"
    assert "BERT ✔ REAL 10.0 items/s" in lines[2]
    assert any(line.startswith("T5 ✔ REAL ·") for line in lines)


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        (Selection(families=["brt"]), "unknown family 'brt'; did you mean bert?"),
        (Selection(backends=["tpu"]), "unknown backend 'tpu'; did you mean cpu?"),
        (Selection(sort="cpuu"), "unknown backend 'cpuu'; did you mean cpu or cuda?"),
        (Selection(metric="latncy"), "unknown metric 'latncy'; did you mean latency?"),
    ],
)
def test_what_the_matrix_does_not_have_is_refused(selection: Selection, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        selection.of(measured())
    assert str(refused.value) == says


def test_the_command_takes_them(assay: Assay, tmp_path: Path) -> None:
    path = tmp_path / "matrix.json"
    path.write_text(measured().model_dump_json(), encoding="utf-8")
    done = assay("show", path, "--family", "bert,clip", "--backend", "cpu", "--metric", "rate", "--sort", "cpu")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[:4] == ["tiny, f32: rate", "family cpu", "CLIP ✔ REAL 30.0 items/s", "BERT ✔ REAL 10.0 items/s"]
    done = assay("show", path, "--family", "t5", "--json")
    assert {cell.family for cell in Matrix.model_validate_json(done.stdout).cells} == {"t5"}
    done = assay("show", path, "--metric", "speed")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
