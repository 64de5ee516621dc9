"""What the page shows of a cell once it is opened, as small as ten thousand of them need it."""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic_core import to_json

from assay.evidence import LAYERS
from assay.matrix import Matrix, MatrixCell
from assay.measure import throttling
from assay.records import Record
from assay.report import explain, grid, units
from assay.report.curves import curves
from assay.report.grid import Row
from assay.schema import Diagnosis, Evidence, Layer, Metric, Status
from assay.status import REQUIRED

if TYPE_CHECKING:
    from assay.report.page.difference import Difference

BASELINE = "cpu"
"""The column that speed-ups are against."""
DOTS = 20
"""How many quantiles of a series of samples are drawn; shorter series are drawn whole.

A quantile dot plot of twenty: Kay, Kola, Hullman and Munson, When (ish) is My Bus?, CHI 2016.
"""
STEPS = 200
"""Places between the shortest and the longest sample that a dot may have: half a percent of its chart."""
LOG_LINES = 40
LISTS = frozenset({"numbers", "sentences", "figures", "counts", "times", "heights"})
"""Keys of a cell that hold lists."""
EVIDENCE = LISTS | {
    "checks", "metrics", "phases", "open", "notes", "failure", "commands", "workloads", "started", "seconds",
    "diagnosis", "transcript", "against", "curves",
}  # fmt: skip
"""Keys of a cell that only its evidence shows."""
_BESIDE = re.compile(r"^relative error [^,]+, bound [^,]+, ")
"""What the sentence of an error begins with, and the page shows beside it as numbers."""
_NANOSECOND, _LARGE = 1e-9, 1e15


def addresses(cells: Sequence[MatrixCell]) -> list[str]:
    """A name for each cell that later merges keep: its place in the matrix and its weights.

    Where several share those, session and device tell them apart, and at last their order.
    """
    found = [_address(cell) for cell in cells]
    ways: tuple[Callable[[int], str], ...] = (
        lambda at: cells[at].session.id if cells[at].session else "",  # type: ignore[union-attr]
        lambda at: cells[at].device or "",
        str,
    )
    for way in ways:
        counts = Counter(found)
        found = [f"{each}/{quote(way(at), safe='')}" if counts[each] > 1 else each for at, each in enumerate(found)]
    return found


def _address(cell: MatrixCell) -> str:
    parts = [cell.family, cell.backend, cell.size, str(cell.precision)]
    parts += [units.weights(cell.checkpoint)] if cell.checkpoint else []
    return "/".join(quote(part, safe="") for part in parts)


def baseline(cell: MatrixCell, row: Row) -> MatrixCell | None:
    """The cell of the CPU column that this one may be compared with: only like with like.

    Both are REAL, of the same checkpoint, precision (those are the row's) and workloads, and ran on one machine with
    equally many threads.
    """
    if cell.backend == BASELINE or cell.status is not Status.REAL:
        return None
    candidates = (other for other in row.cells.get(BASELINE, ()) if other.status is Status.REAL)
    return next((other for other in candidates if _setting(other) == _setting(cell)), None)


def _setting(cell: MatrixCell) -> object:
    """What two cells of a row must share; nothing is known of a cell without its session or its checkpoint."""
    if cell.session is None or cell.checkpoint is None:
        return object()
    machine, threads = cell.session.machine, cell.session.environment.threads
    return machine.name, machine.processor, machine.cores, threads, cell.workloads, cell.checkpoint


def speed_up(cell: MatrixCell, other: MatrixCell) -> str:
    """How many times faster than the other, from what is shown of both: the family's own rate, or else the latency."""
    rates = [grid.headline(each) for each in (cell, other)]
    shown = rates if all(rates) else [other.metrics.get("latency"), cell.metrics.get("latency")]
    above, below = (rounded(each.value) if each else None for each in shown)
    if not above or not below:
        return ""
    return f"{'' if all(each.stable for each in shown if each) else '~'}{times(above / below)}"


def times(ratio: float) -> str:
    """Two digits: 12×, 8.9×, 0.46×."""
    return f"{ratio:.{0 if ratio >= 9.95 else 1 if ratio >= 0.995 else 2}f}×"


class Table:
    """Records that many cells share, each stored once."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self._places: dict[str | bytes, int] = {}

    def place(self, entry: Any) -> int:
        """The entry's index."""
        key = entry if isinstance(entry, str) else to_json(entry)
        if key not in self._places:
            self._places[key] = len(self.entries)
            self.entries.append(entry)
        return self._places[key]


