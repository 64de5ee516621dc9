"""Runs a plan: every cell's roles as the schedule has them, and a report that is whole after every cell."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from assay import needs
from assay.cell import CellRun, preloads
from assay.devices import Device, accelerators, choose
from assay.errors import Unavailable
from assay.files import write_atomically
from assay.installed import Installation
from assay.machine import describe_environment, describe_machine, threads
from assay.measure.peak import peak as make_peak
from assay.measure.roofline import best, frequency, load
from assay.plan import Place, Plan
from assay.progress import Progress
from assay.roles.process import OnPhase, Request, RoleFailed, Server, ServerGone, Servers
from assay.schedule import Schedule, width
from assay.schema import Cell, Precision, Status, Unavailability
from assay.session_report import MachinePeak, SessionReport

_SAME = ("backend", "planned", "precisions", "asked_device", "machine", "environment")
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
    done = {_place(cell) for cell in report.cells if keep and cell.status in keep and _checkpoint_known(plan, cell)}
    remaining = [place for place in plan.places if place not in done]

    writer = _Writer(plan, report, sessions, progress)
    device, absent = _found(plan)
    here = [place for place in remaining if place.precision not in absent]
    if here:
        needs.check(plan, [family for family, _ in here])
    progress.session(plan.backend.name, len(remaining))
    for place in remaining:
        if place.precision in absent:
            writer.record(_unavailable(plan, place, absent[place.precision]))
    if device and here:
        _run(plan, here, device, writer, progress)
    writer.write(finished_at=now())
    progress.finished()
    return writer.report


@dataclass
class _Writer:
    """The report, whole after every cell."""

    plan: Plan
    report: SessionReport
    sessions: Path
    progress: Progress

    def record(self, cell: Cell) -> None:
        """Put a finished cell in, where an earlier one of its family and precision was."""
        cells = {_place(each): each for each in (*self.report.cells, cell)}
        self.write(cells=tuple(cells[place] for place in self.plan.places if place in cells))
        self.progress.done(cell)

    def write(self, **update: object) -> None:
        """Change the report, and write it anew."""
        self.report = self.report.model_copy(update=update)
        path = self.sessions / f"{self.report.backend}-{self.report.id}.json"
        write_atomically(path, self.report.model_dump_json(indent=1) + "\n")


def _run(plan: Plan, places: Sequence[Place], device: Device, writer: _Writer, progress: Progress) -> None:
    """The cells of these places, with the machine's peak before the first and after the last."""
    installation, precisions = Installation(), list(dict.fromkeys(place.precision for place in places))
    with tempfile.TemporaryDirectory(prefix="assay-") as folder, Servers(plan.timeout) as servers:

        def probe(name: str, before: MachinePeak | None = None) -> MachinePeak | None:
            wanted = _wanted(device, precisions, before)
            peak = _peak(plan, wanted, device, servers, Path(folder) / name, partial(progress.phase, "machine"))
            if peak:
                writer.write(peaks=(*writer.report.peaks, peak))
            return peak

        _start(plan, servers)
        installation.read()  # while the servers import
        before = probe("before")
        cells = (
            CellRun(
                plan, place, device, Path(folder) / f"{place.family}-{place.precision}",
                partial(progress.phase, str(place)), installation, before,
            ).run()
            for place in places
        )  # fmt: skip
        for cell in Schedule(servers, width()).run(cells):
            writer.record(cell)
        if before:
            probe("after", before)


def _start(plan: Plan, servers: Servers) -> list[Server]:
    """The servers of the session, which import while others go on; those that run already stay."""
    judge, runner = preloads(plan)
    return [servers.start(judge), servers.start(runner, spins=True)]


def _wanted(device: Device, precisions: Sequence[Precision], before: MachinePeak | None) -> dict[str, Any]:
    """What the probe is asked for: all ways at first, then those that were the best."""
    return {
        "device": asdict(device),
        "products": {
            each: before.products[each].by if before and each in before.products else None
            for each in dict.fromkeys(precision.arithmetic for precision in precisions)
        },
        "bandwidth": before.bandwidth.by if before else None,
    }


def _peak(
    plan: Plan, wanted: Mapping[str, Any], device: Device, servers: Servers, folder: Path, on_phase: OnPhase
) -> MachinePeak | None:
    """What the machine sustains while nothing else of the session runs; None where that cannot be told."""
    request = Request("peak", preloads(plan)[0], wanted, folder, alone=True, on_phase=on_phase)
    try:
        for server in _start(plan, servers):
            server.wait()  # imports take cores too
        found = servers.call(request).finish().response
    except (RoleFailed, ServerGone):
        return None  # cells say themselves what is wrong with the software
    finally:
        on_phase("peak", "")
    return MachinePeak(
        at=now(),
        products={each: best(tried) for each, tried in found["products"].items() if tried},
        make={Precision(each): most for each in wanted["products"] if (most := make_peak(device, Precision(each)))},
        bandwidth=best(found["bandwidth"]),
        load=load(),
        frequency=frequency(),
    )


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
        machine=describe_machine(accelerators()),
        environment=describe_environment(threads(), plan.backend.packages),
        planned=plan.families,
        precisions=plan.precisions,
    )


def _found(plan: Plan) -> tuple[Device | None, Mapping[Precision, Unavailability]]:
    """The device, if it is here, and why cells of which precisions cannot run."""
    try:
        device = choose(plan.backend.devices(), plan.device)
    except Unavailable as error:
        return None, dict.fromkeys(plan.precisions, _unavailability(error))
    able = plan.backend.precisions(device)
    absent = (precision for precision in plan.precisions if precision not in able)
    return device, {each: _unavailability(plan.backend.lacks(device, each)) for each in absent}


def _unavailability(error: Unavailable) -> Unavailability:
    return Unavailability(reason=error.reason, looked_for=error.looked_for)


def _unavailable(plan: Plan, place: Place, absent: Unavailability) -> Cell:
    return Cell(
        family=place.family, backend=plan.backend.name, size=plan.size_of(place.family), precision=place.precision,
        unavailable=absent, started_at=now(), seconds=0.0,
    )  # fmt: skip


def _place(cell: Cell) -> Place:
    return Place(cell.family, cell.precision)


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
    """Whether the report's cells are of the checkpoints and the sizes that this plan has."""
    return all(cell.size == plan.size_of(cell.family) and _same_checkpoint(plan, cell) for cell in report.cells)


def _same_checkpoint(plan: Plan, cell: Cell) -> bool:
    brought = plan.models.get(cell.family)
    return brought is None or cell.checkpoint is None or cell.checkpoint.sha256 == brought.sha256


def _checkpoint_known(plan: Plan, cell: Cell) -> bool:
    """Whether the cell says which checkpoint it is about; a family has one test model, but many of the user's."""
    return cell.checkpoint is not None or cell.family not in plan.models
