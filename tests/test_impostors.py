"""Backends that must be caught, run as users run theirs: one of a kind; `nox -s trial` runs all of the trial's list."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from assay import backends, families
from assay.challenge import Challenges
from assay.schema import Cell, Layer, Precision, Status, Verdict
from tests.conftest import Assay, report_in
from tests.trial.impostors import IMPOSTORS, installed

BY_NAME = {impostor.name: impostor for impostor in IMPOSTORS}
NO_IMPOSTORS = {
    "crashing", "hanging", "homeless", "telephoning", "renamed", "tampered", "rounded", "wrong-gelu", "undiagnosable",
}  # fmt: skip
"""Backends that fail in the ways that other tests are about, or are wrong without pretence, and an honest one."""


@pytest.mark.parametrize(
    ("name", "layer", "checks"),
    [
        ("mock-handler", Layer.AGREEMENT, {"follows_inputs"}),
        ("frozen", Layer.AGREEMENT, {"follows_tokens"}),
        ("stale", Layer.AGREEMENT, {"reset"}),
        ("forges-evidence", Layer.AGREEMENT, {"follows_inputs"}),
        ("random-weights", Layer.WEIGHTS, {"follows_weights"}),
        ("lowered", Layer.PLACEMENT, {"precision"}),
        ("widened", Layer.PLACEMENT, {"precision"}),
        ("torch-inside", Layer.PLACEMENT, {"foreign_runtime"}),
        ("helper-process", Layer.PLACEMENT, {"helpers"}),
        ("cpu-called-cuda", Layer.PLACEMENT, {"driver"}),
        ("watches-the-loop", Layer.TIMING, {"sampled_follows_inputs"}),
        ("skips-every-other", Layer.TIMING, {"sampled_follows_inputs"}),
        ("cached-by-hash", Layer.TIMING, {"repeated"}),
        ("lazy", Layer.TIMING, {"on_host"}),
        ("fills-later", Layer.TIMING, {"settled"}),
        ("first-row", Layer.TIMING, {"sampled_follows_inputs"}),
        ("stopped-clock", Layer.TIMING, {"peak"}),
    ],
)
def test_an_impostor_is_caught(assay: Assay, tmp_path: Path, name: str, layer: Layer, checks: set[str]) -> None:
    for cell in cells(assay, tmp_path, name):
        assert cell.status is BY_NAME[name].expected, cell.reason
        evidence = cell.layer(layer)
        assert evidence is not None
        assert checks & {each.name for each in evidence.checks if each.verdict is Verdict.FAILED}


def test_a_stale_export_is_caught_by_the_perturbed_tensor_alone_and_traced_to_its_graph(
    assay: Assay, tmp_path: Path
) -> None:
    (cell,) = cells(assay, tmp_path, "stale-export")
    assert cell.status is BY_NAME["stale-export"].expected, cell.reason
    failed = {check.name for each in cell.evidence for check in each.checks if check.verdict is Verdict.FAILED}
    assert failed == {"one_tensor"}
    assert cell.diagnosis is not None
    assert (cell.diagnosis.weights, cell.diagnosis.guilty) == ("perturbed", "ONNX")


def test_outputs_that_were_rewritten_are_refused(assay: Assay, tmp_path: Path) -> None:
    (cell,) = cells(assay, tmp_path, "rewrites-outputs")
    assert cell.status is Status.FAILED
    assert cell.failure is not None and "were rewritten after" in cell.reason


def test_what_an_engine_of_another_package_says_for_itself_is_no_evidence(assay: Assay, tmp_path: Path) -> None:
    """A backend that only has another name: everything that is seen from outside passes, and no more is needed."""
    (cell,) = cells(assay, tmp_path, "renamed")
    assert cell.status is Status.UNPROVEN
    assert "an engine of another package traces itself, which is no evidence" in cell.reason
    verdicts = {(each.layer, check.name): check.verdict for each in cell.evidence for check in each.checks}
    not_judged = {key for key, verdict in verdicts.items() if verdict is not Verdict.PASSED}
    assert not_judged == {(Layer.PLACEMENT, "elsewhere"), (Layer.PLACEMENT, "precision")}


def cells(assay: Assay, folder: Path, name: str) -> tuple[Cell, ...]:
    """The cells of a session that an impostor ran, in the rows in which it is on trial."""
    rows = BY_NAME[name].families if name in BY_NAME else ("bert",)
    precision = BY_NAME[name].precision if name in BY_NAME else Precision.F32
    done = assay(
        "run", "--backend", name, "--family", ",".join(rows), "--precision", precision, "--reports", folder
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    return report_in(folder / "sessions").cells


def test_every_impostor_that_is_installed_is_on_trial(tmp_path: Path) -> None:
    installed(tmp_path)
    import assay_impostors

    assert assay_impostors.entry_points().keys() == BY_NAME.keys() | NO_IMPOSTORS
    assert not BY_NAME.keys() & set(backends.ORDER)


def test_no_impostor_is_expected_to_be_real() -> None:
    assert all(impostor.expected is not Status.REAL for impostor in IMPOSTORS)


def test_the_documentation_lists_every_impostor_with_its_status() -> None:
    text = (Path(__file__).parents[1] / "docs" / "judgement.md").read_text(encoding="utf-8")
    section = text.partition("## Impostors")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) \| .* \| `([A-Z]+)` \|$", section, re.MULTILINE)
    assert rows == [(impostor.name, impostor.pretends, str(impostor.expected)) for impostor in IMPOSTORS]


def test_what_a_backend_does_to_its_inputs_reaches_nobody_else() -> None:
    challenges = Challenges(families.load("bert"), {"vocab_size": 512}, seed="5eed")
    before, given = challenges.timed(7), challenges.timed(7)
    for array in given.values():
        array[...] = 1
    again = challenges.timed(7)
    assert again.keys() == before.keys()
    assert all(np.array_equal(again[name], before[name]) for name in before)
    assert not np.array_equal(given["input_ids"], before["input_ids"])
