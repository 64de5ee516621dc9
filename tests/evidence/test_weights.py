"""Weights: whose tensors an artifact holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from assay import checkpoints
from assay.backends.base import Artifact
from assay.evidence.case import Answer
from assay.evidence.weights import _one_tensor, _tensors
from assay.schema import Check, Precision, Verdict

DRAWN = np.random.default_rng(7)
ROWS = DRAWN.standard_normal((4, 16))
FLOOR = ROWS * (1 + 1e-6 * DRAWN.standard_normal((4, 4, 16)))
"""Outputs, and what rounding makes of them: a floor of 1e-6."""


def tensors(artifact: Path) -> Check:
    """What is said of a folder that the runner loads, where the local BERT is judged."""
    case: Any = SimpleNamespace(
        artifact=Artifact("bert", str(artifact), "checkpoint"), checkpoint=checkpoints.local("bert").path
    )
    return _tensors(case)


def test_the_checkpoint_s_own_folder_passes_and_so_does_a_copy(tmp_path: Path) -> None:
    own = checkpoints.local("bert").path
    assert tensors(own).verdict is Verdict.PASSED
    assert tensors(Path(shutil.copytree(own, tmp_path / "copy"))).verdict is Verdict.PASSED


def test_another_folder_is_not_believed_to_be_the_checkpoint(tmp_path: Path) -> None:
    assert tensors(checkpoints.local("bert", seed=4242).path).verdict is Verdict.FAILED
    assert tensors(tmp_path).verdict is Verdict.FAILED


def one_tensor(outputs: np.ndarray, before: np.ndarray) -> Check:
    """What is said of a perturbed run with these outputs, where the reference gives `ROWS`, and gave others before."""
    answer = Answer("batch", {}, {"y": outputs}, {"y": ROWS}, {"y": FLOOR}, {})
    own = Answer("batch", {}, {"y": before}, {"y": before}, {"y": FLOOR}, {})
    case: Any = SimpleNamespace(perturbed=answer, tensor="layer.0.weight", precision=Precision.F32)
    return _one_tensor(case, own)


def test_outputs_must_move_with_the_tensor_that_is_perturbed() -> None:
    before = ROWS[::-1]
    arrived, stale = one_tensor(ROWS * (1 + 1e-7), before), one_tensor(before, before)
    assert (arrived.verdict, stale.verdict) == (Verdict.PASSED, Verdict.FAILED)
    assert arrived.text.startswith("layer.0.weight in another order moves the outputs by ")
    assert "too little" not in arrived.text


def test_a_tensor_that_moves_nothing_is_said_to_tell_nothing() -> None:
    check = one_tensor(ROWS, ROWS * (1 + 1e-7))
    assert check.verdict is Verdict.PASSED
    assert "too little to tell whether it arrived" in check.text
    assert one_tensor(ROWS[::-1], ROWS).verdict is Verdict.FAILED  # what moves where nothing should is wrong too


def test_outputs_that_are_no_numbers_are_not_judged() -> None:
    assert one_tensor(np.full_like(ROWS, np.nan), ROWS[::-1]).verdict is Verdict.NOT_JUDGED
