"""Comparison with the reference: what passes, and what must not."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from assay.evidence.deviation import Deviation, Yardstick, alignment

U = 2.0**-24
DRAWS = 6


def deviation(
    output: np.ndarray, reference: np.ndarray, noise: np.ndarray, mask: np.ndarray | None, *, factor: float, where: str
) -> Deviation:
    return Yardstick(reference, noise, mask, factor=factor).deviation(output, where)


def model(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A reference with rows of very different scale, and its noise."""
    scales = 10.0 ** rng.uniform(-3, 3, (*shape[:-1], 1))
    reference = rng.standard_normal(shape) * scales
    noise = reference + reference * U * rng.choice([-1, 1], (DRAWS, *shape)) * rng.uniform(0.5, 1.5, (DRAWS, *shape))
    return reference, noise


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 7, 64), (1, 512)])
def test_honest_noise_of_the_floor_s_size_passes_in_every_shape(shape: tuple[int, ...]) -> None:
    worst = 0.0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        reference, noise = model(rng, shape)
        output = reference + reference * U * rng.standard_normal(shape)
        worst = max(worst, deviation(output, reference, noise, None, factor=2, where="y").share)
    assert worst < 1


def test_a_value_near_zero_among_few_rows_is_no_false_alarm() -> None:
    """Embeddings of one sentence: rounding is as large beside a value near zero as beside any other."""
    worst = 0.0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        reference = rng.standard_normal((1, 384))
        noise = reference + U * rng.standard_normal((DRAWS, 1, 384))
        output = reference + 2 * U * rng.standard_normal((1, 384))
        worst = max(worst, deviation(output, reference, noise, None, factor=8, where="y").share)
        output[0, 7] += 100 * U  # one wrong element still shows
        assert deviation(output, reference, noise, None, factor=2, where="y").share > 1
    assert worst < 0.5


def test_rows_that_share_their_error_are_one_row() -> None:
    """A deep random model maps every token to nearly one vector, and rounds it the same way each time."""
    worst = 0.0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        reference = rng.standard_normal((1, 96)) + 1e-3 * rng.standard_normal((16, 96))

        def shared(*draws: int, rng: np.random.Generator = rng) -> np.ndarray:
            return U * (rng.standard_normal((*draws, 1, 96)) + 0.1 * rng.standard_normal((*draws, 16, 96)))

        noise = reference + shared(DRAWS)
        worst = max(worst, deviation(reference + 2 * shared(), reference, noise, None, factor=8, where="y").share)
    assert worst < 0.8


@pytest.mark.parametrize("floors", [20, 1000])
def test_one_wrong_element_cannot_hide_in_a_large_norm(floors: float) -> None:
    rng = np.random.default_rng(0)
    reference, noise = model(rng, (4, 16, 64))
    output = reference.copy()
    row = int(np.argmin(np.linalg.norm(reference[2], axis=1)))  # the smallest of all rows
    output[2, row, 5] += floors * U * np.linalg.norm(reference[2, row])
    found = deviation(output, reference, noise, None, factor=2, where="y")
    assert found.share > 1
    assert f"number {2 * 16 + row}" in found.where


def test_a_broken_channel_of_small_scale_is_found() -> None:
    rng = np.random.default_rng(0)
    reference, noise = model(rng, (64, 32))
    reference, noise = np.abs(reference), np.abs(noise)
    reference[:, 7] *= 1e-4
    noise[:, :, 7] *= 1e-4
    output = reference.copy()
    output[:, 7] *= 1 + 100 * U
    found = deviation(output, reference, noise, None, factor=2, where="y")
    assert found.share > 1
    assert "channel" in found.where and "number 7" in found.where


def test_padding_is_not_compared_and_the_rest_is() -> None:
    rng = np.random.default_rng(0)
    reference, noise = model(rng, (2, 5, 16))
    mask = np.ones((2, 5), bool)
    mask[1, 3:] = False
    output = reference.copy()
    output[1, 4] = np.nan
    assert deviation(output, reference, noise, mask, factor=2, where="y").share < 1
    output[1, 2] *= 2
    assert deviation(output, reference, noise, mask, factor=2, where="y").share > 1


def test_a_row_of_zeros_is_compared_by_the_scale_of_the_output() -> None:
    rng = np.random.default_rng(0)
    reference, noise = model(rng, (4, 16))
    reference[2] = 0
    noise[:, 2] = 0
    output = reference.copy()
    assert deviation(output, reference, noise, None, factor=2, where="y").share < 1
    output[2] = 1.0
    assert deviation(output, reference, noise, None, factor=2, where="y").share > 1


def changes(found: np.ndarray, expected: np.ndarray) -> float:
    """The alignment of one pair of changes."""
    return alignment([({"y": found}, {"y": expected})])


def test_alignment_tells_following_from_not_following() -> None:
    rng = np.random.default_rng(0)
    expected = rng.standard_normal(1000)
    assert changes(expected, expected) == pytest.approx(1)
    assert changes(expected + 0.01 * rng.standard_normal(1000), expected) > 0.99
    assert changes(np.zeros(1000), expected) == 0
    assert abs(changes(rng.standard_normal(1000), expected)) < 0.2
    assert changes(-expected, expected) == pytest.approx(-1)


def test_the_worst_pair_decides() -> None:
    expected = np.arange(1.0, 9.0)
    pairs = [({"y": expected}, {"y": expected}), ({"y": 0 * expected}, {"y": expected})]
    assert alignment(pairs) == 0


def test_a_logit_that_hardly_changes_in_one_pair_does_not_decide_by_its_rounding() -> None:
    """A similarity is a single value: of forty-five pairs one is often nearly equal, and bf16 rounds it."""
    rng = np.random.default_rng(0)
    embeddings, logits, rounding = rng.standard_normal((10, 32)), rng.standard_normal((10, 1)), 0.02
    logits[1] = logits[0] + 1e-4
    exact = [{"embedding": each, "logit": logit} for each, logit in zip(embeddings, logits, strict=True)]
    found = [
        {name: array + rounding * rng.standard_normal(array.shape) for name, array in each.items()} for each in exact
    ]

    def pairs(outputs: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        return [{name: left[name] - right[name] for name in left} for left, right in combinations(outputs, 2)]

    assert alignment(list(zip(pairs(found), pairs(exact), strict=True))) > 0.99
    found[1] = found[0]
    assert alignment(list(zip(pairs(found), pairs(exact), strict=True))) == 0
