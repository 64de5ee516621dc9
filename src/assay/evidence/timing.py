"""Timing: **when** was the work done?

Measured calls get inputs never seen before; outputs of the timed loop, chosen by chance, are judged
like any other; and the parent's clock must cover what the runner says that it measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from assay.evidence.agreement import follows
from assay.schema import Check, Evidence, Layer, Status

if TYPE_CHECKING:
    from assay.evidence.case import Case

CONSEQUENCES: Mapping[str, Status] = {
    "sampled_error": Status.INACCURATE,
    "sampled_follows_inputs": Status.MOCK,
    "covered": Status.MOCK,
}


def judge(case: Case) -> Evidence:
    """The sampled outputs of the timed loop, and the clock."""
    from assay.evidence.case import error_check

    timed = [*case.timed, *([case.decoding.timed[0]] if case.decoding else [])]
    covered = Check(
        name="covered", value=case.claimed, bound=case.wall,
        text=f"{case.claimed:.2f} s of measured calls within {case.wall:.2f} s of the parent's clock",
    )  # fmt: skip
    return Evidence(
        layer=Layer.TIMING,
        checks=(
            error_check("sampled_error", timed, case.precision),
            follows("sampled_follows_inputs", case.timed, "inputs of the timed loop"),
            covered,
        ),
    )
