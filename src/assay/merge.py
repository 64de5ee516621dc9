"""Session reports into the matrix: a pure function of the set of reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from assay.errors import counted, listed
from assay.evidence.digest import groups
from assay.matrix import Matrix, MatrixCell, SessionRef
from assay.measure import throttling
from assay.measure.roofline import disturbance
from assay.schema import OWN, CheckpointRef, Precision
from assay.session_report import SessionReport

SIZES = ("tiny", "base", OWN)
"""The order of sizes; others follow, by name."""
COMPARED = ("assay", "torch", "transformers")
"""Software that all columns of a matrix should share: it makes the test models, and judges."""

_Slot = tuple[str, str, Precision]
_Age = tuple[datetime, str, int]


@dataclass(frozen=True)
class _Seen:
    """A cell with what decides about it."""

    cell: MatrixCell
    age: _Age

    @property
    def judged(self) -> bool:
        """Something was observed, if only a failure."""
        return bool(self.cell.evidence) or self.cell.failure is not None

    @property
    def slot(self) -> _Slot:
        """The rows that it may stand in."""
        return self.cell.family, self.cell.size, self.cell.precision

    @property
    def machine(self) -> str:
        """Where it ran."""
        return self.cell.session.machine.name if self.cell.session else ""

    def key(self) -> tuple[object, ...]:
        """What the newest is looked for among. Without a checkpoint, nothing else tells two machines' cells apart."""
        checkpoint = self.cell.checkpoint
        return (checkpoint.sha256 if checkpoint else (self.machine,), self.cell.workloads, self.cell.device)

    def outdated_by(self, failures: Mapping[object, _Age]) -> bool:
        """Whether a newer failure before the checkpoint was known says that this no longer holds.

        It speaks for its own machine and device alone, and of test models: which of the user's
        checkpoints failed is not known.

        Args:
            failures: the newest of each machine and device.
        """
        known = self.cell.checkpoint is None or self.cell.checkpoint.source == "local"
        return known and self.age < failures.get((self.machine, self.cell.device), self.age)


def merge(reports: Iterable[SessionReport], families: Sequence[str], backends: Sequence[str]) -> Matrix:
    """The matrix of these reports: the same whatever their order, grouping or number of copies.

    Of several cells with the same family, backend, checkpoint, size, precision, workloads and device the
    newest judged one is shown, and the others are kept as superseded. UNAVAILABLE is shown where nobody's
    cell was judged. Cells that nobody ran are PENDING.

    Args:
        families: the rows that there should be, in order; others that the reports hold follow, by name.
        backends: the columns, likewise.
    """
    places: defaultdict[tuple[_Slot, str], list[_Seen]] = defaultdict(list)
    for report in _latest(reports):
        for seen in _observed(report):
            places[seen.slot, seen.cell.backend].append(seen)
    shown: list[_Seen] = []
    superseded: list[_Seen] = []
    for group in places.values():
        chosen = {id(seen): seen for seen in _chosen(group)}
        shown += chosen.values()
        superseded += [seen for seen in group if id(seen) not in chosen]
    rows = _ordered(families, [seen.cell.family for seen in shown])
    columns = _ordered(backends, [seen.cell.backend for seen in shown])
    shown += _pending(shown, rows, columns)
    order = _order(shown, rows, columns)
    cells = [seen.cell for seen in sorted(shown, key=order)]
    return Matrix(
        cells=tuple(cells),
        superseded=tuple(seen.cell for seen in sorted(superseded, key=order)),
        warnings=(*_hash_warnings(cells), *_digest_warnings(cells), *_version_warnings(cells), *_disturbances(cells)),
    )


def _latest(reports: Iterable[SessionReport]) -> list[SessionReport]:
    """One report a session: a resumed one rewrites its file, and copies may be older."""
    latest: dict[str, SessionReport] = {}
    for report in reports:
        known = latest.setdefault(report.id, report)
        if known is not report and _rank(known) < _rank(report):
            latest[report.id] = report
    return list(latest.values())


