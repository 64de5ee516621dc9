"""Which cell of one matrix stands in the place of which cell of another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from assay.matrix import MatrixCell
from assay.report.names import names


@dataclass(frozen=True)
class Pair:
    """A cell of the base under the name that findings call it by, and the cell in its place on the new side."""

    name: str
    old: MatrixCell
    new: MatrixCell | None

    @property
    def run(self) -> bool:
        """Whether anybody ran one of the two."""
        return bool(self.old.session or (self.new and self.new.session))


def pairs(base: Sequence[MatrixCell], new: Sequence[MatrixCell]) -> list[Pair]:
    """Every cell of the base, with the cell in its place on the new side."""
    partners = _Partners(new)
    return [Pair(name, old, partners.of(old)) for name, old in zip(names(base, device=False), base, strict=True)]


def unmet(paired: Iterable[Pair], new: Iterable[MatrixCell]) -> list[MatrixCell]:
    """The cells of the new side that were run and stand in nobody's place."""
    met = {id(pair.new) for pair in paired if pair.new}
    return [cell for cell in new if cell.session and id(cell) not in met]


def _place(cell: MatrixCell) -> tuple[str, ...]:
    return cell.family, cell.backend, cell.size, cell.precision


def weights(cell: MatrixCell) -> tuple[str | None, ...]:
    """The place of a cell, and the hash of its checkpoint."""
    return *_place(cell), cell.checkpoint.sha256 if cell.checkpoint else None


def by_weights(cells: Iterable[MatrixCell]) -> defaultdict[tuple[str | None, ...], list[MatrixCell]]:
    """The cells by these."""
    found: defaultdict[tuple[str | None, ...], list[MatrixCell]] = defaultdict(list)
    for cell in cells:
        found[weights(cell)].append(cell)
    return found


class _Partners:
    """Finds the cell of the new side that stands in the same place: the most alike of those that may."""

    def __init__(self, cells: Sequence[MatrixCell]) -> None:
        self._order = {id(cell): at for at, cell in enumerate(cells)}
        self._alike = by_weights(cells)
        self._there: defaultdict[tuple[str, ...], list[MatrixCell]] = defaultdict(list)
        for cell in cells:
            self._there[_place(cell)].append(cell)

    def of(self, cell: MatrixCell) -> MatrixCell | None:
        """Its partner; the first of several that are equally alike."""
        able = [other for other in self._others(cell) if _same_model(cell, other)]
        return max(able, key=lambda other: _likeness(cell, other), default=None)

    def _others(self, cell: MatrixCell) -> Sequence[MatrixCell]:
        """A user's checkpoint is sought under its hash: thousands of them may share a place."""
        if cell.checkpoint is None or cell.checkpoint.source == "local":
            return self._there[_place(cell)]
        found = self._alike[weights(cell)] + self._alike[*_place(cell), None]
        return sorted(found, key=lambda other: self._order[id(other)])


def _same_model(one: MatrixCell, other: MatrixCell) -> bool:
    """A user's checkpoint is itself alone; a test model is its family's, whatever bytes this version makes of it."""
    known = [cell.checkpoint for cell in (one, other) if cell.checkpoint]
    return len({each.sha256 for each in known}) <= 1 or all(each.source == "local" for each in known)


def _likeness(one: MatrixCell, other: MatrixCell) -> tuple[bool, ...]:
    machines = [cell.session.machine.name if cell.session else "" for cell in (one, other)]
    return (
        one.checkpoint == other.checkpoint, one.device == other.device, one.workloads == other.workloads,
        machines[0] == machines[1],
    )  # fmt: skip