class Packer:
    """Turns cells into plain data: what repeats goes into tables, what is empty is left out."""

    def __init__(self) -> None:
        self.checks, self.metrics, self.phases, self.curves = Table(), Table(), Table(), Table()
        self.sessions, self.checkpoints, self.workloads, self.texts = Table(), Table(), Table(), Table()

    def cell(self, cell: MatrixCell) -> dict[str, Any]:
        """One cell; numbers keep the digits that are shown (`assay.report.units`)."""
        failure, absent = cell.failure, cell.unavailable
        found = {
            "backend": cell.backend,
            "size": cell.size,
            "precision": str(cell.precision),
            "device": cell.device,
            "status": str(cell.status),
            "reason": self.texts.place(cell.reason),
            "checkpoint": self._shared(self.checkpoints, cell.checkpoint),
            "session": self._shared(self.sessions, cell.session),
            "workloads": self.workloads.place([_kept(each) for each in cell.workloads]),
            **self._checks(cell.evidence),
            "open": {str(each.layer): self.texts.place(each.not_judged) for each in cell.evidence if each.not_judged},
            **self._metrics(cell.metrics),
            "phases": self.phases.place([[each.role, each.name] for each in cell.phases]),
            "times": [rounded(each.seconds, 2) for each in cell.phases],
            **self._curves(cell),
            "notes": [self.texts.place(note) for note in _notes(cell)],
            "failure": _kept(failure) | {"log": "\n".join(failure.log.splitlines()[-LOG_LINES:])} if failure else None,
            "diagnosis": _diagnosis(cell.diagnosis) if cell.diagnosis else None,
            "transcript": cell.transcript,
            "looked_for": absent.looked_for if absent else None,
            "started": cell.started_at,
            "seconds": rounded(cell.seconds) if cell.seconds is not None else None,
            "commands": [[self.texts.place(what), command] for what, command in explain.commands(cell)],
        }
        return {key: value for key, value in found.items() if value not in (None, [], {}, ())}

    def _shared(self, table: Table, record: Record | None) -> int | None:
        return None if record is None else table.place(_kept(record))

    def _checks(self, evidence: Iterable[Evidence]) -> dict[str, Any]:
        """Which checks with which verdicts, one of few lists; value, bound, value, bound ...; and their sentences."""
        made = [(each.layer, check) for each in evidence for check in each.checks]
        kinds = [
            [str(layer), check.name, check.sense, str(LAYERS[layer].get(check.name, Status.UNPROVEN)),
             str(check.verdict)]
            for layer, check in made
        ]  # fmt: skip
        return {
            "checks": self.checks.place(kinds),
            "numbers": [rounded(number) for _, check in made for number in (check.value, check.bound)],
            "sentences": [_BESIDE.sub("", check.text, count=1) for _, check in made],
        }

    def _metrics(self, metrics: Mapping[str, Metric]) -> dict[str, Any]:
        """Which figures, one of few lists; value, low, high, value ...; and how many samples are behind each."""
        kinds = [[name, each.unit, each.better, each.stable] for name, each in metrics.items()]
        return {
            "metrics": self.metrics.place(kinds),
            "figures": [
                figure(each, number) for each in metrics.values() for number in (each.value, each.low, each.high)
            ],
            "counts": [each.samples for each in metrics.values()],
        }  # fmt: skip

    def _curves(self, cell: MatrixCell) -> dict[str, Any]:
        """Which curves over which sizes, one of few lists; and their values, two digits of each."""
        found = list(curves(cell))
        return {
            "curves": self.curves.place([[each.name, each.axis, each.unit, each.sizes] for each in found]),
            "heights": [rounded(float(f"{value:.1e}")) for each in found for value in each.values],
        }


def _notes(cell: MatrixCell) -> list[str]:
    return list(filter(None, (*cell.notes, throttling.disturbance(cell.throttling))))


def _kept(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude_defaults=True)


def _diagnosis(diagnosis: Diagnosis) -> dict[str, Any]:
    """What was found, and each stage with its error; of the layer, the same."""
    checks = [*diagnosis.stages, *([diagnosis.layer] if diagnosis.layer else [])]
    return {
        "text": diagnosis.text,
        "not_examined": diagnosis.not_examined,
        "checks": [
            {"name": each.name, "verdict": str(each.verdict), "value": rounded(each.value),
             "bound": rounded(each.bound), "sense": each.sense, "text": each.text}
            for each in checks
        ],
    }  # fmt: skip


def rounded(value: float | None, digits: int = 3) -> float | None:
    """So many significant digits, or all before the point; whole numbers without one."""
    if value is None:
        return None
    short = round(value) if 10**digits <= abs(value) < _LARGE else float(f"{value:.{digits - 1}e}")
    return int(short) if float(short).is_integer() and abs(short) < _LARGE else short


