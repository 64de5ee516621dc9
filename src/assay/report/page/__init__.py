"""`reports/index.html`: the matrix as one file for a browser, which asks for nothing from anywhere.

The first screen is written here, as a table that needs no script. What a cell opens to lies beside it, compressed, and
is drawn by `*.js`; d3's scales (`vendor/`) place the marks. The page's own policy allows its script and its style by
their hashes and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import PurePosixPath

from assay.matrix import Matrix
from assay.report import grid
from assay.report.page import data, table
from assay.report.page.difference import Baseline as Baseline
from assay.report.page.difference import Difference

VENDORED = ("d3-array", "d3-color", "d3-format", "d3-interpolate", "d3-scale")
"""In this order: each needs those before it."""
SCRIPTS = ("format", "cells", "charts", "evidence", "matrix", "figures", "main")
STYLES = ("page", "evidence")
DIFFERENCE = "difference"
"""The script and the style that only a page with a baseline has, after the others."""
AT_FIRST = 200
"""Rows that stand in the table as it is read; those of larger matrices wait in the data, or no browser is quick."""


def render(matrix: Matrix, baseline: Baseline | None = None) -> str:
    """The whole page: the same for the same matrix.

    Args:
        baseline: what the page should show the difference to.
    """
    rows = table.grouped(grid.rows(matrix))
    difference = Difference(baseline, matrix) if baseline else None
    lines = table.row_lines(matrix, rows, difference)
    index, evidence = data.pack(matrix, rows, lines[AT_FIRST:], difference)
    more = (DIFFERENCE,) if baseline else ()
    own = _joined(f"{name}.js" for name in (*SCRIPTS, *more))
    script = f'{_joined(f"vendor/{name}.min.js" for name in VENDORED)}\n(() => {{\n"use strict";\n{own}}})();'
    style = _joined(f"{name}.css" for name in (*STYLES, *more))
    parts = {
        "policy": f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "style": style,
        "body": table.body(matrix, rows, lines[:AT_FIRST], difference),
        "index": data.deflated(index),
        "evidence": data.deflated(evidence),
        "script": script,
    }  # fmt: skip
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: parts[found[1]], _read("page.html"))


def _joined(names: Iterable[str]) -> str:
    return "\n".join(_read(name) for name in names)


def _read(name: str) -> str:
    return files(__package__).joinpath(*PurePosixPath(name).parts).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
