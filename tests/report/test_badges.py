"""Badges: well-formed, readable without colour, and green only where everything judged is REAL."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from assay.matrix import Matrix
from assay.report.badges import GREEN, GREY, RED, files
from tests import strategies as make

SVG = "{http://www.w3.org/2000/svg}"


def read(matrix: Matrix) -> dict[str, tuple[str, str]]:
    """What each badge says to a screen reader, and its colour."""
    found = {}
    for path, text in files(matrix).items():
        root = ET.fromstring(text)  # noqa: S314 (our own)
        title, label = root.findtext(f"{SVG}title"), root.get("aria-label")
        assert title == label == ": ".join(each.text or "" for each in root.iter(f"{SVG}text"))
        found[path] = (title or "", list(root.iter(f"{SVG}rect"))[1].get("fill") or "")
    return found


def test_a_badge_a_column_and_a_row() -> None:
    found = read(make.full_matrix())
    assert len(found) == 4 + 10
    assert found["badges/column-cpu.svg"] == ("cpu: 10 of 10 REAL", GREEN)
    assert found["badges/column-cuda.svg"] == ("cuda: UNAVAILABLE", GREY)
    assert found["badges/column-openvino.svg"] == ("openvino: 0 of 5 REAL", RED)
    assert found["badges/column-onnxruntime.svg"] == ("onnxruntime: PENDING", GREY)
    assert found["badges/row-t5-tiny-f32.svg"] == ("T5 tiny f32: REAL on cpu · MOCK on openvino", RED)
    assert found["badges/row-xclip-tiny-f32.svg"] == ("XCLIP tiny f32: REAL on cpu", GREEN)


def test_names_are_escaped_and_stay_in_the_folder() -> None:
    own = make.cell("bert", "../<b>", size="own", checkpoint=make.checkpoint("a&b", "path"))
    found = read(make.matrix(make.report(own, backend="../<b>")))
    assert all(path.count("/") == 1 and ".." not in path for path in found)
    assert found["badges/column-b.svg"] == ("../<b>: 1 of 1 REAL", GREEN)
    assert any(title.startswith("BERT a&b f32: REAL on ../<b>") for title, _ in found.values())
