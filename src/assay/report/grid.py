"""The matrix as rows and columns: what all formats for people share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from assay import families
from assay.errors import UsageError
from assay.matrix import Matrix, MatrixCell, SessionRef
from assay.report import units
from assay.schema import OWN, Cell, Check, CheckpointRef, Layer, Metric, Precision, Status
from assay.status import PRECEDENCE

GLYPHS: Mapping[Status, str] = {
    Status.REAL: "✔",
    Status.INACCURATE: "≉",
    Status.FALLBACK: "↪",
    Status.MOCK: "◌",
    Status.UNPROVEN: "?",
    Status.FAILED: "✘",
    Status.UNAVAILABLE: "∅",
    Status.PENDING: "·",
}
"""Beside the word, never instead of it."""

MEANINGS: Mapping[Status, str] = {
    Status.REAL: "agreement, weights, placement and timing passed: faithful to transformers' eager code with these "
    "weights, on this backend",
    Status.INACCURATE: "really computed from these weights there, but outside the bound of the declared precision",
    Status.FALLBACK: "right numbers, but not (or not only) on the backend or device that the column names",
    Status.MOCK: "the outputs do not follow the inputs or the weights, or the work was not done",
    Status.UNPROVEN: "nothing shows that it is wrong, but something that REAL needs is not proved",
    Status.FAILED: "an error, crash, hang or kill",
    Status.UNAVAILABLE: "the device, its driver, the precision or a tool that it takes is absent where this was run",
    Status.PENDING: "nobody has run this cell yet",
}

KINDS: Mapping[str, str] = {
    "text": "Text",
    "vision": "Vision",
    "audio": "Audio",
    "embeddings": "Embeddings",
    "generation": "Generation",
    "other": "Other",
}
"""The tables of metrics, in order; `other` holds families that are not installed here."""


@dataclass(frozen=True)
class Row:
    """One family with one checkpoint; several cells of a backend stand for several devices or workloads.

    Attributes:
        alone: no other row has the same family, size and precision.
        part: its size and precision, where the matrix has several.
    """

    family: str
    size: str
    precision: Precision
    checkpoint: CheckpointRef | None
    cells: Mapping[str, Sequence[MatrixCell]]
    alone: bool
    part: str = ""

    @property
    def title(self) -> str:
        """The family's heading."""
        return about(self.family)[0]

    @property
    def kind(self) -> str:
        """Which table of metrics it belongs to."""
        return about(self.family)[1]

    @property
    def label(self) -> str:
        """The title with what else tells rows apart."""
        return f"{self.title} ({', '.join(filter(None, (self.model, units.plain(self.size), self.precision)))})"

    @property
    def model(self) -> str:
        """The checkpoint, where the family and the size do not say it: one of the user's, or one of several."""
        if self.checkpoint is None or (self.alone and self.checkpoint.source == "local"):
            return ""
        return f"{units.plain(units.name(self.checkpoint))} {units.weights(self.checkpoint)}"


@cache
def about(family: str) -> tuple[str, str]:
    """Title and kind; a family that is not installed here goes by its id."""
    try:
        loaded = families.load(family)
    except UsageError:
        return units.plain(family), "other"
    return loaded.title, loaded.kind


def columns(matrix: Matrix) -> list[str]:
    """The backends in order: the first row of a merged matrix names all."""
    return list(dict.fromkeys(cell.backend for cell in matrix.cells))


def rows(matrix: Matrix) -> list[Row]:
    """Every row in order; a cell whose checkpoint is not known stands in all rows of its family and size."""
    slots: defaultdict[tuple[str, str, Precision], dict[str | None, list[MatrixCell]]] = defaultdict(dict)
    for cell in matrix.cells:
        known = cell.checkpoint.sha256 if cell.checkpoint else None
        slots[cell.family, cell.size, cell.precision].setdefault(known, []).append(cell)
    mixed = len({slot[1:] for slot in slots}) > 1
    table = []
    for slot, found in slots.items():
        everywhere = found.pop(None, [])
        places = {id(cell): place for place, cell in enumerate(matrix.cells)} if everywhere and found else {}
        for members in found.values() or [[]]:
            cells: defaultdict[str, list[MatrixCell]] = defaultdict(list)
            for cell in sorted([*members, *everywhere], key=lambda each: places.get(id(each), 0)):
                cells[cell.backend].append(cell)
            checkpoint = members[0].checkpoint if members else None
            part = f"{units.plain(slot[1])}, {slot[2]}" if mixed else ""
            table.append(Row(*slot, checkpoint, cells, alone=len(found) <= 1, part=part))
    return table


