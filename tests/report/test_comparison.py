"""A comparison as its readers see it."""

from __future__ import annotations

import io

from assay.compare import Comparison, ErrorChange, MetricChange, StatusChange
from assay.report.comparison import print_comparison, to_markdown
from assay.schema import Status

REASON = "killed | by\x1b[31m <SIGSEGV>"
FOUND = Comparison(
    cells=40,
    statuses=[
        StatusChange("bert on cpu, tiny, f32", Status.REAL, Status.FAILED, "regression", REASON),
        StatusChange("t5 on cpu, tiny, f32", Status.MOCK, Status.REAL, "improvement", ""),
    ],
    errors=[ErrorChange("clip on cpu, tiny, f32", 0.1, 0.5)],
    metrics=[
        MetricChange("clip on cpu, tiny, f32", "latency", "s", True, 1e-3, 2e-3, (3, 4), 2.0, 0.001, "regression"),
        MetricChange("clap on cpu, tiny, f32", "peak_memory", "B", False, 2**20, 2**20 + 1, (1, 1), 1.0, 1.0, None),
    ],
    common={"sampled times": 1.2},
    apart={"other processor": ["whisper on cpu, tiny, f32"]},
)  # fmt: skip


def test_the_terminal_says_it_in_words_without_colour() -> None:
    stream = io.StringIO()
    print_comparison(FOUND, stream, width=120)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "2 regressions, 1 improvement in 40 cells and 2 figures"
    assert "✘ regression: bert on cpu, tiny, f32: REAL → FAILED: killed | by [31m <SIGSEGV>" in lines
    assert "✔ improvement: t5 on cpu, tiny, f32: MOCK → REAL" in lines
    (row,) = [line for line in lines if "latency" in line]
    assert " ".join(row.split()) == (
        "✘ regression clip on cpu, tiny, f32 latency, fastest 1.00 ms 2.00 ms ×2.00 (3 and 4 runs) 0.001"
    )
    assert not any("peak" in line for line in lines)
    assert "clip on cpu, tiny, f32: agreement error, in shares of its bound: 0.100 → 0.500" in lines
    assert lines[-1] == "figures not compared, other processor: whisper on cpu, tiny, f32"
    assert "\x1b" not in stream.getvalue()


def test_markdown_has_the_same_and_nothing_breaks_it() -> None:
    page = to_markdown(FOUND)
    assert page.startswith("## Compared with the baseline\n\n2 regressions, 1 improvement in 40 cells and 2 figures.\n")
    assert r"**regression** bert on cpu, tiny, f32: REAL → FAILED: killed \| by \[31m &lt;SIGSEGV>" in page
    assert "| ✘ regression | clip on cpu, tiny, f32 | latency, fastest | 1.00 ms | 2.00 ms | ×2.00 (3 and 4" in page
    assert "Half of all sampled times changed by ×1.20 or more" in page


def test_nothing_changed_is_said_too() -> None:
    assert "No regression in 3 cells and 0 figures." in to_markdown(Comparison(cells=3))