def _rank(report: SessionReport) -> tuple[object, ...]:
    finished = _moment(report.finished_at) if report.finished_at else datetime.min.replace(tzinfo=UTC)
    return len(report.cells), finished, report.model_dump_json()


def _observed(report: SessionReport) -> Iterable[_Seen]:
    session = SessionRef(
        id=report.id,
        asked_device=report.asked_device,
        started_at=report.started_at,
        machine=report.machine,
        environment=report.environment,
        peaks=report.peaks,
    )
    for index, cell in enumerate(report.cells):
        age = (_moment(cell.started_at or report.started_at), report.id, index)
        yield _Seen(MatrixCell.of(cell, session), age)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _chosen(group: Sequence[_Seen]) -> list[_Seen]:
    """Of all cells of one place of the matrix, those that are shown."""
    judged = [seen for seen in group if seen.judged]
    if not judged:
        return [max(group, key=lambda seen: (seen.cell.unavailable is not None, seen.age))]
    failures: dict[object, _Age] = _newest(
        ((seen.machine, seen.cell.device), seen.age) for seen in judged if seen.cell.checkpoint is None
    )
    newest: dict[tuple[object, ...], _Seen] = {}
    for seen in judged:
        key = seen.key()
        if not seen.outdated_by(failures) and (key not in newest or newest[key].age < seen.age):
            newest[key] = seen
    whole = _newest((seen.cell.device, seen.age) for seen in newest.values() if seen.cell.checkpoint)
    return [
        seen for seen in newest.values()
        if seen.cell.checkpoint or whole.get(seen.cell.device, seen.age) <= seen.age
    ]  # fmt: skip


def _newest(ages: Iterable[tuple[object, _Age]]) -> dict[object, _Age]:
    """The newest age of each name."""
    found: dict[object, _Age] = {}
    for name, age in ages:
        found[name] = max(age, found.get(name, age))
    return found


def _pending(shown: Sequence[_Seen], families: Sequence[str], backends: Sequence[str]) -> list[_Seen]:
    """The cells that nobody ran: of every row, and of every family at every size and precision that was seen."""
    checkpoints: defaultdict[_Slot, dict[str, CheckpointRef]] = defaultdict(dict)
    taken: set[tuple[_Slot, str, str | None]] = set()
    slots: set[_Slot] = set()
    for seen in sorted(shown, key=lambda each: each.age):
        checkpoint = seen.cell.checkpoint
        slots.add(seen.slot)
        taken.add((seen.slot, seen.cell.backend, checkpoint.sha256 if checkpoint else None))
        if checkpoint:
            checkpoints[seen.slot].setdefault(checkpoint.sha256, checkpoint)
    local = {(size, precision) for _, size, precision in slots if size != OWN} or {("tiny", Precision.F32)}
    slots |= {(family, *each) for family in families for each in local}
    never = (datetime.min.replace(tzinfo=UTC), "", 0)
    return [
        _Seen(
            MatrixCell(family=slot[0], backend=backend, size=slot[1], precision=slot[2], checkpoint=checkpoint), never
        )
        for slot in slots
        for backend in backends
        # A cell without a checkpoint, such as an UNAVAILABLE one, stands in all rows of its family and size.
        if (slot, backend, None) not in taken
        for checkpoint in checkpoints[slot].values() or [None]
        if checkpoint is None or (slot, backend, checkpoint.sha256) not in taken
    ]


def _ordered(wanted: Sequence[str], seen: Iterable[str]) -> list[str]:
    return [*dict.fromkeys(wanted), *sorted(set(seen) - set(wanted))]


def _order(shown: Sequence[_Seen], families: Sequence[str], backends: Sequence[str]) -> Callable[[_Seen], Any]:
    """Family, size, precision, checkpoint, backend, device, age. A cell without a checkpoint goes to the first row."""
    first: dict[_Slot, str] = {}
    for seen in shown:
        if checkpoint := seen.cell.checkpoint:
            first[seen.slot] = min(checkpoint.sha256, first.get(seen.slot, checkpoint.sha256))
    rows = {name: index for index, name in enumerate(families)}
    columns = {name: index for index, name in enumerate(backends)}
    sizes = {name: index for index, name in enumerate(SIZES)}
    precisions = list(Precision)

    def order(seen: _Seen) -> tuple[object, ...]:
        cell = seen.cell
        return (
            rows[cell.family], sizes.get(cell.size, len(sizes)), cell.size, precisions.index(cell.precision),
            cell.checkpoint.sha256 if cell.checkpoint else first.get(seen.slot, ""),
            columns[cell.backend], cell.device or "", seen.age,
        )  # fmt: skip

    return order