def kinds(table: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """The rows by kind of family, with the heading of each."""
    grouped: defaultdict[str, list[Row]] = defaultdict(list)
    for row in table:
        grouped[row.kind].append(row)
    return [(heading, grouped[kind]) for kind, heading in KINDS.items() if kind in grouped]


def labels(cells: Sequence[MatrixCell]) -> list[str]:
    """What tells the cells of one place apart: nothing for one, else device, machine, workloads or session."""
    if len(cells) <= 1:
        return [""] * len(cells)
    ways = [
        [cell.device or "" for cell in cells],
        [cell.session.machine.name if cell.session else "" for cell in cells],
        [", ".join(workload.name for workload in cell.workloads) for cell in cells],
    ]
    session = [cell.session.id if cell.session else "" for cell in cells]
    return [units.plain(each) for each in next((way for way in ways if len(set(way)) == len(way)), session)]


def machines(matrix: Matrix) -> dict[str, str]:
    """What each session's machine is called, by session id; nothing where all ran on one.

    A name that several have, as containers do, is followed by the processor.
    """
    found = {cell.session.id: cell.session.machine for cell in matrix.cells if cell.session}
    known = {(machine.name, machine.processor) for machine in found.values()}
    if len(known) <= 1:
        return {}
    shared = Counter(name for name, _ in known)
    return {
        session: units.plain(f"{each.name}, {each.processor}" if shared[each.name] > 1 else each.name)
        for session, each in found.items()
    }


def places(cells: Sequence[MatrixCell], named: Mapping[str, str]) -> list[tuple[str, ...]]:
    """What stands beside each cell of one place: what tells it from the others there, and its machine (`machines`)."""
    hosts = [named.get(cell.session.id, "") if cell.session else "" for cell in cells]
    return [
        tuple(dict.fromkeys(filter(None, (label, host))))
        for label, host in zip(labels(cells), hosts, strict=True)
    ]  # fmt: skip


def totals(cells: Iterable[MatrixCell]) -> str:
    """How many cells of each status."""
    counts = Counter(cell.status for cell in cells)
    return ", ".join(f"{counts[status]} {status}" for status in Status if counts[status]) or "none"


def headline(cell: MatrixCell) -> Metric | None:
    """The family's own rate: the first figure of which more is better."""
    return next((metric for metric in cell.metrics.values() if metric.better == "higher"), None)


def agreement(cell: Cell) -> Check | None:
    """The check that compares outputs with the reference, where it has a number."""
    evidence = cell.layer(Layer.AGREEMENT)
    check = evidence.check("error") if evidence else None
    return check if check and check.value is not None and check.bound is not None else None


def sessions(cells: Iterable[MatrixCell]) -> list[tuple[SessionRef, str, list[MatrixCell]]]:
    """The sessions behind these cells, each with its backend and cells, in order of the columns."""
    found: dict[tuple[str, str], tuple[SessionRef, str, list[MatrixCell]]] = {}
    for cell in cells:
        if cell.session:
            found.setdefault((cell.backend, cell.session.id), (cell.session, cell.backend, []))[2].append(cell)
    return list(found.values())


def sustained(session: SessionRef) -> str:
    """What its machine sustained before the first cell, in words; nothing where it was not measured."""
    if not session.peaks:
        return ""
    first = session.peaks[0]
    products = [f"{precision} {units.number(rate.value / 1e9)} GFLOP/s" for precision, rate in first.products.items()]
    return ", ".join([*products, f"memory {units.number(first.bandwidth.value / 1e9)} GB/s"])


_Column = tuple[str, str, Precision]


@dataclass(frozen=True)
class Cause:
    """Why some cells are not REAL, in one sentence for all of them; `columns` counts those of the whole matrix."""

    status: Status
    reason: str
    looked_for: tuple[str, ...]
    cells: list[MatrixCell] = field(compare=False)
    columns: Mapping[_Column, int] = field(compare=False)

    @property
    def where(self) -> str:
        """`cuda: all 10 families` or `cpu: BERT, T5 (tiny, bf16, f16)`."""
        mine: defaultdict[_Column, list[MatrixCell]] = defaultdict(list)
        for cell in self.cells:
            mine[_column(cell)].append(cell)
        local = {(size, precision) for _, size, precision in self.columns if size != OWN}
        found: defaultdict[str, dict[tuple[str, str], list[str]]] = defaultdict(dict)
        for (backend, size, precision), cells in mine.items():
            names = list(dict.fromkeys(about(cell.family)[0] for cell in cells))
            whole = len(cells) == self.columns[backend, size, precision] and len(names) > 1
            shown = f"all {len(names)} families" if whole else ", ".join(names)
            mixed = size == OWN or len(local) > 1
            found[backend].setdefault((shown, units.plain(size)), []).extend([precision] if mixed else [])
        return "; ".join(
            f"{units.plain(backend)}: {', '.join(_located(*place, each) for place, each in places.items())}"
            for backend, places in found.items()
        )


def _located(shown: str, size: str, precisions: Sequence[str]) -> str:
    return f"{shown} ({', '.join((size, *precisions))})" if precisions else shown


def _column(cell: MatrixCell) -> _Column:
    return cell.backend, cell.size, cell.precision


def causes(matrix: Matrix) -> list[Cause]:
    """Every cell that is not REAL, those with the same cause together; the gravest statuses first."""
    found: dict[Cause, Cause] = {}
    columns = Counter(map(_column, matrix.cells))
    for cell in matrix.cells:
        if cell.status is not Status.REAL:
            looked_for = cell.unavailable.looked_for if cell.unavailable else ()
            reason = f"{cell.reason}; {cell.diagnosis.text}" if cell.diagnosis else cell.reason
            cause = Cause(cell.status, units.plain(reason), tuple(map(units.plain, looked_for)), [], columns)
            found.setdefault(cause, cause).cells.append(cell)
    *graver, unproven = PRECEDENCE
    order = (*graver, Status.FAILED, unproven, Status.UNAVAILABLE, Status.PENDING)
    return sorted(found.values(), key=lambda cause: order.index(cause.status))
