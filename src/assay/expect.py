"""Known failures: what is not REAL and known not to be, and what a run finds other than that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from assay import merge as merging
from assay import report_files
from assay.errors import UsageError
from assay.known_failures import KnownFailure, KnownFailures
from assay.matrix import Matrix
from assay.report import units
from assay.schema import OWN, Cell, Status


def read(path: Path) -> tuple[KnownFailure, ...]:
    """The known failures of a file.

    Raises:
        UsageError: it is not there, or no such file.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file; `assay expect --output {path}` writes it")
    try:
        return report_files.load(path, KnownFailures).known_failures
    except report_files.Unreadable as error:
        raise UsageError(f"{path}: {error}") from error


def measured(paths: Sequence[Path]) -> tuple[Cell, ...]:
    """The cells that were run: of one matrix, or of the session reports in files and folders, merged.

    Raises:
        UsageError: a path is not there or cannot be read, or no cell was run.
    """
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder; `assay run --backend cpu` writes reports/sessions")
    matrix = _matrix(paths)
    if not (cells := tuple(cell for cell in matrix.cells if cell.session)):
        raise UsageError(f"no cell that was run in {', '.join(map(str, paths))}; `assay run --backend cpu` runs some")
    return cells


def _matrix(paths: Sequence[Path]) -> Matrix:
    if len(paths) == 1 and report_files.is_matrix(paths[0]):
        return report_files.read_matrix(paths[0])
    reports, problems = report_files.read(paths)
    if problems:
        raise UsageError(str(problems[0]))
    return merging.merge(reports, (), ())


def known_failures(cells: Iterable[Cell]) -> KnownFailures:
    """One entry for each cell that is neither REAL nor UNAVAILABLE; of several in one place, one for each status."""
    found: dict[tuple[object, ...], KnownFailure] = {}
    for cell in cells:
        if cell.status not in (Status.REAL, Status.UNAVAILABLE):
            failure = KnownFailure(
                family=cell.family, backend=cell.backend, size=cell.size, precision=cell.precision,
                checkpoint=_own(cell), status=cell.status, note=cell.reason,
            )  # fmt: skip
            found.setdefault((*_place(failure), failure.checkpoint, failure.status), failure)
    return KnownFailures(known_failures=tuple(found.values()))


def surprises(cells: Iterable[Cell], known: Sequence[KnownFailure], *, require_real: bool = False) -> list[str]:
    """What was not to be expected, a line for each cell: it should be REAL, or what is known of it.

    A known failure that has gone is a surprise as well, or nobody would ever take it out of the list. What is
    known of cells that are not here says nothing, and UNAVAILABLE says nothing of what is known.

    Args:
        require_real: UNAVAILABLE is a surprise too.
    """
    ran = [cell for cell in cells if require_real or cell.status is not Status.UNAVAILABLE]
    about = [[failure for failure in known if _is_about(failure, cell)] for cell in ran]
    # On several machines one place has several cells: what is known need hold for one of them.
    seen = {failure for cell, mine in zip(ran, about, strict=True) for failure in mine if failure.status is cell.status}
    lines = []
    for cell, mine in zip(ran, about, strict=True):
        expected = [failure.status for failure in mine if failure not in seen] or [Status.REAL]
        if cell.status in expected or cell.status in [failure.status for failure in mine]:
            continue
        found = f"{cell.status}, a known failure that has gone" if cell.status is Status.REAL else str(cell.status)
        why = "" if cell.status is Status.REAL else f": {cell.reason}"
        lines.append(units.plain(f"{_name(cell)}: expected {' or '.join(expected)}, found {found}{why}"))
    return lines


def _is_about(failure: KnownFailure, cell: Cell) -> bool:
    """A cell that failed before its checkpoint was known may be about any of the user's."""
    names = {failure.checkpoint, _own(cell)}
    return _place(failure) == _place(cell) and (None in names or len(names) == 1)


def _place(of: Cell | KnownFailure) -> tuple[object, ...]:
    return of.family, of.backend, of.size, of.precision


def _own(cell: Cell) -> str | None:
    """The name of a user's checkpoint; a test model's says no more than family and size."""
    return cell.checkpoint.name if cell.checkpoint and cell.size == OWN else None


def _name(cell: Cell) -> str:
    own = _own(cell)
    return f"{cell.family} on {cell.backend} ({', '.join(filter(None, (own, cell.size, cell.precision)))})"
