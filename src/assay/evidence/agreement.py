"""Agreement: **what** was computed?

Outputs for fresh, unpredictable inputs of several shapes, against the true float64 reference,
within a bound derived from the declared precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from assay.errors import listed
from assay.schema import Check, Evidence, Layer, Status

if TYPE_CHECKING:
    import numpy as np

    from assay.evidence.case import Answer, Arrays, Case, Decoding
    from assay.schema import Precision

CONSEQUENCES: Mapping[str, Status] = {
    "error": Status.INACCURATE,
    "finite": Status.INACCURATE,
    "follows_inputs": Status.MOCK,
    "margin": Status.UNPROVEN,
    "permuted": Status.INACCURATE,
    "padding": Status.INACCURATE,
    "follows_tokens": Status.MOCK,
    "tokens": Status.INACCURATE,
    "reset": Status.INACCURATE,
}
DECODING = frozenset({"follows_tokens", "tokens", "reset"})
"""Checks that are made, and required, where tokens are decoded alone."""
FOLLOWS = 0.1
"""The least cosine between changes that counts as following. Honest arithmetic gives nearly 1 even at bf16; outputs
that ignore what changed give 0, and unrelated ones 0 within a few times 1 / sqrt(number of outputs), in the worst pair
below it. So may a model with a skipped layer or a stale tensor, if it is wrong enough (`nox -s trial`)."""


def judge(case: Case) -> Evidence:
    """Error, finiteness, and whether outputs change with the inputs as the reference's do."""
    from assay.evidence.case import error_check

    decoding = case.decoding
    judged = [*case.challenges, case.traced, *([decoding.forced, decoding.greedy[0]] if decoding else [])]
    broken = sum(answer.broken() for answer in judged)
    finite = Check(
        name="finite", value=broken, bound=0,
        text=f"{broken} values are missing or not finite" if broken else "all values are finite",
    )  # fmt: skip
    return Evidence(
        layer=Layer.AGREEMENT,
        checks=(
            error_check("error", judged, case.precision),
            finite,
            follows("follows_inputs", [*case.timed, case.traced], "inputs"),
            _margin(case),
            error_check("permuted", [case.permuted], case.precision),
            _padding(case),
            *(_decoding(decoding, case.precision) if decoding else ()),
        ),
    )


def _margin(case: Case) -> Check:
    """How far the best of the trivial answers is from passing: a tolerance that zeros pass is no tolerance.

    A kind of answer is as far off as its worst challenge, since every challenge must pass. The shares are of the bound
    that `error` has, so that 1 is where a trivial answer would pass for the model's.
    """
    answers = [case.challenges[0], case.challenges[-1]]
    shares = {
        kind: max(answer.deviation(case.precision, outputs).share for answer, outputs in found)
        for kind, found in _trivial(answers, case.traced, case.another).items()
    }
    kind, value = min(shares.items(), key=lambda share: share[1])
    text = f"the best trivial answer, {kind}, is {value:.3g} times as far off as the bound allows"
    return Check(name="margin", value=value, bound=1, sense="at_least", text=text)


def _trivial(answers: Sequence[Answer], traced: Answer, another: Arrays) -> dict[str, list[tuple[Answer, Arrays]]]:
    """Answers that take no model: nothing, the same for all, another row's, another input's."""
    import numpy as np

    def made(answer: Answer, change: Callable[[np.ndarray], np.ndarray]) -> tuple[Answer, Arrays]:
        return answer, {name: change(array) for name, array in answer.expected.items()}

    def constant(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array.mean(axis=tuple(range(array.ndim - 1))), array.shape)

    def shuffled(array: np.ndarray) -> np.ndarray:
        return np.roll(array.reshape(-1, array.shape[-1]), 1, axis=0).reshape(array.shape)

    several = [answer for answer in answers if len(next(iter(answer.inputs.values()))) > 1]
    return {
        "zeros": [made(answer, np.zeros_like) for answer in answers],
        "the mean row": [made(answer, constant) for answer in several],
        "shuffled rows": [made(answer, shuffled) for answer in several],
        "another input's answer": [(traced, another)],
    }


