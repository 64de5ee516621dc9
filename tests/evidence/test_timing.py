"""Timing: what clocks, processor time, repeated calls, larger batches and traces lead to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from assay.evidence import agreement, timing
from assay.evidence.case import Answer
from assay.measure.probes import Repeats
from assay.measure.processes import Usage
from assay.measure.sweep import Growth
from assay.schema import Check, Precision, Verdict

PASSED, FAILED, NOT_JUDGED = Verdict.PASSED, Verdict.FAILED, Verdict.NOT_JUDGED
EXACT = np.arange(1.0, 33.0).reshape(1, 4, 8)


def answer(off: float = 0.0, scale: float = 1.0) -> Answer:
    """A call whose floor is 1e-7, and whose outputs are off by that many floors."""
    exact = scale * EXACT
    draw = np.random.default_rng(0)
    noise = np.stack([exact * (1 + 1e-7 * draw.choice((-1, 1), exact.shape)) for _ in range(4)])
    outputs = {"y": exact * (1 + off * 1e-7)}
    return Answer("call", {}, outputs, {"y": exact}, {"y": noise}, {})


def repeated(fresh: float = 1e-3, again: float = 1e-3, **changes: Any) -> Repeats:
    """Six pairs."""
    values = {"fresh": [fresh] * 6, "repeated": [again] * 6, "read": [1e-6] * 6, "outputs": 1}
    return Repeats(**(values | changes))


def verdicts(
    *, kind: str = "cpu", traced: Answer | None = None, untraced: Answer | None = None,
    loop: Sequence[Answer] = (answer(), answer(scale=2.0)), sampled: Sequence[Answer] = (), **changes: Any,
) -> Any:  # fmt: skip
    """The verdict of each check of an honest cell with these changes."""
    clock = {
        "timed": {"call": [1e-3] * 30}, "usage": Usage(claimed=0.03, cpu=0.04), "repeats": {"call": repeated()},
        "growth": Growth(8, [4e-3] * 3, 1e-3), "wall": 2.0, "cpu": 1.0, "operations": 10**6, "peak": 1e11,
    }  # fmt: skip
    case: Any = SimpleNamespace(
        timed=loop, sampled=sampled,
        decoding=None, precision=Precision.F32, device=SimpleNamespace(kind=kind),
        clock=SimpleNamespace(**(clock | changes)), traced=traced or answer(), untraced=untraced or answer(),
    )  # fmt: skip
    return {check.name: check.verdict for check in timing.judge(case).checks}


def test_an_honest_cell_passes() -> None:
    assert set(verdicts().values()) == {PASSED}
    assert set(verdicts()) == set(timing.CONSEQUENCES)


def test_one_remembered_answer_among_the_sampled_ones_is_enough() -> None:
    fresh = replace(answer(scale=3.0), noise={})
    assert verdicts(sampled=[fresh])["sampled_follows_inputs"] is PASSED
    remembered = replace(fresh, outputs=answer(scale=2.0).outputs)
    found = verdicts(sampled=[fresh, remembered])
    assert found["sampled_follows_inputs"] is FAILED
    assert found["sampled_error"] is PASSED  # of those that are held against the bound


def drawn(number: int, *, of: int | None = None, off: float = 0.0, apart: float = 1.0, padded: bool = False) -> Answer:
    """A call with outputs of its own, or those `of` another call; its floor is 1e-7, and it is `off` by that much."""

    def exact(which: int) -> np.ndarray:
        return EXACT + apart * np.random.default_rng(which).standard_normal(EXACT.shape)

    right, signs = exact(number), np.random.default_rng((number, 1)).choice((-1, 1), (5, *EXACT.shape))
    outputs = (right if of is None else exact(of)) * (1 + off * signs[4])
    masks = {"y": np.array([[1, 1, 1, 0]], bool)} if padded else {}
    outputs[:, 3] += signs[0, :, 3] if padded else 0
    return Answer(f"timed {number}", {}, {"y": outputs}, {"y": right}, {"y": right * (1 + 1e-7 * signs[:4])}, masks)


def follow(*sampled: Answer, timed: Sequence[Answer] = (drawn(0), drawn(1))) -> Check:
    return timing.sampled_follow(timed, [replace(each, noise={}) for each in sampled], Precision.F32)


@pytest.mark.parametrize("off", [0.0, 1e-7, 1e-2])
@pytest.mark.parametrize("padded", [False, True])
def test_outputs_that_are_their_own_input_s_follow(off: float, padded: bool) -> None:
    timed = [drawn(number, padded=padded) for number in (0, 1)]
    check = follow(*(drawn(number, off=off, padded=padded) for number in range(2, 8)), timed=timed)
    assert check.verdict is PASSED and check.bound == timing.OWN
    assert check.value == pytest.approx(off * 16, rel=0.5)  # values of about 19, which are 1.4 apart


@pytest.mark.parametrize("seed", range(10))
def test_one_call_that_was_answered_like_the_one_before_is_seen(seed: int) -> None:
    """Its changes follow at a cosine of a half, and the call before need not be among those that were kept."""
    kept = [drawn(100 * seed + number) for number in range(2, 7)]
    stale = drawn(100 * seed + 9, of=100 * seed + 8)
    assert agreement.follows("cosine", [drawn(0), *kept, stale], "inputs", Precision.F32).verdict is PASSED
    check = follow(*kept, stale)
    assert check.verdict is FAILED
    assert "do not follow" in check.text


def test_a_model_that_is_wrong_for_every_input_is_inaccurate_and_no_mock() -> None:
    timed = [drawn(number, off=0.05) for number in (0, 1)]
    check = follow(*(drawn(number, off=0.05) for number in range(2, 8)), timed=timed)
    assert (check.verdict, check.bound) == (PASSED, agreement.FOLLOWS)
    assert verdicts(loop=timed)["sampled_error"] is FAILED


@pytest.mark.parametrize(
    ("apart", "verdict", "said"),
    [
        (5e-6, PASSED, "too close to tell more in f32"),
        (1e-6, NOT_JUDGED, "cannot be told: rounding in f32 may change them as much"),
    ],
)
def test_answers_that_rounding_could_turn_into_one_another_accuse_nobody(
    apart: float, verdict: Verdict, said: str
) -> None:
    timed = [drawn(number, apart=apart) for number in (0, 1)]
    check = follow(*(drawn(number, apart=apart) for number in range(2, 8)), timed=timed)
    assert check.verdict is verdict
    assert said in check.text


def test_two_answers_that_are_too_close_hide_no_third() -> None:
    """The first two of those that are sampled are one answer, as far as f32 can tell."""
    right = drawn(2)
    twin = replace(right, name="timed 3", expected={"y": right.expected["y"] + 1e-7})
    check = follow(right, twin, drawn(4), drawn(5))
    assert (check.verdict, check.bound) == (PASSED, timing.OWN)
    assert "2 of 6 are too close to another's to tell in f32" in check.text
    assert follow(right, twin, drawn(4), drawn(5, of=6)).verdict is FAILED


def test_no_more_time_than_the_parent_saw_of_either_kind() -> None:
    usage = Usage(claimed=3.0, cpu=3.0)
    assert verdicts(usage=usage, wall=2.0)["covered"] is FAILED
    assert verdicts(usage=usage, cpu=2.0)["cpu_covered"] is FAILED
    assert verdicts(usage=usage, wall=4.0, cpu=4.0)["cpu_covered"] is PASSED


@pytest.mark.parametrize(
    ("kind", "cpu", "waited", "expected"),
    [
        ("cpu", 0.9, 0.0, PASSED),
        ("cpu", 0.2, 0.7, PASSED),  # other processes had the cores
        ("cpu", 0.1, 0.1, FAILED),
        ("cpu", 0.1, None, NOT_JUDGED),
        ("cpu", 0.9, None, PASSED),
        ("cuda", 0.1, 0.1, NOT_JUDGED),  # it may have waited for the device
        ("cuda", 0.9, 0.0, PASSED),
    ],
)
def test_a_process_that_sleeps_did_not_compute(kind: str, cpu: float, waited: float | None, expected: Verdict) -> None:
    assert verdicts(kind=kind, usage=Usage(1.0, cpu, waited))["busy"] is expected


def test_a_remembered_answer_is_told_from_a_lucky_one() -> None:
    assert verdicts(repeats={"call": repeated(again=2e-4)})["repeated"] is FAILED
    assert verdicts(repeats={"call": repeated(again=9e-4)})["repeated"] is PASSED
    # Every new input was held up but one: noise.
    noisy = repeated(fresh=5e-3, again=1e-3)
    assert verdicts(timed={"call": [5e-3] * 29 + [1e-3]}, repeats={"call": noisy})["repeated"] is PASSED
    # One repeated call was held up: too little to accuse anybody.
    held_up = repeated(repeated=[1e-4] * 5 + [9e-4])
    assert verdicts(repeats={"call": held_up})["repeated"] is PASSED


def test_a_remembered_prefix_is_caught_where_calls_are_honest() -> None:
    """What openvino-genai's prefix cache was measured to do: 20 ms instead of 100."""
    repeats = {"call": repeated(), "prefill": repeated(fresh=0.1, again=0.02)}
    timed = {"call": [1e-3] * 30, "prefill": [0.1] * 6}
    assert verdicts(timed=timed, repeats=repeats)["repeated"] is FAILED


