"""JUnit XML, for every CI system: a test suite for each backend, a test case for each cell.

REAL is a pass; FAILED an error; UNAVAILABLE and PENDING are skipped; every other status is a failure, with its
cause as text. Schema: jenkinsci/xunit-plugin, `junit-10.xsd`, the dialect of Jenkins, GitLab and GitHub's actions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from assay.matrix import Matrix, MatrixCell
from assay.report import grid, units
from assay.report.names import names
from assay.schema import Status

OUTCOMES: Mapping[Status, str] = {
    Status.INACCURATE: "failure",
    Status.FALLBACK: "failure",
    Status.MOCK: "failure",
    Status.UNPROVEN: "failure",
    Status.FAILED: "error",
    Status.UNAVAILABLE: "skipped",
    Status.PENDING: "skipped",
}
"""The element that says what became of a cell; a REAL one has none."""
_FORBIDDEN = re.compile("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def files(matrix: Matrix) -> dict[str, str]:
    """`junit.xml`."""
    root = Element("testsuites", name="assay")
    named = list(zip(matrix.cells, names(matrix.cells, device=False), strict=True))
    for backend in grid.columns(matrix):
        _suite(root, backend, [(cell, name) for cell, name in named if cell.backend == backend])
    _count(root, matrix.cells)
    indent(root)
    return {"junit.xml": f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'}


def _suite(root: Element, backend: str, cells: Sequence[tuple[MatrixCell, str]]) -> None:
    mine = [cell for cell, _ in cells]
    suite = SubElement(root, "testsuite", name=_text(backend))
    _count(suite, mine)
    suite.set("skipped", str(_outcomes(mine)["skipped"]))
    sessions = [session for session, _, _ in grid.sessions(mine)]
    if sessions:
        suite.set("timestamp", min(session.started_at for session in sessions)[:19])
        suite.set("hostname", _text(sessions[0].machine.name))
        properties = SubElement(suite, "properties")
        for session in sessions:
            software = {"python": session.environment.python, **session.environment.packages}
            held = ", ".join(f"{name} {version}" for name, version in sorted(software.items()))
            value = f"{session.machine.processor}, {session.environment.threads} threads: {held}"
            SubElement(properties, "property", name=f"session {session.id}", value=_text(value))
    for cell, name in cells:
        _case(suite, cell, name)


def _count(element: Element, cells: Sequence[MatrixCell]) -> None:
    found = _outcomes(cells)
    element.set("tests", str(len(cells)))
    element.set("failures", str(found["failure"]))
    element.set("errors", str(found["error"]))
    element.set("time", _seconds(sum(cell.seconds or 0 for cell in cells)))


def _outcomes(cells: Sequence[MatrixCell]) -> Counter[str]:
    return Counter(OUTCOMES.get(cell.status, "passed") for cell in cells)


def _case(suite: Element, cell: MatrixCell, name: str) -> None:
    case = SubElement(
        suite, "testcase", name=_text(name), classname=_text(f"assay.{cell.backend}"), time=_seconds(cell.seconds or 0)
    )
    if outcome := OUTCOMES.get(cell.status):
        said = SubElement(case, outcome, type=cell.status, message=_text(cell.reason))
        said.text = _text(_cause(cell))
    figures = [f"{name}: {units.quantity(metric)}" for name, metric in cell.metrics.items()]
    if figures:
        SubElement(case, "system-out").text = _text("\n".join(figures))


def _cause(cell: MatrixCell) -> str:
    lines = [f"{cell.status}: {cell.reason}"]
    if cell.unavailable:
        lines += [f"looked for: {what}" for what in cell.unavailable.looked_for]
    if cell.failure and cell.failure.log:
        lines += ["", cell.failure.log.rstrip()]
    if cell.session:
        lines += ["", f"every number behind it: assay explain {cell.family} {cell.backend}"]
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _text(text: str) -> str:
    """Without what XML 1.0 cannot hold, escaped or not: a log may hold anything."""
    return _FORBIDDEN.sub("", text)