def _padding(case: Case) -> Check:
    from assay.evidence.case import error_check

    if case.alone is None:
        text = "this architecture takes no mask: every position of every input means something"
        return Check(name="padding", value=0, bound=0, text=text)
    return error_check("padding", [case.alone], case.precision)


def _decoding(decoding: Decoding, precision: Precision) -> tuple[Check, ...]:
    from assay.evidence.case import error_check

    forced = decoding.forced
    return (
        # All steps as one change: a decoder that loses its cache is wrong, and follows its last token all the same.
        aligned("follows_tokens", [(_steps(forced, slice(1, None)), _steps(forced, slice(None, -1)))], "tokens"),
        _tokens([decoding.greedy, decoding.timed], precision),
        error_check("reset", [decoding.again], precision),
    )


def _steps(answer: Answer, part: slice) -> Answer:
    """A part of a sequence's steps; what is missing stays missing."""
    outputs, expected = (
        {name: array[:, part] for name, array in arrays.items() if array.ndim > 1}
        for arrays in (answer.outputs, answer.expected)
    )
    return replace(answer, outputs=outputs, expected=expected)


def _tokens(sequences: Sequence[tuple[Answer, np.ndarray]], precision: Precision) -> Check:
    """Whether every token is the reference's likeliest, as far as honest logits can tell the best two apart.

    Logits whose error has at most norm b move the gap between two of them by at most sqrt(2) b.
    """
    import numpy as np

    from assay.evidence.deviation import K, row_bounds

    if any(answer.broken() for answer, _ in sequences):
        return Check(name="tokens", text="tokens cannot be compared: logits are missing or not finite")
    wrong = clear = count = 0
    for answer, tokens in sequences:
        length = tokens.shape[1]
        exact, noise = answer.expected["logits"][:, :length], answer.noise["logits"][:, :, :length]
        second, best = np.moveaxis(np.partition(exact, -2, axis=-1)[..., -2:], -1, 0)
        told = best - second > np.sqrt(2) * row_bounds(exact, noise, factor=K[precision])
        wrong += int(np.count_nonzero(told & (exact.argmax(axis=-1) != tokens)))
        clear += int(np.count_nonzero(told))
        count += tokens.size
    text = f"{wrong} of {clear} chosen tokens are not the reference's, {count - clear} of {count} too close to call"
    if not wrong:
        text = f"all {clear} chosen tokens are the reference's; {count - clear} of {count} too close to call"
    return Check(name="tokens", value=wrong, bound=0, text=text)


def follows(name: str, answers: Sequence[Answer], what: str) -> Check:
    """Whether outputs of equal shapes change from call to call as the reference's do."""
    return aligned(name, list(combinations(answers, 2)), what)


def aligned(name: str, pairs: Sequence[tuple[Answer, Answer]], what: str) -> Check:
    """Whether outputs change within each pair as the reference's do; outputs that are not there follow nothing."""
    from assay.evidence.case import difference
    from assay.evidence.deviation import alignment

    answers = [answer for pair in pairs for answer in pair]
    if absent := sorted({output for answer in answers for output in answer.absent()}):
        text = f"outputs do not follow the {what}: missing, no numbers or of another shape: {listed(absent)}"
        return Check(name=name, value=0, bound=FOLLOWS, sense="at_least", text=text)
    if any(answer.broken() for answer in answers):
        return Check(name=name, text=f"whether outputs follow the {what} cannot be told: values are not finite")
    value = alignment(
        [(difference(left.outputs, right.outputs), difference(left.expected, right.expected)) for left, right in pairs]
    )
    verb = "follow" if value >= FOLLOWS else "do not follow"
    text = f"outputs {verb} the {what}: their changes align with the reference's at cosine {value:.3g}"
    return Check(name=name, value=value, bound=FOLLOWS, sense="at_least", text=text)
