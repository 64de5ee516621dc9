"""The page's difference to a baseline: what `assay compare` found, at every cell and in its evidence."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from assay import families
from assay.cli import main
from assay.compare import Side, compare
from assay.matrix import Matrix
from assay.report import comparison, page
from assay.report.page.difference import GLYPHS
from assay.schema import Cell, Layer, Metric
from assay.session_report import SessionReport
from tests import strategies as make
from tests.report.conftest import PHONE, PICTURES, Open
from tests.report.many_cells import later, many
from tests.report.test_page import Elements, packed

NAMES = families.names()
MOVED = {"bert": 3.0, "clap": 0.4}
"""What the latency of these changes by on cpu."""


def timed(family: str, seconds: float, **changes: Any) -> Cell:
    """A cell whose fastest call took so long."""
    metrics = make.cell().metrics | {"latency": Metric(value=1.1 * seconds, unit="s", samples=3)}
    samples = {"latency": (1.1 * seconds, seconds, 1.3 * seconds)}
    return make.cell(family, metrics=metrics, samples=samples, **changes)


def column(session: str, changed: dict[str, float], **changes: dict[str, Any]) -> SessionReport:
    """All families on cpu, latencies off by 2 %; `changes` by family."""
    draw = random.Random(session)
    cells = [
        timed(name, 2e-3 * changed.get(name, 1) * draw.lognormvariate(0, 0.02), **changes.get(name, {}))
        for name in NAMES
    ]
    return make.report(*cells, session=session, start=0 if session == "old" else 86_400)


def before() -> Matrix:
    """T5 is REAL on OpenVINO and CLIP a MOCK; somebody's checkpoint was run."""
    mine = make.cell(size="own", checkpoint=make.checkpoint("mine", "path"))
    mock = make.cell("clip", "openvino", evidence=make.evidence({(Layer.AGREEMENT, "follows_inputs"): False}))
    rest = make.report(make.cell("t5", "openvino"), mock, make.unavailable("llama"), session="old-2")
    return make.matrix(column("old", {}), rest, make.report(mine, session="old-3"))


def after() -> Matrix:
    """T5 failed, CLIP is REAL, two latencies and an error have changed, the checkpoint is another one."""
    other = make.cell(size="own", checkpoint=make.checkpoint("other", "path"))
    first, *others = make.evidence()
    checks = (
        each.model_copy(update={"value": 5e-7}) if each.name == "error" else each for each in first.checks
    )  # fmt: skip
    moved = {"evidence": (first.model_copy(update={"checks": tuple(checks)}), *others)}
    rest = make.report(
        make.failed("t5", "openvino", known=True), make.cell("clip", "openvino"), make.unavailable("llama"),
        session="new-2", start=86_400,
    )  # fmt: skip
    new = column("new", MOVED, whisper=moved)
    return make.matrix(new, rest, make.report(other, session="new-3", start=86_400))


BASELINE = page.Baseline("baseline.json", Side(before(), None))


@pytest.fixture(scope="module")
def text() -> str:
    return page.render(after(), BASELINE)


# Without a browser


def test_a_page_without_a_baseline_holds_nothing_of_it(text: str) -> None:
    plain = page.render(after())
    ids = {str(attributes["id"]) for _, attributes in Elements(plain).found if "id" in attributes}
    more = {str(attributes["id"]) for _, attributes in Elements(text).found if "id" in attributes} - ids
    assert more == {"changed", "against"}
    for word in ("regression", "Against", "Only what changed", "readOthers"):
        assert word in text and word not in plain
    assert "against" not in {**packed(plain, "index"), **packed(plain, "evidence")["cells"]}
    cells = [packed(each, "evidence")["cells"] for each in (plain, text)]
    assert cells[1].pop("against") and cells[0] == cells[1]


def test_every_finding_of_compare_is_in_the_page_and_no_other(text: str) -> None:
    found = compare(BASELINE.side, Side(after(), None))
    against = packed(text, "index")["against"]
    statuses, errors, figures = [], [], []
    for index, cell in enumerate(after().cells):
        for each in packed(text, "evidence")["cells"]["against"][index] or ():
            if each.get("status", ["", ""])[1]:
                statuses.append((cell.family, *each["status"]))
            if "error" in each:
                errors.append((cell.family, *each["error"]))
            for kind, base, new, ratio, p, outcome in each.get("figures", ()):
                said = against["outcomes"][outcome]
                figures.append((against["kinds"][kind][1], base, new, ratio, p, said if said in GLYPHS else None))
    gone = [each for each in found.statuses if each.new == "PENDING"]
    assert [each.cell for each in gone] == ["bert on cpu, mine 3fd30542, f32"]
    assert sorted(statuses) == sorted(
        (each.cell.split()[0], each.base, each.verdict) for each in found.statuses if each not in gone
    )
    assert errors == [("whisper", pytest.approx(0.1), pytest.approx(0.5))] and len(found.errors) == 1
    assert [each[-1] for each in figures] == [each.verdict for each in found.metrics]
    for (unit, base, new, ratio, p, _), change in zip(figures, found.metrics, strict=True):
        assert unit == change.unit
        assert (base, new) == (pytest.approx(change.base, rel=5e-3), pytest.approx(change.new, rel=5e-3))
        assert (ratio, p) == (pytest.approx(change.ratio, abs=5e-3), float(f"{change.p:.1g}"))


