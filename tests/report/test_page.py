"""The page, in a real browser where there is one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, expect

from assay.evidence import LAYERS
from assay.report import grid, page, units
from assay.report.page import data
from assay.schema import Cell, Check, Evidence, Layer, Metric, Status, Throttling, Workload
from tests import strategies as make
from tests.report.conftest import PHONE, PICTURES, Open
from tests.report.many_cells import many
from tests.test_noxfile import ROOT

VENDOR = ROOT / "src" / "assay" / "report" / "page" / "vendor"

# Without a browser


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def packed(text: str, part: str) -> Any:
    (block,) = re.findall(rf'id="packed-{part}">(.*?)</script>', text, re.DOTALL)
    return json.loads(zlib.decompress(base64.b85decode(block.replace(".", "<"))))


def test_nothing_in_the_page_names_another_place() -> None:
    for tag, attributes in Elements(page.render(make.full_matrix())).found:
        assert tag not in ("img", "iframe", "object", "embed", "form", "base")
        for name in ("src", "href", "action", "srcset"):
            assert re.match(r"#|data:,$", attributes.get(name) or "#"), (tag, attributes)


def test_the_policy_names_the_script_and_the_style_and_nothing_else() -> None:
    text = page.render(make.full_matrix())
    (policy,) = [found["content"] for tag, found in Elements(text).found if tag == "meta" and "http-equiv" in found]
    for directive, pattern in (("script-src", "<script>(.*?)</script>"), ("style-src", "<style>(.*?)</style>")):
        (inside,) = re.findall(pattern, text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in str(policy)
    assert str(policy).startswith("default-src 'none';")


def test_a_cell_that_was_kept_from_the_processor_has_a_note() -> None:
    for stolen, noted in ((0.5, True), (0.05, False)):
        cell = make.cell(throttling=Throttling(seconds=2.0, stolen=stolen))
        texts = packed(page.render(make.matrix(make.report(cell))), "index")["tables"]["texts"]
        assert any("25.0% was taken by the host" in text for text in texts) is noted


def test_the_vendored_files_are_those_that_their_list_names() -> None:
    listed = dict(re.findall(r"\| `(\S+)` \| [\d.]+ \| `([0-9a-f]{64})` \|", (VENDOR / "README.md").read_text()))
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.js")}
    assert set(listed) == {f"{name}.min.js" for name in page.VENDORED}


def test_the_page_is_the_same_every_time() -> None:
    assert page.render(make.full_matrix()) == page.render(make.full_matrix())


nasty = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12) | st.sampled_from(
    ("</script><script>alert(1)</script>", "<!--", '"onmouseover="x', "&amp;", "{{ data }}", "{{ script }}", "a/b#c?d")
)


@given(nasty, nasty)
def test_no_text_of_a_report_becomes_markup(name: str, reason: str) -> None:
    evidence = Evidence(layer=Layer.AGREEMENT, checks=(Check(name="error", value=2, bound=1, text=reason),))
    cells = (make.cell(name, reason, evidence=(evidence,), size=name, device=reason), make.failed(reason, "cpu"))
    text = page.render(make.matrix(make.report(*cells, session=name)))
    plain = page.render(make.matrix(make.report(*(cell.model_copy(update={"size": "own"}) for cell in cells))))
    tags = [tag for tag, _ in Elements(text).found]
    assert tags.count("script") == 3
    assert set(tags) == {tag for tag, _ in Elements(plain).found} | ({"tr"} & set(tags))
    assert not any(key.startswith("on") for _, attributes in Elements(text).found for key in attributes)
    assert reason in {text for column in packed(text, "evidence")["lists"]["sentences"] for text in column}


@given(st.lists(make.reports(), max_size=6))
def test_every_cell_has_a_link_of_its_own(found: list[Any]) -> None:
    cells = make.matrix(*found).cells
    assert len(set(data.addresses(cells))) == len(cells)


def test_a_link_is_the_same_after_another_merge() -> None:
    before = make.matrix(make.report(make.cell()))
    after = make.matrix(make.report(make.cell()), make.report(make.cell("clip", "openvino"), session="s2", start=9))
    assert set(data.addresses(before.cells)[:1]) <= set(data.addresses(after.cells))


@given(st.floats(1e-9, 1e9) | st.floats(90, 1100), st.sampled_from(("s", "tokens/s")))
def test_no_digit_that_is_shown_is_lost(value: float, unit: str) -> None:
    exact = Metric(value=value, unit=unit)
    kept = data.figure(exact, value)
    assert kept is not None
    assert units.quantity(exact.model_copy(update={"value": kept})) == units.quantity(exact)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=200))
def test_dots_stand_where_their_samples_lie(samples: list[float]) -> None:
    count, low, high, *moves = data.dots(samples)
    places = [sum(moves[: at + 1]) for at in range(len(moves))]  # type: ignore[arg-type]
    assert count == len(samples)
    assert len(places) == min(len(samples), data.DOTS)
    assert places == sorted(places)
    assert places[0] >= 0 and places[-1] <= data.STEPS
    assert low == pytest.approx(max(min(samples), 1e-9), rel=1e-2) and high == pytest.approx(
        max(*samples, 1e-9), rel=1e-2
    )


def test_the_middle_dot_is_the_median() -> None:
    _, low, high, *moves = data.dots([1.0] * 10 + [10.0] * 81 + [100.0] * 10)
    assert (low, high) == (1, 100)
    assert sum(moves[:11]) == data.STEPS / 2  # type: ignore[arg-type]


ELSEWHERE = {"machine": make.on("tower")}


@pytest.mark.parametrize(
    ("changes", "session", "shown"),
    [
        ({}, {}, True),
        ({}, ELSEWHERE, False),
        ({}, {"environment": make.report().environment.model_copy(update={"threads": 1})}, False),
        ({"workloads": (Workload(name="measured", batch=8),)}, {}, False),
        ({"checkpoint": make.checkpoint("other")}, {}, False),
        ({"precision": "bf16"}, {}, False),
        ({"evidence": make.evidence({(Layer.AGREEMENT, "error"): False})}, {}, False),
    ],
)  # fmt: skip
def test_only_like_is_compared_with_like(changes: dict[str, Any], session: dict[str, Any], shown: bool) -> None:
    quick = make.cell(backend="openvino", metrics={"latency": Metric(value=1e-3, unit="s")}, **changes)
    text = page.render(make.matrix(make.report(make.cell()), make.report(quick, session="s2", **session)))
    assert ("<small>1.9×</small>" in text) is shown


@pytest.mark.parametrize(("stable", "said"), [(True, "<small>3.0×</small>"), (False, "<small>~3.0×</small>")])
def test_a_speed_up_is_of_the_familys_own_rate_and_marked_where_one_did_not_settle(stable: bool, said: str) -> None:
    """Of what decodes the latency is that of a pass without a cache, which nobody waits for."""

    def cell(backend: str, latency: float, tokens: float, **rate: bool) -> Cell:
        figures = {
            "latency": Metric(value=latency, unit="s"), "real_time_factor": Metric(value=1 / tokens, unit="s/s"),
            "decode_tokens_per_second": Metric(value=tokens, unit="tokens/s", better="higher", **rate),
        }  # fmt: skip
        return make.cell("t5", backend, metrics=figures)

    reports = make.report(cell("cpu", 1e-3, 100)), make.report(cell("openvino", 1e-3, 300, stable=stable), session="s2")
    text = page.render(make.matrix(*reports))
    assert said in text
    assert ("<i>~300 tokens/s</i>" in text) is not stable and "<i>100 tokens/s</i>" in text


def test_ten_thousand_cells_take_less_than_five_megabytes() -> None:
    """Told from the growth between two smaller pages: what cells share is stored once, and the rest is theirs."""
    small, large = (len(page.render(many(count)).encode()) for count in (1_000, 2_000))
    assert small + (large - small) / 1_000 * 9_000 < 5e6


# In a browser


def rows(tab: Page) -> list[str]:
    return tab.locator("tr.row > th").all_inner_texts()


def titles() -> list[str]:
    return [row.title for row in grid.rows(make.full_matrix())]


@pytest.mark.parametrize("script", [True, False])
def test_the_first_screen_says_every_status_in_words(show: Open, script: bool) -> None:
    tab = show(make.full_matrix(), script=script)
    assert rows(tab) == titles()
    for status in Status:
        assert f"{grid.GLYPHS[status]} {status}" in tab.locator("table.matrix").inner_text()
    assert "1.90 ms" in tab.locator("tr.row").first.inner_text()


def test_a_cell_opens_its_evidence_and_gives_the_focus_back(show: Open) -> None:
    tab = show(make.full_matrix())
    link = tab.locator("a.INACCURATE")
    link.press("Enter")
    panel = tab.get_by_role("dialog", name="BERT on openvino")
    expect(panel).to_be_visible()
    assert re.search(r"#cell=bert/openvino/tiny/f32/[0-9a-f]{8}$", tab.url)
    text = panel.inner_text()
    for layer, checks in LAYERS.items():
        assert str(layer) in text
        for name in checks:
            assert panel.get_by_role("rowheader", name=name.replace("_", " ")).count()
    assert "2.00 > 1.00e-06" in text and "→ INACCURATE" in text and "1.00e-07 ≤ 1.00e-06" in text
    assert "nox -s openvino -- --family bert" in text
    assert make.checkpoint().sha256 in text
    tab.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(link).to_be_focused()
    assert "cell=" not in tab.url


def test_a_failed_check_stands_beyond_its_bound_and_a_passed_one_before_it(show: Open) -> None:
    checks = (
        Check(name="error", value=3e-6, bound=1e-6, text="too large"),
        Check(name="finite", value=0, bound=0, text="all of them"),
        Check(name="follows_inputs", value=0.99, bound=0.5, sense="at_least", text="they do"),
        Check(name="tokens", value=4, bound=0, text="other tokens"),
    )
    cell = make.cell(evidence=(Evidence(layer=Layer.AGREEMENT, checks=checks),))
    tab = show(make.matrix(make.report(cell)), "#cell=bert/cpu/tiny/f32")
    beyond = {}
    for scale in tab.locator("td.scale").all():
        bound, mark = scale.locator(".bound").bounding_box(), scale.locator(".mark").bounding_box()
        assert bound and mark
        name = scale.locator("xpath=..").locator("th").inner_text().split("\n")[0].removeprefix("✔").removeprefix("✘")
        beyond[name.strip()] = mark["x"] + mark["width"] / 2 > bound["x"] + 1
    assert beyond == {"error": True, "finite": False, "follows inputs": False, "tokens": True}


def test_a_failure_shows_its_log_and_an_absence_what_was_looked_for(show: Open) -> None:
    tab = show(make.full_matrix(), "#cell=clip/openvino/tiny/f32")
    assert tab.locator("dialog pre").inner_text() == "one\ntwo"
    tab.goto(tab.url.partition("#")[0] + "#cell=clip/cuda/tiny/f32")
    expect(tab.locator("dialog")).to_contain_text("libcuda.so.1")


def test_a_cell_shows_which_stage_is_guilty_and_what_was_written(show: Open) -> None:
    cell = make.cell(
        evidence=make.evidence({(Layer.AGREEMENT, "error"): False}),
        diagnosis=make.diagnosis(),
        transcript="tick <b>tock",
    )
    panel = show(make.matrix(make.report(cell)), "#cell=bert/cpu/tiny/f32").locator("dialog")
    expect(panel).to_contain_text("The difference enters at exported program or ONNX, first in encoder.layer.1.")
    stages = panel.locator("table.checks").nth(1).locator("tbody tr")
    assert [stage.locator("b").inner_text() for stage in stages.all()] == ["✔", "?", "✘", "✘"]
    expect(panel.get_by_label("Transcript")).to_have_text("tick <b>tock")


def test_the_address_keeps_what_is_shown(show: Open) -> None:
    tab = show(make.full_matrix())
    tab.get_by_role("button", name="1 MOCK").click()
    tab.get_by_role("button", name="1 FAILED").click()
    tab.get_by_role("checkbox", name="cuda").click()
    tab.get_by_role("columnheader", name="cpu").get_by_role("button").click()
    assert rows(tab) == ["CLIP", "T5"]
    assert tab.url.endswith("#status=MOCK,FAILED&hide=cuda&sort=cpu")
    tab.get_by_role("searchbox").fill("sigsegv")
    assert rows(tab) == ["CLIP"]
    tab.reload()
    tab.wait_for_selector("html[data-complete]", state="attached")
    assert rows(tab) == ["CLIP"]
    expect(tab.get_by_role("searchbox")).to_have_value("sigsegv")
    expect(tab.get_by_role("checkbox", name="cuda")).not_to_be_checked()
    expect(tab.get_by_role("button", name="1 MOCK")).to_have_attribute("aria-pressed", "true")
    assert tab.locator("td", has_text="UNAVAILABLE").filter(visible=True).count() == 0
    tab.get_by_role("button", name="Reset").click()
    assert rows(tab) == titles() and tab.url.endswith("#")


def test_a_search_without_a_hit_says_so(show: Open) -> None:
    tab = show(make.full_matrix(), "#q=nothing-like-it")
    expect(tab.get_by_text("No cell is left by these filters.")).to_be_visible()


def test_rows_sort_by_the_latency_of_a_column(show: Open) -> None:
    quick = {"bert": 3e-3, "clip": 1e-3, "t5": 2e-3}
    cells = [make.cell(name, metrics={"latency": Metric(value=value, unit="s")}) for name, value in quick.items()]
    tab = show(make.matrix(make.report(*cells)), "#sort=cpu")
    assert rows(tab)[:4] == ["CLIP", "T5", "BERT", "LLAMA"]
    tab.get_by_role("columnheader", name="cpu").get_by_role("button").click()
    assert rows(tab)[:3] == ["BERT", "T5", "CLIP"]
    expect(tab.get_by_role("columnheader", name="cpu")).to_have_attribute("aria-sort", "descending")


def test_arrows_go_from_cell_to_cell_and_back_undoes_an_opened_one(show: Open) -> None:
    tab = show(make.full_matrix())
    tab.locator("tr.row a").first.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight"):
        tab.keyboard.press(key)
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("dialog", name="LLAMA on openvino")).to_be_visible()
    tab.get_by_role("button", name="Next cell").click()
    expect(tab.get_by_role("dialog", name="LLAMA on onnxruntime")).to_be_visible()
    tab.go_back()
    expect(tab.locator("dialog")).to_be_hidden()
    tab.keyboard.press("/")
    expect(tab.get_by_role("searchbox")).to_be_focused()


def test_a_view_has_the_figures_of_its_kind_against_the_cpu(show: Open) -> None:
    quick = {"latency": Metric(value=1e-3, unit="s", low=9e-4, high=1.1e-3),
             "peak_memory": Metric(value=2**30, unit="B"),
             "tokens_per_second": Metric(value=21050.0, unit="tokens/s", better="higher")}  # fmt: skip
    here = make.report(make.cell(), make.cell("clip"), make.cell("t5"))
    tab = show(make.matrix(here, make.report(make.cell(backend="openvino", metrics=quick), session="s2")), "#view=text")
    assert rows(tab) == ["BERT"]
    cards = {card.get_attribute("aria-label"): card.inner_text() for card in tab.locator(".card").all()}
    assert list(cards) == ["tokens per second", "latency", "peak memory", "load time"]
    assert "1.00 ms 1.9×" in tab.locator(".card", has_text="latency").text_content()
    assert "2.5×" in cards["tokens per second"] and "0.12×" in cards["peak memory"]
    assert "CLIP" not in tab.locator("main").inner_text()
    tab.get_by_role("link", name="Speed and memory").click()
    assert "CLIP" in tab.locator(".card", has_text="latency").inner_text()
    shown = [card.get_attribute("aria-label") for card in tab.locator(".card").all()]
    assert shown == ["latency", "peak memory", "load time"]


def test_throughput_is_drawn_over_the_batch_size(show: Open) -> None:
    slow, quick = (
        make.report(make.cell(backend=name, swept=make.swept(single), metrics=metrics), session=name)
        for name, single in (("cpu", 1.9e-3), ("openvino", 1e-3))
        for metrics in [{"latency": Metric(value=single, unit="s"),
                         "throughput": Metric(value=2 / 1.2 / single, unit="sentences/s", better="higher")}]
    )  # fmt: skip
    tab = show(make.matrix(slow, quick), "#view=text")
    named = tab.get_by_role("img", name="By batch size, sentences/s")
    label = named.get_attribute("aria-label") or ""
    assert "cpu: 1: 530, 2: 880, 4: 920" in label and "openvino: 1: 1,000, 2: 1,700" in label
    # Up is more: both lines rise from one to two.
    marks = [box for mark in named.locator("path").all() if (box := mark.bounding_box())]
    assert len(marks) == 6
    assert marks[1]["y"] < marks[0]["y"] and marks[4]["y"] < marks[3]["y"] and marks[3]["y"] < marks[0]["y"]
    expect(tab.get_by_role("img", name="By length, time: cpu: 16: 1.9 ms, 32: 3.8 ms")).to_be_visible()
    tab.goto(tab.url.partition("#")[0] + "#cell=bert/openvino/tiny/f32")
    panel = tab.locator("dialog")
    expect(panel.get_by_role("table", name="throughput by batch size")).to_contain_text("1,000")


def test_figures_read_as_everywhere_else(show: Open) -> None:
    values = (0, 1.9, 12.34, 9.996, 99.96, 104.4, 8421.05, 0.0123, 4.5e-4, 1.5e-7, 2e12, 123 * 2.0**20, 2.0**30, 512)
    metrics = {
        f"{at} {unit}": Metric(value=value, unit=unit)
        for at, value in enumerate(values) for unit in ("s", "B", "tokens/s")
    }  # fmt: skip
    tab = show(make.matrix(make.report(make.cell(metrics=metrics, samples={}))), "#cell=bert/cpu/tiny/f32")
    shown = tab.locator("table.numeric tbody tr").evaluate_all("rows => rows.map(row => row.cells[1].textContent)")
    assert shown == [units.quantity(metric) for metric in metrics.values()]


def test_of_very_many_rows_only_the_first_are_laid_out(show: Open) -> None:
    tab = show(many(1_200))
    assert tab.locator("tr.row").count() == 200
    tab.get_by_role("searchbox").fill("model-299")
    assert [row.split("\n")[0] for row in rows(tab)] == ["Language Model"]
    tab.locator("tr.row a").first.click()
    expect(tab.get_by_role("dialog", name="Language Model on cpu")).to_be_visible()
    tab.keyboard.press("Escape")
    tab.get_by_role("button", name="Reset").click()
    tab.get_by_role("button", name="Show all 300 rows").click()
    assert tab.locator("tr.row").count() == 300


def test_the_browser_refuses_what_the_policy_does_not_name(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    smuggled = '<script>document.title = "run"</script><img src="http://127.0.0.1:9/x.png"></body>'
    path.write_text(page.render(make.full_matrix()).replace("</body>", smuggled), encoding="utf-8")
    tab = browser.new_page()
    refused: list[str] = []
    tab.on("console", lambda message: refused.append(message.text))
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-complete]", state="attached")
    assert tab.title() == "Status matrix · assay"
    assert any("inline script" in line for line in refused) and any("127.0.0.1" in line for line in refused)
    tab.context.close()


def test_paper_gets_the_matrix_without_its_controls(show: Open) -> None:
    tab = show(make.full_matrix())
    tab.emulate_media(media="print")
    expect(tab.get_by_role("searchbox")).to_be_hidden()
    expect(tab.get_by_role("columnheader", name="openvino")).to_be_visible()
    for text in ("INACCURATE", "Why cells are not REAL"):
        expect(tab.locator("main").get_by_text(text).first).to_be_visible()
    assert tab.pdf().startswith(b"%PDF")
    tab.emulate_media(media="screen")
    tab.locator("a.FAILED").click()
    tab.emulate_media(media="print")
    expect(tab.locator("table.matrix")).to_be_hidden()
    expect(tab.locator("dialog h2")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("name", "address", "options"),
    [
        ("matrix", "", {}), ("evidence", "#cell=bert/openvino/tiny/f32", {}), ("generation", "#view=generation", {}),
        ("filtered", "#status=MOCK,FAILED&sort=cpu", {}), ("phone", "", PHONE),
        ("phone-evidence", "#cell=llama/cpu/tiny/f32", PHONE),
    ],
)  # fmt: skip
def test_it_is_accessible(show: Open, name: str, address: str, options: dict[str, Any], scheme: str) -> None:
    tab = show(make.full_matrix(), address, color_scheme=scheme, reduced_motion="reduce", **options)
    PICTURES.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=PICTURES / f"{name}-{scheme}.png")
    assert Axe().run(tab).generate_snapshot() == ""
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_is_not_accessible_is_found(show: Open) -> None:
    tab = show(make.full_matrix())
    tab.evaluate("document.querySelector('#search').parentElement.replaceChildren(document.querySelector('#search'))")
    tab.evaluate("document.querySelector('#search').removeAttribute('placeholder')")
    assert "label (critical) : 1" in Axe().run(tab).generate_snapshot()