def test_time_must_grow_with_work() -> None:
    assert verdicts(growth=Growth(4096, [1.1e-3, 1.2e-3, 9e-3], 1e-3))["grows"] is FAILED
    assert verdicts(growth=Growth(64, [2.1e-3, 2.2e-3, 9e-3], 1e-3))["grows"] is PASSED


def test_outputs_that_are_computed_when_they_are_read_were_not_on_the_host() -> None:
    assert verdicts(repeats={"call": repeated(read=[9e-4] * 6, kinds=["Lazy"] * 6)})["on_host"] is FAILED
    assert verdicts(repeats={"call": repeated(read=[1e-6] * 4 + [9e-4] * 2)})["on_host"] is PASSED


def test_outputs_that_change_after_the_call_had_not_settled() -> None:
    assert verdicts(repeats={"call": repeated(outputs=3, changed=1)})["settled"] is FAILED
    assert verdicts(repeats={"call": repeated(outputs=0)})["settled"] is NOT_JUDGED


def test_nothing_is_faster_than_the_device() -> None:
    assert verdicts(operations=10**9, peak=1e11)["peak"] is FAILED
    assert verdicts(operations=10**9, peak=None)["peak"] is NOT_JUDGED
    # 64 GFLOP in 0.1 s, whatever small calls take.
    assert verdicts(growth=Growth(64, [0.1], 1e-3), operations=10**9, peak=5e12)["peak"] is PASSED
    assert (
        verdicts(growth=Growth(64, [0.1], 0.04), operations=10**9, peak=5e11, timed={"call": [0.04]})["peak"] is FAILED
    )


def test_a_trace_must_be_of_the_same_computation() -> None:
    """Both lie within the bound of 8 floors around the reference, and too far apart."""
    assert verdicts(traced=answer(off=-1.5), untraced=answer(off=1.5))["traced_error"] is PASSED
    assert verdicts(traced=answer(off=-50), untraced=answer(off=50))["traced_error"] is FAILED
    broken = answer()
    broken.outputs["y"][0, 0, 0] = np.nan  # type: ignore[index]
    assert verdicts(untraced=broken)["traced_error"] is NOT_JUDGED
