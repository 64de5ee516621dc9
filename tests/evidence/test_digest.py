"""Digests of the reference: the same for honest float64 in another order, other for another arithmetic."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from assay import checkpoints, families
from assay.challenge import Challenges
from assay.evidence.digest import SEED, agree, digests, groups
from assay.evidence.reference import Reference
from assay.schema import Digest, Precision


@pytest.fixture(scope="module")
def reference() -> Any:
    """BERT's reference, its fixed inputs, and the noise around them."""
    checkpoint = checkpoints.local("bert", "tiny")
    family = families.load("bert")
    found = Reference(family, Path(checkpoint.path))
    inputs = Challenges(family, family.describe(checkpoint.path), SEED).timed(0)
    expected = found.outputs(inputs)
    judged = SimpleNamespace(
        expected=expected, masks=family.masks(inputs), noise=found.noise([inputs], Precision.F32, 7)[0]
    )
    return SimpleNamespace(of=found, inputs=inputs, masks=judged.masks, judged=judged, expected=expected)


def digested(reference: Any, outputs: Any) -> tuple[Digest, ...]:
    return digests(outputs, reference.masks, reference.judged, Precision.F32)


def reordered(source: Path, folder: Path) -> Path:
    """The same model with the neurons of every feed-forward block in another order: its sums run the other way round.

    Other threads or a larger batch do not do it on every processor.
    """
    shutil.copytree(source, folder)
    tensors = load_file(source / "model.safetensors")
    for name, array in tensors.items():
        if ".intermediate.dense." in name:
            tensors[name] = np.ascontiguousarray(array[::-1])
        elif name.endswith(".output.dense.weight") and ".attention." not in name:
            tensors[name] = np.ascontiguousarray(array[:, ::-1])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_sums_in_another_order_agree_within_the_tolerance(reference: Any, tmp_path: Path) -> None:
    folder = reordered(checkpoints.local("bert", "tiny").path, tmp_path / "reordered")
    there = Reference(families.load("bert"), folder).outputs(reference.inputs)
    assert any(not np.array_equal(there[name], reference.expected[name]) for name in there)
    here = digested(reference, reference.expected)
    assert agree(here, digested(reference, there))
    assert all(0 < digest.tolerance < 1e-11 for digest in here)


@pytest.mark.parametrize("lowered", [np.float32, np.float16])
def test_a_judge_that_computed_in_less_disagrees(reference: Any, lowered: Any) -> None:
    there = {name: array.astype(lowered).astype(np.float64) for name, array in reference.expected.items()}
    assert not agree(digested(reference, reference.expected), digested(reference, there))


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.F16])
def test_the_tolerance_is_that_of_float64_whatever_the_precision_of_the_cell(
    reference: Any, precision: Precision
) -> None:
    noise = reference.of.noise([reference.inputs], precision, 7)[0]
    judged = SimpleNamespace(expected=reference.expected, masks=reference.masks, noise=noise)
    lower = digests(reference.expected, reference.masks, judged, precision)
    for mine, other in zip(digested(reference, reference.expected), lower, strict=True):
        assert mine.sums == other.sums
        assert other.tolerance == pytest.approx(mine.tolerance, rel=0.5)  # four draws each


def test_outputs_that_are_no_numbers_have_no_digest(reference: Any) -> None:
    assert digested(reference, {name: array * np.nan for name, array in reference.expected.items()}) == ()


def test_names_are_grouped_with_whom_they_agree() -> None:
    def one(total: float) -> tuple[Digest, ...]:
        return (Digest(output="logits", sums=(total,), tolerance=0.1),)

    assert groups([("a", one(1)), ("b", one(1.1)), ("c", one(2)), ("a", one(1))]) == [["a", "b"], ["c"]]
