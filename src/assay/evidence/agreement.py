"""Agreement: **what** was computed?

Outputs for fresh, unpredictable inputs of several shapes, against the true float64 reference,
within a bound derived from the declared precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from assay.errors import listed
from assay.schema import Check, Evidence, Layer, Status

if TYPE_CHECKING:
    from assay.evidence.case import Answer, Case

CONSEQUENCES: Mapping[str, Status] = {
    "error": Status.INACCURATE,
    "finite": Status.INACCURATE,
    "follows_inputs": Status.MOCK,
}
FOLLOWS = 0.5
"""The least cosine between changes that counts as following. Honest arithmetic gives 1 - 1e-5 even at bf16, a
faulty model that still computes well above a half; outputs that ignore what changed give 0, and unrelated ones
give 0 within a few times 1/sqrt(number of outputs)."""


def judge(case: Case) -> Evidence:
    """Error, finiteness, and whether outputs change with the inputs as the reference's do."""
    from assay.evidence.case import error_check

    judged = [*case.challenges, case.traced]
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
        ),
    )


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
