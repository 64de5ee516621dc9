"""The floor of weights in int8 is what rounding them to eight bits makes of a model, and no more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from assay import checkpoints, families
from assay.challenge import Challenges
from assay.evidence.case import Answer
from assay.evidence.float64 import Exact
from assay.evidence.reference import Reference
from assay.evidence.rounding import STEP, Quantising, perturbation
from assay.schema import Precision
from assay.weights import inputs_first


def rounded(bits: int) -> Callable[[torch.nn.Module], None]:
    """Rounds every matrix of a model to codes of so many bits, with a scale for each output."""
    last = 2 ** (bits - 1) - 1

    def change(model: torch.nn.Module) -> None:
        for owner in model.modules():
            for name, weights in owner.named_parameters(recurse=False):
                if weights.ndim < 2:
                    continue
                axes = (0,) if inputs_first(owner, name) else tuple(range(1, weights.ndim))
                scale = weights.abs().amax(axes, keepdim=True) / last
                weights.copy_((weights / scale).round() * scale)

    return change


def share(family_id: str, change: Callable[[torch.nn.Module], None]) -> float:
    """The error of a model that was changed, as a share of its bound at int8."""
    checkpoint, family = checkpoints.local(family_id), families.load(family_id)
    _, inputs = list(Challenges(family, checkpoint.config(), "0b").shapes())[1]
    reference = Reference(family, checkpoint.path)
    (noise,) = reference.noise([inputs], Precision.INT8, seed=3)
    expected = reference.outputs(inputs)
    with torch.no_grad():
        change(reference.module)
    answer = Answer(
        name="call", inputs=inputs, outputs=reference.outputs(inputs), expected=expected, noise=noise,
        masks=family.masks(inputs),
    )  # fmt: skip
    return answer.deviation(Precision.INT8).share


@pytest.mark.parametrize("family", families.ORDER)
def test_rounding_to_eight_bits_is_within_the_bound_and_to_five_is_not(family: str) -> None:
    eight = share(family, rounded(8))
    assert 0.05 < eight < 1  # a floor twenty times too high would hide a lost bit
    assert share(family, rounded(5)) > 1


def test_every_weight_moves_by_what_rounding_loses_in_root_mean_square() -> None:
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.randn(40, 300))
    vector = torch.nn.Parameter(torch.randn(300))
    turned = torch.nn.Parameter(matrix.detach().T.clone())
    arithmetic = perturbation(Precision.INT8, 1, 0, frozenset({id(turned)}))
    assert isinstance(arithmetic, Quantising)
    step = STEP[Precision.INT8] * matrix.detach().abs().amax(1, keepdim=True).double()
    for parameter, axis in ((matrix, 1), (turned, 0)):
        moved = (arithmetic.parameter(parameter) - parameter).detach()
        sizes = (moved if axis else moved.T) / step * np.sqrt(12)
        torch.testing.assert_close(sizes.abs(), torch.ones_like(sizes), atol=1e-3, rtol=0)
        assert abs(float(sizes.mean())) < 0.1  # up as often as down
    error = (matrix.detach().double() / step).round() * step - matrix.detach()
    assert float((error / step).pow(2).mean().sqrt()) == pytest.approx(1 / np.sqrt(12), rel=0.05)
    still = (arithmetic.parameter(vector) - vector).detach()
    assert float((still / vector.detach()).abs().max()) < 2.0**-20  # as float32 rounds it


def test_a_row_that_was_looked_up_has_its_own_scale() -> None:
    arithmetic = perturbation(Precision.INT8, 1, 0, frozenset())
    rows = torch.tensor([[[1.0, 0.5], [100.0, 50.0]]], dtype=torch.float64)
    moved = (arithmetic.parameter(rows) - rows).abs()
    torch.testing.assert_close(
        moved / rows.abs().amax(-1, keepdim=True),
        torch.full_like(rows, STEP[Precision.INT8] / np.sqrt(12)),
        atol=1e-6,
        rtol=0,
    )


def test_other_precisions_move_values_relatively() -> None:
    for precision in (Precision.F32, Precision.BF16):
        arithmetic = perturbation(precision, 1, 0, frozenset())
        assert isinstance(arithmetic, Exact) and not isinstance(arithmetic, Quantising)