def test_the_head_says_against_what_and_how_much(text: str) -> None:
    head = re.sub("<[^>]*>", "", re.findall(r'<p class="against">.*?</p>', text, re.DOTALL)[0])
    assert head == (
        "Against baseline.json, measured 2026-01-01 on box (Some Processor, 2 cores) by assay 0.1.0: ▼ 3 regressions, "
        "▲ 2 improvements, ◆ 1 other change in 14 cells and 10 figures. 1 cell is new. 1 cell is no longer here."
    )
    assert comparison.summary(compare(BASELINE.side, Side(after(), None))) == (
        "3 regressions, 2 improvements in 14 cells and 10 figures"
    )


def test_a_matrix_against_itself_has_no_mark() -> None:
    same = page.render(before(), BASELINE)
    assert packed(same, "index")["against"]["changed"] == {}
    assert "nothing changed in 14 cells and 0 figures" in same and 'class="mark' not in same


def test_what_was_not_compared_is_said_at_the_cell_and_below_the_matrix() -> None:
    elsewhere = column("new", {}).model_copy(update={"machine": make.on("tower").model_copy(update={"cores": 64})})
    new = make.matrix(elsewhere)
    text = page.render(new, BASELINE)
    assert "Figures not compared, other number of cores: bert on cpu, tiny, f32; clip on cpu" in text
    assert "language-model on cpu" not in text and "and 5 more." in text
    (first,) = packed(text, "evidence")["cells"]["against"][0]
    assert first["apart"] == "other number of cores" and "figures" not in first


def test_a_name_in_the_baseline_becomes_no_markup() -> None:
    evil = "<img src=x onerror=alert(1)>"
    mine = make.cell(size="own", checkpoint=make.checkpoint(evil, "path"))
    base = page.Baseline(f"{evil}.json", Side(make.matrix(make.report(mine)), None))
    text = page.render(after(), base)
    assert "img" not in {tag for tag, _ in Elements(text).found}
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") == 2


