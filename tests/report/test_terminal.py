"""The matrix in a terminal."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable

import pytest
from rich.cells import cell_len

from assay import families
from assay.matrix import Matrix
from assay.report import grid
from assay.report.terminal import print_matrix
from assay.schema import Metric, Status
from tests import strategies as make


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def printed(shown: Matrix, width: int = 80, stream: io.StringIO | None = None) -> str:
    stream = stream or io.StringIO()
    print_matrix(shown, stream, width=width)
    return stream.getvalue()


def crowded() -> Matrix:
    """Long names, many columns, several devices."""
    return make.matrix(
        make.report(*(make.cell(name) for name in families.names())),
        make.report(make.cell(backend="a-very-long-backend-name"), session="s2"),
        make.report(make.cell(device="A Device With A Very Long Name Indeed 9000"), session="s3"),
        make.report(make.cell("sentence-embeddings", size="own", checkpoint=make.checkpoint("m" * 60, "path")),
                    session="s4"),
        make.report(make.cell("t5"), session="s5", machine=make.on("a-machine-whose-name-is-longer-than-a-column")),
    )  # fmt: skip


def test_of_more_rows_than_anybody_reads_only_counts_and_causes_are_printed() -> None:
    whole, stream = printed(make.full_matrix()), io.StringIO()
    print_matrix(make.full_matrix(), stream, width=80, most=3)
    first, counts, *rest = stream.getvalue().splitlines()
    assert first == "10 rows: index.html has them, and `assay show --family` prints some"
    assert counts.startswith("40 cells: 10 REAL, 1 INACCURATE, ")
    assert [line.split()[1] for line in rest if line.startswith(("  ◌", "  ↪", "  ≉", "  ✘", "  ?", "  ∅", "  ·"))] == [
        "MOCK", "INACCURATE", "FALLBACK",  # the order of docs/judgement.md
    ]  # fmt: skip
    assert "  4 further causes: index.html has each with its cell" in rest
    stream = io.StringIO()
    print_matrix(make.full_matrix(), stream, width=80, most=10)
    assert stream.getvalue() == whole


@pytest.mark.parametrize("width", [80, 100, 60])
@pytest.mark.parametrize("build", [make.full_matrix, crowded])
def test_it_fits(build: Callable[[], Matrix], width: int) -> None:
    for line in printed(build(), width).splitlines():
        assert cell_len(line) <= width, line


def test_four_columns_stand_in_one_table_of_80() -> None:
    head = printed(make.full_matrix()).splitlines()[1].split()
    assert head == ["family", "cpu", "cuda", "openvino", "onnxruntime"]


def test_they_do_so_where_no_figure_settled() -> None:
    shaky = {"latency": Metric(value=1.234e-2, unit="s", stable=False)}
    names = ("cpu", "openvino", "onnxruntime")
    reports = [
        make.report(*(make.cell(family, name, metrics=shaky) for family in families.names()), session=name)
        for name in names
    ]
    absent = make.report(*(make.unavailable(family) for family in families.names()), session="s4")
    lines = printed(make.matrix(*reports, absent)).splitlines()
    assert set(lines[1].split()) == {"family", *names, "cuda"}
    assert all(cell_len(line) <= 80 for line in lines)
    assert any(line.startswith("Sentence ") and "~12.3 ms" in line for line in lines)


def test_every_status_has_a_glyph_of_its_own_and_its_word() -> None:
    text = printed(make.full_matrix())
    assert set(grid.GLYPHS) == set(grid.MEANINGS) == set(Status)
    assert len(set(grid.GLYPHS.values())) == len(Status)
    for status in Status:
        assert f"{grid.GLYPHS[status]} {status}" in text


def test_the_short_of_everything_is_there() -> None:
    text = printed(make.full_matrix())
    for part in ("✔ REAL 1.90 ms", "40 cells: 10 REAL", "cuda: all 10 families", "8,421 tokens/s", "123 MiB",
                 "1.0e-07 / 1.0e-06", "torch 2.13.0+cpu", "Some Processor"):  # fmt: skip
        assert part in text
    older = make.report(make.cell(), session="s0", start=-1)
    other = make.report(make.cell(backend="openvino", checkpoint=make.checkpoint("other")), session="s2")
    text = printed(make.matrix(make.report(make.cell()), older, other))
    assert "1 superseded" in text
    assert "warning: bert, tiny, f32: the local test model differs" in text


def test_of_several_machines_each_cell_names_its_own() -> None:
    here = make.report(make.cell(), make.failed("clip"))
    text = printed(make.matrix(here, make.report(make.unavailable(), session="s2", machine=make.on("tower"))))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    below = dict(itertools.pairwise(lines))
    assert below["BERT ✔ REAL 1.90 ms ∅ UNAVAILABLE · PENDING · PENDING"] == "box tower"
    assert below["CLIP ✘ FAILED · PENDING · PENDING · PENDING"] == "box"
    assert "box" not in [line.strip() for line in printed(make.matrix(here)).splitlines()]


def test_an_unstable_figure_is_marked() -> None:
    shaky = {"latency": Metric(value=2e-3, unit="s", stable=False)}
    assert "✔ REAL ~2.00 ms" in printed(make.matrix(make.report(make.cell(metrics=shaky))))


def test_colour_only_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[32m✔ REAL" in printed(make.full_matrix(), stream=Terminal())
    assert "\x1b[" not in printed(make.full_matrix())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in printed(make.full_matrix(), stream=Terminal())


def test_no_text_of_a_report_reaches_the_terminal_raw() -> None:
    cell = make.failed("\x1b[2Jbert", "c\x07pu", known=True)
    assert cell.failure is not None
    spoilt = cell.model_copy(update={"failure": cell.failure.model_copy(update={"reason": "\x1b]0;title\x07[bold]"})})
    text = printed(make.matrix(make.report(spoilt)))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]" in text
