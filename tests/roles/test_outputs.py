"""Outputs between runner and judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assay.roles.outputs import Outputs, OutputsChanged, Written, row

HIDDEN = {"hidden": np.arange(6, dtype=np.float32).reshape(2, 3)}


def test_outputs_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = Written(tmp_path)
    written.save("call", HIDDEN)
    np.testing.assert_array_equal(Outputs(tmp_path, written.digests).read("call")["hidden"], HIDDEN["hidden"])


def test_what_is_no_numbers_is_missing(tmp_path: Path) -> None:
    written = Written(tmp_path)
    written.save("call", {**HIDDEN, "status": "REAL", "answer": object()})  # type: ignore[dict-item]
    assert Outputs(tmp_path, written.digests).read("call").keys() == {"hidden"}


def test_outputs_that_were_rewritten_are_refused(tmp_path: Path) -> None:
    written = Written(tmp_path)
    written.save("call", HIDDEN)
    np.savez(tmp_path / "call.npz", hidden=HIDDEN["hidden"] + 1)
    with pytest.raises(OutputsChanged, match="'call' were rewritten"):
        Outputs(tmp_path, written.digests).read("call")


def test_a_row_is_what_it_would_be_alone() -> None:
    outputs, pairs = np.arange(12).reshape(4, 3), np.arange(16).reshape(4, 4)
    np.testing.assert_array_equal(row(outputs, 2, pairwise=False), [[6, 7, 8]])
    np.testing.assert_array_equal(row(pairs, 2, pairwise=True), [[10]])
    np.testing.assert_array_equal(row(np.stack([pairs, -pairs]), 1, pairwise=True, first=1), [[[5]], [[-5]]])


@pytest.mark.parametrize("answer", [np.empty((0,)), np.zeros((1, 3)), np.zeros((1, 1, 8))])
@pytest.mark.parametrize("pairwise", [False, True])
def test_a_row_that_an_answer_lacks_is_empty_and_thereby_missing_for_the_judge(
    answer: np.ndarray, pairwise: bool
) -> None:
    assert row(answer, 36, pairwise=pairwise).size == 0