def test_the_command_takes_what_compare_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sessions").mkdir()
    report, output = tmp_path / "sessions" / "new.json", tmp_path / "out"
    report.write_text(column("new", MOVED).model_dump_json(), encoding="utf-8")
    merge = ["merge", str(report.parent), "--output", str(output)]
    for name, content in (("matrix.json", before()), ("report.json", column("old", {}))):
        (tmp_path / name).write_text(content.model_dump_json(), encoding="utf-8")
        assert main([*merge, "--baseline", str(tmp_path / name)]) == 0
        text = (output / "index.html").read_text(encoding="utf-8")
        assert f"Against <b>{name}</b>, measured 2026-01-01" in text and "fastest latency ×3.12" in text
        assert main([*merge, "--baseline", str(tmp_path / name), "--threshold", "400"]) == 0
        assert "fastest latency ×3.12" not in (output / "index.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main([*merge, "--baseline", str(output / "matrix.json")]) == 0  # which it overwrites
    assert "nothing changed in 10 cells" in (output / "index.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main([*merge, "--baseline", "none.json"]) == 2
    assert capsys.readouterr().err == "assay: error: none.json: no such file or folder\n"
    assert main([*merge, "--baseline", str(report), "--threshold", "-1"]) == 2
    assert capsys.readouterr().err == "assay: error: --threshold takes percent, not -1.0\n"
    assert main(merge) == 0
    assert "Against" not in (output / "index.html").read_text(encoding="utf-8")


# In a browser


def shown(tab: Page) -> list[str]:
    return [each.split("\n")[0] for each in tab.locator("tr.row > th").all_inner_texts()]


@pytest.mark.parametrize("script", [True, False])
def test_each_cell_that_changed_says_so_in_words(show: Open, script: bool) -> None:
    tab = show(after(), baseline=BASELINE, script=script)
    marks = [" ".join(each.split()) for each in tab.locator("table.matrix em.mark").all_inner_texts()]
    assert marks == [
        "▼ regression: fastest latency ×3.12, 1.98 ms → 6.18 ms",
        "▲ improvement: was MOCK",
        "▼ regression: was REAL",
        "◆ change: error ×5.00, 0.100 → 0.500 of its bound",
        "▲ improvement: fastest latency ×0.39, 2.07 ms → 813 µs",
        "+ new: not in the baseline",
    ]
    lost = tab.locator("#against li").inner_text()
    assert "▼ regression" in lost and "bert on cpu, mine" in lost and "was ✔ REAL" in lost


def test_only_what_changed_is_one_key_away_and_stays_in_the_address(show: Open) -> None:
    tab = show(after(), baseline=BASELINE)
    box = tab.get_by_role("checkbox", name="Only what changed")
    box.focus()
    tab.keyboard.press("Space")
    assert shown(tab) == ["BERT", "CLIP", "T5", "WHISPER", "CLAP", "BERT"]
    expect(tab.get_by_role("status")).to_have_text("6 cells shown")
    assert tab.url.endswith("#changed=1")
    assert tab.locator("tr.row a:not([data-dim])").count() == 6
    tab.reload()
    tab.wait_for_selector("html[data-complete]", state="attached")
    expect(box).to_be_checked()
    tab.get_by_role("button", name="FAILED").click()
    assert shown(tab) == ["T5"] and tab.url.endswith("#status=FAILED&changed=1")
    tab.get_by_role("button", name="Reset").click()
    assert len(shown(tab)) == 11 and tab.url.endswith("#")
    expect(box).not_to_be_checked()
    tab.get_by_role("searchbox").fill("regression")
    assert shown(tab) == ["BERT", "T5"]


def test_the_views_show_only_what_changed_too(show: Open) -> None:
    tab = show(after(), "#view=audio&changed=1", baseline=BASELINE)
    assert shown(tab) == ["WHISPER", "CLAP"]
    assert "WAV2VEC2" not in tab.locator("#figures").inner_text()
    expect(tab.locator("#against")).to_be_hidden()


def test_of_very_many_cells_those_that_changed_are_found_in_rows_that_wait(show: Open) -> None:
    base = many(1_200)
    tab = show(later(base), baseline=page.Baseline("base.json", Side(base, None)))
    assert tab.locator("tr.row").count() == 200
    tab.get_by_role("checkbox", name="Only what changed").click()
    expect(tab.locator("tr.row em.regression").last).to_be_visible()
    left = tab.locator("tr.row").count()
    assert 0 < left < 200 and tab.locator("tr.row:has(em.regression)").count() == left
    assert any(
        int(name.split()[-2].removeprefix("model-")) >= 200
        for name in tab.locator("tr.row > th small").all_inner_texts()
    )


def findings(tab: Page) -> list[list[str]]:
    return [[cell.strip() for cell in row.split("\t")] for row in tab.locator(".differences tr").all_inner_texts()]


def test_a_cell_lists_its_findings_and_whether_they_count(show: Open) -> None:
    tab = show(after(), "#cell=bert/cpu/tiny/f32", baseline=BASELINE)
    panel = tab.get_by_role("dialog")
    expect(panel.get_by_role("heading", name="Against the baseline")).to_be_visible()
    expect(panel).to_contain_text("Measured 2026-01-01 00:00 on box.")
    head, status, latency = findings(tab)
    assert head == ["Figure", "Before", "Now", "Ratio", "p", "Counts as"]
    assert status == ["Status", "✔ REAL", "✔ REAL", "", "", "the same"]
    assert latency[:4] == ["Fastest latency", "1.98 ms", "6.18 ms", "×3.12"] and latency[5] == "▼ regression"
    assert float(latency[4]) < 0.05
    for address, line in (
        ("clip/cpu/tiny/f32", ["Fastest latency", "2.00 ms", "1.96 ms", "×0.98", "1", "may be chance"]),
        ("t5/openvino/tiny/f32", ["Status", "✔ REAL", "✘ FAILED", "", "", "▼ regression"]),
        ("whisper/cpu/tiny/f32", ["Agreement error, share of its bound", "0.100", "0.500", "×5.00", "", "◆ change"]),
    ):
        tab.goto(tab.url.partition("#")[0] + f"#cell={address}")
        assert line in findings(tab)
    expect(panel).to_contain_text("Measured")
    tab.goto(tab.url.partition("#")[0] + "#cell=bert/cpu/own/f32")
    expect(panel).to_contain_text("+ new: the baseline has no such cell.")


def test_paper_gets_the_marks(show: Open) -> None:
    tab = show(after(), baseline=BASELINE)
    tab.emulate_media(media="print")
    expect(tab.get_by_text("Only what changed")).to_be_hidden()
    expect(tab.locator("p.against")).to_be_visible()
    expect(tab.locator("em.regression").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("name", "address", "options"),
    [
        ("baseline", "", {}), ("changed", "#changed=1", {}), ("against", "#cell=bert/cpu/tiny/f32", {}),
        ("phone-baseline", "#changed=1", PHONE), ("phone-against", "#cell=bert/cpu/tiny/f32", PHONE),
    ],
)  # fmt: skip
def test_it_is_accessible(show: Open, name: str, address: str, options: dict[str, Any], scheme: str) -> None:
    tab = show(after(), address, baseline=BASELINE, color_scheme=scheme, reduced_motion="reduce", **options)
    PICTURES.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=PICTURES / f"{name}-{scheme}.png")
    assert Axe().run(tab).generate_snapshot() == ""
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
