"""A recorded cell once more, on the very inputs that it had: its verdicts must come out the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from assay.errors import UsageError
from assay.plan import Plan
from assay.report_files import Unreadable, load
from assay.schema import OWN, Cell, Precision, Verdict
from assay.session_report import SessionReport


def recorded(path: Path, backend: str, family: str, precision: str | None = None) -> Cell:
    """The cell of a session report that is to be run again.

    Args:
        precision: of several, where None was asked for, it is f32.

    Raises:
        UsageError: there is no such file, or no such cell in it, or the cell was not challenged.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file; --replay takes a session report of reports/sessions")
    try:
        report = load(path, SessionReport)
    except Unreadable as error:
        raise UsageError(f"{path}: {error}") from error
    if report.backend != backend:
        raise UsageError(f"{path}: is a report of {report.backend}, not of {backend}")
    of_family = {str(cell.precision): cell for cell in report.cells if cell.family == family}
    only = next(iter(of_family)) if len(of_family) == 1 else str(Precision.F32)
    found = of_family.get(precision or only)
    if found is None:
        held = ", ".join(f"{cell.family} {cell.precision}" for cell in report.cells)
        raise UsageError(f"{path}: holds no cell of {family} {precision or only}; it has {held or 'none'}")
    if "challenge" not in found.seeds:
        raise UsageError(f"{path}: {family} was {found.status} before its inputs were drawn: nothing to replay")
    if not re.fullmatch(r"[0-9a-f]{32}", found.seeds["challenge"]):
        raise UsageError(f"{path}: the seed of {family} is not 32 hexadecimal digits")
    return found


def asked(cell: Cell, models: Mapping[str, str]) -> dict[str, Any]:
    """What to ask `make_plan` for, to get the cell's own checkpoint, size and precision.

    Raises:
        UsageError: it was about a user's folder, and none was named.
    """
    wanted: dict[str, Any] = {"families": [cell.family], "precisions": [cell.precision], "models": dict(models)}
    if cell.size != OWN:
        return wanted | {"size": cell.size}
    if not models and cell.checkpoint and cell.checkpoint.source == "hub":
        wanted["models"] = {cell.family: f"{cell.checkpoint.name}@{cell.checkpoint.revision}"}
    elif not models:
        name = cell.checkpoint.name if cell.checkpoint else "a checkpoint of the user's"
        raise UsageError(f"the cell was about {name}: name its folder, --model {cell.family}=DIR")
    return wanted


def seeded(plan: Plan, cell: Cell) -> Plan:
    """The plan with the cell's seed.

    Raises:
        UsageError: the checkpoint is another one.
    """
    brought = plan.models.get(cell.family)
    if brought and cell.checkpoint and brought.sha256 != cell.checkpoint.sha256:
        raise UsageError(f"{brought.path}: is not the checkpoint of that cell, whose SHA-256 is another")
    return replace(plan, seed=cell.seeds["challenge"])


def differences(before: Cell, after: Cell) -> list[str]:
    """What came out otherwise: the status, and every check with another verdict."""
    lines = []
    if before.checkpoint and after.checkpoint and before.checkpoint.sha256 != after.checkpoint.sha256:
        lines.append("the test model is another one: this is another assay, torch or transformers")
    if before.status is not after.status:
        lines.append(f"the status was {before.status}, now it is {after.status}: {after.reason}")
    old, new = _verdicts(before), _verdicts(after)
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            was, now = (str(each.get(name, "not made")).replace("_", " ") for each in (old, new))
            lines.append(f"{name}: was {was}, is {now}")
    return lines


def _verdicts(cell: Cell) -> dict[str, Verdict]:
    return {f"{each.layer} {check.name}": check.verdict for each in cell.evidence for check in each.checks}