def figure(metric: Metric, value: float | None) -> float | None:
    """A figure of that metric with the digits that are shown: bytes are shown in units that are not decimal."""
    return rounded(value, 6 if metric.unit == "B" else 3)


def dots(samples: Sequence[float]) -> list[float | int | None]:
    """How many samples, the shortest, the longest, then each dot's step from the one before, of STEPS on a log scale.

    A series longer than DOTS is drawn by as many quantiles, each of which stands for an equal share of it.
    """
    ordered = sorted(max(value, _NANOSECOND) for value in samples)
    count = len(ordered)
    shown = ordered if count <= DOTS else [ordered[int((dot + 0.5) * count / DOTS)] for dot in range(DOTS)]
    low, high = ordered[0], ordered[-1]
    width = math.log(high / low)
    places = [round(STEPS * math.log(value / low) / width) if width else 0 for value in shown]
    return [count, rounded(low), rounded(high), *(new - old for old, new in zip([0, *places], places, strict=False))]


def pack(
    matrix: Matrix,
    rows: Sequence[Row],
    waiting: Sequence[str],
    difference: Difference | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page filters and searches by, and what its cells open to, which may take a moment longer.

    By columns, which compress better: a list for each key with an entry for each cell, and for keys that hold lists a
    list for each place in them.

    Args:
        rows: those of the matrix. A cell that stands in several belongs to the first.
        waiting: the HTML of the last rows, which the page adds to its table when they are asked for.
        difference: to the baseline, if there is one.
    """
    packer, columns = Packer(), grid.columns(matrix)
    where = {id(cell): index for index, cell in enumerate(matrix.cells)}
    groups = list(dict.fromkeys((row.size, row.precision) for row in rows))
    cells = [packer.cell(cell) for cell in matrix.cells]
    for number, row in enumerate(rows):
        for cell in (each for place in row.cells.values() for each in place):
            mine = cells[where[id(cell)]]
            mine.setdefault("row", number)
            if (other := baseline(cell, row)) is not None:
                mine.setdefault("baseline", where[id(other)])
    for plain, address in zip(cells, addresses(matrix.cells), strict=True):
        plain["address"] = address
    if difference:
        for plain, cell in zip(cells, matrix.cells, strict=True):
            plain["against"] = difference.pack(cell)
    keys = dict.fromkeys(key for cell in cells for key in cell)
    tables = {name: table.entries for name, table in vars(packer).items()}
    index = {
        "layers": [[str(layer), layer in REQUIRED] for layer in Layer],
        "statuses": {str(status): [grid.GLYPHS[status], grid.MEANINGS[status]] for status in Status},
        "rows": [_row(row, groups.index((row.size, row.precision)), columns, where) for row in rows],
        "waiting": waiting,
        "tables": tables,
        "cells": {key: [cell.get(key) for cell in cells] for key in keys if key not in EVIDENCE},
        "steps": STEPS,
        **({"against": difference.index(matrix.cells)} if difference else {}),
    }
    series = dict.fromkeys(name for cell in matrix.cells for name, values in cell.samples.items() if values)
    evidence = {
        "cells": {key: [cell.get(key) for cell in cells] for key in keys if key in EVIDENCE - LISTS},
        "lists": {key: list(zip_longest(*(cell.get(key, ()) for cell in cells))) for key in sorted(LISTS)},
        "samples": {
            name: [dots(values) if (values := cell.samples.get(name)) else None for cell in matrix.cells]
            for name in series
        },
    }  # fmt: skip
    return index, evidence


def _row(row: Row, group: int, columns: Sequence[str], where: Mapping[int, int]) -> dict[str, Any]:
    places = [[where[id(cell)] for cell in row.cells.get(name, ())] for name in columns]
    return {
        "title": row.title, "model": row.model, "label": row.label, "kind": row.kind, "group": group, "part": row.part,
        "places": places,
    }  # fmt: skip


def deflated(data: Mapping[str, Any]) -> str:
    """JSON, compressed (zlib) and in base 85, a quarter longer where base 64 is a third.

    Evidence repeats itself, and a seventh of it is left. Most of it are digits, which Huffman's code serves better than
    a search for longer repetitions: it is as short as zlib can make it otherwise, in 0.4 of the time.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    stream = zlib.compressobj(7, strategy=zlib.Z_FILTERED)
    packed = base64.b85encode(stream.compress(text.encode()) + stream.flush())
    return packed.replace(b"<", b".").decode()  # nothing in it may look like markup
