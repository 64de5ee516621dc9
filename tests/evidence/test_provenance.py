"""Provenance: what findings lead to, and runtimes that were changed, in real cells."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conftest import Assay, report_in

from assay.evidence.case import Software
from assay.evidence.provenance import judge
from assay.installed import Findings
from assay.schema import Evidence, Layer, Status, Verdict

INTACT = Findings(served={"openvino": "2026.4"}, compared=3)


def judged(
    findings: Findings = INTACT, *, mocks: tuple[str, ...] = (), whole: bool = True, told: bool = True
) -> Evidence:
    case: Any = SimpleNamespace(software=Software(findings, mocks, whole, told))
    return judge(case)


def test_an_intact_runtime_passes_and_is_named_with_its_version() -> None:
    evidence = judged()
    assert evidence.verdict is Verdict.PASSED
    assert evidence.text == "all of 3 used files are as they were installed: openvino 2026.4"


@pytest.mark.parametrize("name", ["modified", "unrecorded", "patched"])
def test_what_is_found_fails_by_name(name: str) -> None:
    evidence = judged(Findings(compared=3, open=["torch is editable"], **{name: ["a", "b"]}))
    check = evidence.check(name)
    assert check is not None and (check.value, check.verdict) == (2, Verdict.FAILED)
    assert evidence.verdict is Verdict.FAILED
    assert evidence.text.endswith(": a, b")


def test_a_mock_fails() -> None:
    assert judged(mocks=("Engine.session",)).text.endswith("Engine.session")


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (judged(Findings(compared=3, open=["torch is editable"])), "torch is editable"),
        (judged(Findings()), "no used file has an install record"),
        (judged(told=False), "this system does not tell which libraries a process has mapped"),
        (judged(whole=False), "the engine holds more objects than were searched for mocks"),
    ],
)
def test_what_could_not_be_looked_at_is_not_judged(evidence: Evidence, reason: str) -> None:
    assert (evidence.verdict, evidence.text) == (Verdict.NOT_JUDGED, reason)


def run(assay: Assay, reports: Path, backend: str, path: str = "") -> tuple[Status, str, Evidence]:
    """A cell of BERT, with folders before the others on Python's path."""
    before = {"PYTHONPATH": os.pathsep.join((path, os.environ.get("PYTHONPATH", "")))} if path else {}
    done = assay("run", "--backend", backend, "--family", "bert", "--reports", reports, env=before)
    assert done.returncode == 1, done.stdout + done.stderr
    (cell,) = report_in(reports / "sessions").cells
    evidence = cell.layer(Layer.PROVENANCE)
    assert evidence is not None, cell.reason
    return cell.status, cell.reason, evidence


def linked(source: str, target: str) -> None:
    """Links in the place of copies, where the file system can: a runtime is large."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def test_one_edited_file_of_a_runtime_leaves_a_right_cell_unproven(assay: Assay, tmp_path: Path) -> None:
    installed = distribution("onnxruntime")
    site = tmp_path / "site"
    for folder in ("onnxruntime", f"onnxruntime-{installed.version}.dist-info"):
        shutil.copytree(str(installed.locate_file(folder)), site / folder, copy_function=linked)
    edited = site / "onnxruntime/__init__.py"
    text = edited.read_text(encoding="utf-8")
    edited.unlink()  # the link, and not what it leads to
    edited.write_text(text + "\nfaster = True\n", encoding="utf-8")
    status, reason, evidence = run(assay, tmp_path, "onnxruntime", str(site))
    assert status is Status.UNPROVEN
    assert reason == f"used files that are not as they were installed: {edited}"
    assert [check.value for check in evidence.checks] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("impostor", "check", "place"),
    [
        ("patched", "patched", "onnxruntime.capi.onnxruntime_inference_collection.InferenceSession.run"),
        ("mocked", "mocks", "MockedEngine._fallbacks"),
    ],
)
def test_what_stands_in_the_runtime_s_place_leaves_a_right_cell_unproven(
    assay: Assay, tmp_path: Path, impostor: str, check: str, place: str
) -> None:
    status, reason, evidence = run(assay, tmp_path, impostor)
    assert status is Status.UNPROVEN
    assert place in reason
    assert {each.name for each in evidence.checks if each.verdict is Verdict.FAILED} == {check}
    assert "record" in str(evidence.not_judged) or "no installed" in str(evidence.not_judged)
