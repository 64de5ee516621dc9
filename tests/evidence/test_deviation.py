"""Comparison with the reference: what passes, and what must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from assay.evidence.agreement import follows
from assay.evidence.case import Answer
from assay.evidence.deviation import Deviation, Yardstick, alignment
from assay.schema import Precision, Verdict

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
    """The alignment of one pair of changes that no rounding could make."""
    value = alignment([({"y": found}, {"y": expected}, {"y": 0.0})])
    assert value is not None
    return value


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
    sure = {"y": 0.0}
    pairs = [({"y": expected}, {"y": expected}, sure), ({"y": 0 * expected}, {"y": expected}, sure)]
    assert alignment(pairs) == 0


# Embeddings that change by 8, and one similarity of them that hardly does: rounding turned its change around.
EMBEDS = np.full(64, 1.0)
HONEST = {"embeds": EMBEDS, "similarity": np.array([[-0.03]])}
EXACT = {"embeds": EMBEDS, "similarity": np.array([[0.01]])}


def test_what_rounding_may_change_as_much_tells_nothing_of_following() -> None:
    unsure = {"embeds": 0.5, "similarity": 0.1}
    assert alignment([(HONEST, EXACT, dict.fromkeys(unsure, 0.0))]) < 0  # type: ignore[operator]
    assert alignment([(HONEST, EXACT, unsure)]) > 0.9  # type: ignore[operator]
    constant = {name: 0 * change for name, change in HONEST.items()}
    assert alignment([(constant, EXACT, unsure)]) == 0
    other = {"embeds": EMBEDS * np.tile([1.0, -1.0], 32), "similarity": EXACT["similarity"]}
    assert alignment([(other, EXACT, unsure)]) < 0.1  # type: ignore[operator]


def test_pairs_of_which_nothing_can_be_told_are_left_out() -> None:
    unsure = {"embeds": 9.0, "similarity": 0.1}
    assert alignment([(HONEST, EXACT, unsure)]) is None
    told = ({"embeds": 2 * EMBEDS, "similarity": np.ones((1, 1))},) * 2
    assert alignment([(HONEST, EXACT, unsure), (*told, unsure)]) == pytest.approx(1)


def answer(value: float, off: float, noise: bool) -> Answer:
    """An embedding and a similarity that is off by so much; the noise around them is 0.05 and 0.02."""
    exact = {"embeds": np.full((1, 8), value), "similarity": np.array([[0.5 + 1e-3 * value]])}
    signs = np.array([1.0, -1.0, 1.0, -1.0]).reshape(4, 1, 1)
    around = {"embeds": exact["embeds"] + 0.05 * signs, "similarity": exact["similarity"] + 0.02 * signs}
    outputs = exact | {"similarity": exact["similarity"] + off}
    return Answer(str(value), {}, outputs, exact, around if noise else {}, {})


@pytest.mark.parametrize("noisy", [(True, True), (True, False)])
def test_answers_follow_inputs_that_their_similarity_does_not_tell_apart(noisy: tuple[bool, bool]) -> None:
    first, second = answer(1.0, 0.01, noisy[0]), answer(2.0, -0.01, noisy[1])
    assert follows("follows", [first, second], "inputs", Precision.BF16).verdict is Verdict.PASSED
    stale = replace(second, outputs=first.outputs)
    assert follows("follows", [first, stale], "inputs", Precision.BF16).verdict is Verdict.FAILED
    same = answer(1.0, -0.01, noisy[1])
    found = follows("follows", [first, same], "inputs", Precision.BF16)
    assert found.verdict is Verdict.NOT_JUDGED
    assert found.text == "whether outputs follow the inputs cannot be told: rounding in bf16 may change them as much"
