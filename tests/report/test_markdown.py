"""`STATUS.md`: what it must say, and that nothing in a report can break it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from assay.measure.statistics import duration
from assay.report import units
from assay.report.markdown import render
from assay.schema import Check, Evidence, Layer, Metric, Status, Throttling
from tests import strategies as make


def section(page: str, heading: str) -> str:
    return re.split(r"^#+ ", page.partition(f"# {heading}\n")[2], flags=re.MULTILINE)[0]


def line(text: str, start: str) -> str:
    return next(each for each in text.splitlines() if each.startswith(start))


def test_a_row_has_glyph_word_and_latency() -> None:
    page = render(make.full_matrix())
    row = line(section(page, "Status matrix"), "| BERT |")
    assert [each.strip() for each in row.strip("|").split("|")][2:] == [
        "✔ REAL 1.90 ms", "∅ UNAVAILABLE", "≉ INACCURATE 1.90 ms", "· PENDING",
    ]  # fmt: skip
    assert "40 cells: 10 REAL, 1 INACCURATE, 1 FALLBACK, 1 MOCK, 1 UNPROVEN, 1 FAILED, 10 UNAVAILABLE, 15 PENDING." in (
        page
    )


def test_every_status_that_appears_is_explained() -> None:
    page = section(render(make.full_matrix()), "Status matrix")
    for status in Status:
        assert re.search(rf"^- . {status}: ", page, re.MULTILINE), status


def test_equal_causes_are_one_line_and_every_other_has_its_own() -> None:
    causes = section(render(make.full_matrix()), "Why cells are not REAL")
    assert causes.count("no NVIDIA driver") == 1
    assert "**UNAVAILABLE** cuda: all 10 families. no NVIDIA driver. Looked for: libcuda.so.1; /dev/nvidia0." in causes
    assert "**FAILED** openvino: CLIP. builder, build: killed by SIGSEGV." in causes
    assert "```text\none\ntwo\n```" in causes
    for status in Status:
        assert (f"**{status}**" in causes) is (status is not Status.REAL)


def test_a_cause_says_where_the_difference_enters() -> None:
    wrong = make.cell(evidence=make.evidence({(Layer.AGREEMENT, "error"): False}), diagnosis=make.diagnosis())
    causes = section(render(make.matrix(make.report(wrong))), "Why cells are not REAL")
    assert (
        "- ≉ **INACCURATE** cpu: BERT. error was looked at; the difference enters at exported program or ONNX, "
        "first in encoder.layer.1." in causes
    )


def test_bounds_stand_beside_errors() -> None:
    table = section(render(make.full_matrix()), "Agreement and its bounds")
    row = [each.strip() for each in line(table, "| BERT |").strip("|").split("|")]
    assert row[2:] == ["1.0e-07 / 1.0e-06", "—", "2.0e+00 / 1.0e-06 (INACCURATE)", "—"]


def test_each_kind_of_family_has_its_table_with_units() -> None:
    page = render(make.full_matrix())
    for heading in ("Text", "Vision", "Audio", "Embeddings", "Generation"):
        assert section(page, heading).count("latency"), heading
    row = [each.strip() for each in line(section(page, "Text"), r"| BERT (tiny, f32) | latency").strip("|").split("|")]
    assert row[1:] == ["latency", "ms", "1.90 (1.85–1.95)", "—", "1.90 (1.85–1.95) (INACCURATE)", "—"]
    assert "| peak memory | MiB | 123 |" in page


def test_a_tail_that_is_known_and_tiny_figures_are_told_in_their_own_unit() -> None:
    metrics = make.cell().metrics | {
        "latency": duration([1e-3 + 1e-6 * (37 * number % 101) for number in range(101)]),
        "harness_time": Metric(value=4.2e-7, unit="s"),
        "memory_per_vector": Metric(value=1536, unit="B"),
    }
    text = section(render(make.matrix(make.report(make.cell(metrics=metrics)))), "Text")
    assert "| latency | ms | 1.05 (1.04–1.06), p99 1.10 |" in text
    assert "| harness time | µs | 0.420 |" in text
    assert "| memory per vector | B | 1,536 |" in text
    assert "| load time | ms | 12.3 |" in text and "| peak memory | MiB | 123 |" in text


def test_an_unstable_figure_is_marked() -> None:
    shaky = {"latency": Metric(value=2e-3, unit="s", stable=False)}
    page = render(make.matrix(make.report(make.cell(metrics=shaky))))
    assert "✔ REAL ~2.00 ms" in page
    assert "| latency | ms | ~2.00 |" in page


def test_machine_versions_warnings_and_superseded_are_there() -> None:
    page = render(make.matrix(
        make.report(make.cell()), make.report(make.cell(), session="s0", start=-9, machine=make.on("attic")),
        make.report(make.cell(backend="openvino", checkpoint=make.checkpoint("other")), session="s3"),
    ))  # fmt: skip
    assert "torch 2.13.0+cpu" in section(page, "Environment")
    assert "| box | Linux | Some Processor | 2 | 8.00 GiB | — |" in page
    assert "> **Warning:** bert, tiny, f32: the local test model differs" in page
    assert "- cpu, session `s0` of 2025-12-31 on attic: 1 REAL" in section(page, "Superseded")


def test_several_devices_share_a_place_with_their_names() -> None:
    page = render(make.matrix(make.report(*(make.cell(device=name) for name in ("one", "two")))))
    assert "✔ REAL 1.90 ms (one)<br>✔ REAL 1.90 ms (two)" in page


def test_of_several_machines_each_cell_names_its_own() -> None:
    page = render(make.matrix(
        make.report(make.cell(), make.failed("clip")),
        make.report(make.cell(backend="openvino"), session="s2", machine=make.on("to_wer")),
        make.report(make.unavailable(), session="s3", machine=make.on("attic")),
        make.report(make.cell("t5", device="other"), session="s4", machine=make.on("attic")),
        make.report(make.cell("t5", device="third"), session="s5", machine=make.on("attic")),
    ))  # fmt: skip
    table = section(page, "Status matrix")
    bert, clip, t5 = (
        [each.strip() for each in line(table, f"| {family} |").strip("|").split("|")][2:]
        for family in ("BERT", "CLIP", "T5")
    )
    assert bert == ["✔ REAL 1.90 ms (box)", "∅ UNAVAILABLE (attic)", r"✔ REAL 1.90 ms (to\_wer)", "· PENDING"]
    assert clip[0] == "✘ FAILED (box)"
    assert t5[0] == "✔ REAL 1.90 ms (other, attic)<br>✔ REAL 1.90 ms (third, attic)"
    for name in ("box", r"to\_wer", "attic"):
        assert line(section(page, "Environment"), f"| {name} | Linux |")
    assert "Several machines measured" in section(page, "Metrics")


def test_one_machine_is_named_once() -> None:
    page = render(make.matrix(
        make.report(make.cell()),
        # The same machine after an update.
        make.report(make.cell("clip"), session="s2", machine=make.on("box").model_copy(update={"system": "Linux 7"})),
    ))  # fmt: skip
    assert "(box)" not in page and "Several machines" not in page


def test_machines_of_one_name_are_told_apart_by_their_processors() -> None:
    other = make.on("box").model_copy(update={"processor": "Another Processor"})
    page = render(make.matrix(make.report(make.cell()), make.report(make.cell("t5"), session="s2", machine=other)))
    assert "| ✔ REAL 1.90 ms (box, Some Processor) |" in page
    assert "| ✔ REAL 1.90 ms (box, Another Processor) |" in page


def test_two_machines_in_one_place_are_named_once_each() -> None:
    here = make.report(make.failed(size="own"))
    there = make.report(make.failed(size="own"), session="s2", machine=make.on("tower"))
    assert "| ✘ FAILED (box)<br>✘ FAILED (tower) |" in render(make.matrix(here, there))


def test_a_family_that_is_not_installed_has_a_row_and_a_table() -> None:
    page = render(make.matrix(make.report(make.cell("mamba"))))
    assert line(page, "| mamba |")
    assert "mamba (tiny, f32)" in section(page, "Other")


def test_a_figure_that_did_not_settle_says_why() -> None:
    drifting = tuple(1e-3 * (1 + number / 20) for number in range(40))
    found = {"latency": duration(drifting)}
    page = render(make.matrix(make.report(make.cell(samples={"latency": drifting}, metrics=found))))
    said = section(page, "What did not settle")
    assert "on cpu, latency: they drift: the last third takes 2." in said
    assert "What did not settle" not in render(make.matrix(make.report(make.cell(samples={"latency": (1e-3,) * 30}))))


def test_a_cell_that_was_kept_from_the_processor_is_named() -> None:
    kept = Throttling(seconds=2.0, stolen=0.5, quota=0.01)
    said = section(render(make.matrix(make.report(make.cell(throttling=kept)))), "What did not settle")
    assert "- BERT (tiny, f32) on cpu: of the time in which it was timed 25.0% was taken by the host" in said
    quiet = kept.model_copy(update={"stolen": 0.05})
    assert "What did not settle" not in render(make.matrix(make.report(make.cell(throttling=quiet))))


def test_a_page_that_would_be_too_long_names_what_it_leaves_out() -> None:
    whole = render(make.full_matrix())
    assert "Left out" not in whole
    shorter = render(make.full_matrix(), limit=len(whole.encode()) - 1)
    assert len(shorter.encode()) < len(whole.encode())
    assert shorter.rstrip().endswith("Left out, because this page would be too long: logs. `matrix.json` has them.")
    assert "<details>" in whole and "<details>" not in shorter
    least = render(make.full_matrix(), limit=0)
    assert section(least, "Status matrix") == section(whole, "Status matrix")
    assert "metrics, agreement, causes" in least and "## Metrics" not in least
    assert "## Environment" in least


def test_the_page_is_the_same_every_time() -> None:
    assert render(make.full_matrix()) == render(make.full_matrix())


nasty = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20) | st.sampled_from(
    ("a | b", "<script>", "x\ny", "\x1b[31mred", "`code`", "| --- |", "[link](x)", "*bold*")
)


@given(nasty, nasty)
def test_no_text_of_a_report_can_break_a_table_or_become_markup(name: str, reason: str) -> None:
    evidence = Evidence(layer=Layer.AGREEMENT, checks=(Check(name="error", value=2, bound=1, text=reason),))
    cells = (make.cell(name, reason, evidence=(evidence,), size=name, device=reason), make.failed(reason, "cpu"))
    page = render(make.matrix(make.report(*cells, session=name)))
    body = re.sub(r"^```+text\n.*?^```+$", "", page, flags=re.MULTILINE | re.DOTALL)
    assert not re.search("(?<!`)<script", body)  # in a code span it is text
    assert "\x1b" not in page
    for table in re.findall(r"(?:^\|.*\|$\n?)+", body, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(widths) == 1


def test_numbers_have_three_digits() -> None:
    shown = {0: "0", 1.9: "1.90", 12.34: "12.3", 9.996: "10.0", 99.96: "100", 8421.05: "8,421", 0.0123: "0.0123",
             1.5e-7: "1.50e-07", -12.34: "-12.3", 2e12: "2.00e+12"}  # fmt: skip
    assert {value: units.number(value) for value in shown} == shown
    assert [units.duration(value) for value in (90, 1.5, 0.0019, 4.5e-4, 0)] == [
        "90.0 s", "1.50 s", "1.90 ms", "450 µs", "0 µs",
    ]  # fmt: skip
    assert [units.amount(value) for value in (512, 2048, 123 * 2**20, 2**30)] == [
        "512 B", "2.00 KiB", "123 MiB", "1.00 GiB",
    ]  # fmt: skip
