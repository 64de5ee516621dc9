"""Backends that must be caught, run as users run theirs: one of a kind; `nox -s trial` runs all of the trial's list."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from assay import backends, families
from assay.challenge import Challenges
from assay.schema import Layer, Status, Verdict
from tests.conftest import Assay, report_in
from tests.trial.impostors import IMPOSTORS, installed

BY_NAME = {impostor.name: impostor for impostor in IMPOSTORS}
NO_IMPOSTORS = {"crashing", "hanging", "homeless", "telephoning"}
"""Backends that fail in the ways that other tests are about."""


def pending(name: str) -> list[pytest.MarkDecorator]:
    """Expected to fail as long as the trial's list says what is missing, and no longer."""
    missing = BY_NAME[name].missing
    return [pytest.mark.xfail(reason=missing, strict=True)] if missing else []


@pytest.mark.parametrize(
    ("name", "layer", "check"),
    [
        pytest.param(*each, marks=pending(each[0]), id=each[0])
        for each in (
            ("mock-handler", Layer.AGREEMENT, "follows_inputs"),
            ("random-weights", Layer.WEIGHTS, "follows_weights"),
            ("watches-the-loop", Layer.TIMING, "sampled_follows_inputs"),
            ("forges-evidence", Layer.AGREEMENT, "follows_inputs"),
            ("lowered", Layer.PLACEMENT, "precision"),
            ("torch-inside", Layer.PLACEMENT, "foreign_runtime"),
            ("stale", Layer.AGREEMENT, "reset"),
            ("helper-process", Layer.PLACEMENT, "helpers"),
            ("rewrites-outputs", None, None),
        )
    ],
)
def test_an_impostor_is_caught(assay: Assay, tmp_path: Path, name: str, layer: Layer | None, check: str | None) -> None:
    impostor = BY_NAME[name]
    done = assay("run", "--backend", name, "--family", ",".join(impostor.families), "--reports", tmp_path)
    assert done.returncode == 1, done.stderr
    for cell in report_in(tmp_path / "sessions").cells:
        assert cell.status is impostor.expected, cell.reason
        if layer and check:
            evidence = cell.layer(layer)
            failed = evidence.check(check) if evidence else None
            assert failed is not None and failed.verdict is Verdict.FAILED
        else:
            assert cell.failure is not None and "were rewritten after" in cell.reason


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