def _hash_warnings(cells: Sequence[MatrixCell]) -> list[str]:
    """Test models should be the same bytes everywhere; where they are not, rows are apart and it is said."""
    rows: defaultdict[_Slot, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for cell in cells:
        if cell.session and cell.checkpoint and cell.checkpoint.source == "local":
            rows[cell.family, cell.size, cell.precision][cell.checkpoint.sha256].add(cell.backend)
    return [
        f"{family}, {size}, {precision}: the local test model differs between columns, so they are not compared: "
        + "; ".join(f"{sha[:8]} in {', '.join(sorted(columns))}" for sha, columns in sorted(hashes.items()))
        for (family, size, precision), hashes in rows.items()
        if len(hashes) > 1
    ]


def _digest_warnings(cells: Sequence[MatrixCell]) -> list[str]:
    """Judges should agree about a checkpoint whatever column they judge; where they do not, it is said who does not."""
    rows: defaultdict[tuple[object, ...], list[MatrixCell]] = defaultdict(list)
    for cell in cells:
        if cell.session and cell.checkpoint and cell.digests:
            rows[cell.family, cell.size, cell.checkpoint.sha256, cell.workloads].append(cell)
    return [
        f"{family}, {size}, model {str(sha)[:8]}: the judges disagree about the reference: " + "; ".join(apart)
        for (family, size, sha, _), row in rows.items()
        if len(apart := [listed(names) for names in groups([(_judge(cell), cell.digests) for cell in row])]) > 1
    ]


def _judge(cell: MatrixCell) -> str:
    """Column and environment of a judge."""
    assert cell.session
    packages = cell.session.environment.packages
    software = " ".join(f"{name} {packages[name]}" for name in COMPARED if name in packages)
    return f"{cell.backend} ({', '.join(filter(None, (software, f'on {cell.session.machine.name}')))})"


def _version_warnings(cells: Sequence[MatrixCell]) -> list[str]:
    versions: dict[str, defaultdict[str, set[str]]] = {name: defaultdict(set) for name in COMPARED}
    for cell in cells:
        if cell.session:
            environment = cell.session.environment
            for name in COMPARED:
                if version := {"assay": environment.assay, **environment.packages}.get(name):
                    # A local suffix names a build of the same version: 2.13.0+cpu.
                    versions[name][version.partition("+")[0]].add(cell.backend)
    return [
        f"{name} differs between columns: "
        + "; ".join(f"{version} in {', '.join(sorted(columns))}" for version, columns in sorted(found.items()))
        for name, found in versions.items()
        if len(found) > 1
    ]


def _disturbances(cells: Sequence[MatrixCell]) -> list[str]:
    """Of each session by its peaks, and by the cell that was kept from the processor for longest."""
    sessions: dict[str, list[MatrixCell]] = {}
    for cell in cells:
        if cell.session:
            sessions.setdefault(cell.session.id, []).append(cell)
    return [
        f"{row[0].backend} on {session.machine.name}, {session.started_at[:16]}: the machine was disturbed, {found}"
        for row in sessions.values()
        if (session := row[0].session)
        for found in (disturbance(session.peaks), _kept_away(row))
        if found
    ]


def _kept_away(cells: Sequence[MatrixCell]) -> str | None:
    found = [cell for cell in cells if throttling.disturbance(cell.throttling)]
    if not found:
        return None
    worst = max(found, key=lambda cell: throttling.most(cell.throttling))
    others = f", and {counted(len(found) - 1, 'other cell')}" if len(found) > 1 else ""
    return f"{worst.family}: {throttling.disturbance(worst.throttling)}{others}"
