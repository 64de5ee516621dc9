"""Runs a plan: every cell's roles as the schedule has them, and a report that is whole after every cell."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Collection
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from assay import needs
from assay.cell import CellRun, preloads
from assay.devices import choose
from assay.errors import Unavailable
from assay.files import write_atomically
from assay.installed import Installation
from assay.machine import describe_environment, describe_machine, threads
from assay.plan import Plan
from assay.progress import Progress
from assay.roles.process import Servers
from assay.schedule import Schedule, width
from assay.schema import Cell, SessionReport, Status, Unavailability

_SAME = ("backend", "planned", "asked_device", "machine", "environment")
"""What two reports must have in common for one to go on with the other."""


def run_session(
    plan: Plan, reports: Path, *, progress: Progress, keep: Collection[Status] | None = None
) -> SessionReport:
    """Run every cell of the plan and write `<reports>/sessions/<backend>-<session>.json` anew after each.

    Args:
        reports: the folder of all reports.
        keep: go on with the newest report of the same plan, machine and software, and do not run its cells of these
            statuses again; None begins a new report. A cell that is run again stands there until it is replaced.

    Returns:
        The report, whole. Whatever happens in a cell is recorded there and stays there.

    Raises:
        UsageError: the machine has not the memory or the disk for it; nothing was run.
    """
    sessions = reports / "sessions"
    report = _begun(plan)
    if keep is not None:
        report = _unfinished(plan, report, sessions) or report
    done = {cell.family for cell in report.cells if keep and cell.status in keep and _checkpoint_known(plan, cell)}
    remaining = [family for family in plan.families if family not in done]

    def record(cell: Cell) -> None:
        nonlocal report
        cells = {each.family: each for each in (*report.cells, cell)}
        ordered = tuple(cells[family] for family in plan.families if family in cells)
        report = report.model_copy(update={"cells": ordered})
        _write(report, sessions)
        progress.done(cell)

    try:
        device = choose(plan.backend.devices(), plan.device)
    except Unavailable as error:
        progress.session(plan.backend.name, remaining)
        absent = Unavailability(reason=error.reason, looked_for=error.looked_for)
        for family in remaining:
            record(_unavailable(plan, family, absent))
    else:
        needs.check(plan, remaining)
        progress.session(plan.backend.name, remaining)
        installation = Installation()
        with tempfile.TemporaryDirectory(prefix="assay-") as folder, Servers(plan.timeout) as servers:
            for preload in preloads(plan) if remaining else ():
                servers.start(preload)
            if remaining:
                installation.read()  # while the servers import
            cells = (
                CellRun(
                    plan, family, device, Path(folder) / family, partial(progress.phase, family), installation
                ).run()
                for family in remaining
            )
            for cell in Schedule(servers, width()).run(cells):
                record(cell)
    report = report.model_copy(update={"finished_at": now()})
    _write(report, sessions)
    progress.finished()
    return report


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _begun(plan: Plan) -> SessionReport:
    started = now()
    return SessionReport(
        id=f"{started[:19].replace('-', '').replace(':', '')}-{secrets.token_hex(3)}",
        backend=plan.backend.name,
        asked_device=plan.device,
        started_at=started,
        machine=describe_machine(),
        environment=describe_environment(threads(), plan.backend.packages),
        planned=plan.families,
    )


def _unavailable(plan: Plan, family: str, absent: Unavailability) -> Cell:
    return Cell(
        family=family, backend=plan.backend.name, size=plan.size_of(family), precision=plan.precision,
        unavailable=absent, started_at=now(), seconds=0.0,
    )  # fmt: skip


def _write(report: SessionReport, sessions: Path) -> None:
    write_atomically(sessions / f"{report.backend}-{report.id}.json", report.model_dump_json(indent=1) + "\n")


def _unfinished(plan: Plan, begun: SessionReport, sessions: Path) -> SessionReport | None:
    """The newest report of the same plan that this one, just begun, would say the same of; unreadable ones are none.

    A report names one machine and one set of software: what ran elsewhere, or with another torch, is no part of it.
    """
    found = []
    for path in sessions.glob(f"{plan.backend.name}-*.json"):
        try:
            report = SessionReport.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, OSError):
            continue
        if all(getattr(report, name) == getattr(begun, name) for name in _SAME) and _same(plan, report):
            found.append(report)
    newest = max(found, key=lambda report: report.started_at, default=None)
    return newest.model_copy(update={"finished_at": None}) if newest else None


def _same(plan: Plan, report: SessionReport) -> bool:
    """Whether the report's cells are of the checkpoints, the sizes and the precision that this plan has."""
    return all(
        cell.precision is plan.precision and cell.size == plan.size_of(cell.family) and _same_checkpoint(plan, cell)
        for cell in report.cells
    )


def _same_checkpoint(plan: Plan, cell: Cell) -> bool:
    brought = plan.models.get(cell.family)
    return brought is None or cell.checkpoint is None or cell.checkpoint.sha256 == brought.sha256


def _checkpoint_known(plan: Plan, cell: Cell) -> bool:
    """Whether the cell says which checkpoint it is about; a family has one test model, but many of the user's."""
    return cell.checkpoint is not None or cell.family not in plan.models
