"""A real browser for the tests of the page, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from assay.matrix import Matrix
from assay.report import page
from assay.report.page import Baseline
from tests.test_noxfile import ROOT

PICTURES = ROOT / "reports" / "screenshots"
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: `apt-get install chromium`, or CHROMIUM=/path")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens a page; afterwards there must have been no error, and no request but for the file."""
    said: list[str] = []
    asked: set[str] = set()
    path = tmp_path / "index.html"

    def open_page(
        matrix: Matrix, address: str = "", *, baseline: Baseline | None = None, script: bool = True, **options: Any
    ) -> Page:
        path.write_text(page.render(matrix, baseline), encoding="utf-8")
        tab = browser.new_context(java_script_enabled=script, **options).new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.add(request.url.partition("#")[0]))
        tab.goto(path.as_uri() + address)
        if script:
            tab.wait_for_selector("html[data-complete]", state="attached")
        return tab

    yield open_page
    for context in browser.contexts:
        context.close()
    assert said == []
    assert asked <= {path.as_uri(), "data:,"}
