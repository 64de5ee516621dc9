"""From evidence to status: the decision table of `docs/judgement.md` as code."""

from __future__ import annotations

from assay.evidence import LAYERS
from assay.evidence.agreement import DECODING
from assay.schema import Cell, Layer, Status, Verdict

REQUIRED = (Layer.AGREEMENT, Layer.WEIGHTS, Layer.PLACEMENT, Layer.TIMING)
"""The layers that REAL needs. Provenance may be not judged, but must not have failed."""

PRECEDENCE = (Status.MOCK, Status.INACCURATE, Status.FALLBACK, Status.UNPROVEN)
"""Of several failed checks, the gravest consequence decides."""


def conclude(cell: Cell) -> tuple[Status, str]:
    """The status that this cell's observations lead to, and why."""
    if cell.failure is not None:
        failure = cell.failure
        return Status.FAILED, f"{failure.role}, {failure.phase}: {failure.reason}"
    if cell.unavailable is not None:
        return Status.UNAVAILABLE, cell.unavailable.reason
    if not cell.evidence:
        return Status.PENDING, "nobody has run this cell yet"
    consequences = _failed_checks(cell)
    for status in PRECEDENCE:
        if texts := [text for consequence, text in consequences if consequence is status]:
            return status, "; ".join(texts)
    if unjudged := _unjudged(cell):
        return Status.UNPROVEN, "; ".join(unjudged)
    return Status.REAL, "agreement, weights, placement and timing passed"


def _failed_checks(cell: Cell) -> list[tuple[Status, str]]:
    return [
        (LAYERS[evidence.layer].get(check.name, Status.UNPROVEN), check.text)
        for evidence in cell.evidence
        if evidence.verdict is Verdict.FAILED
        for check in evidence.checks
        if check.verdict is Verdict.FAILED
    ]


def _unjudged(cell: Cell) -> list[str]:
    """Why a layer that REAL needs is open: absent, incomplete, or with a check that had no number."""
    open_questions = [] if cell.checkpoint else ["weights not judged: the report does not say which checkpoint ran"]
    decodes = any(workload.new_tokens for workload in cell.workloads)
    for layer in REQUIRED:
        evidence = cell.layer(layer)
        if evidence is None:
            open_questions.append(f"{layer}: no evidence was recorded")
            continue
        needed = (name for name in LAYERS[layer] if decodes or name not in DECODING)
        recorded = {check.name for check in evidence.checks}
        missing = [name for name in needed if name not in recorded]
        if evidence.verdict is not Verdict.PASSED:
            open_questions.append(f"{layer} not judged: {evidence.text}")
        elif missing:
            open_questions.append(f"{layer} not judged: no {', '.join(missing)} in the report")
    return open_questions
