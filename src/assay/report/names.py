"""What a cell is called where machines keep figures: the same name from run to run, and one for each cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from assay.matrix import MatrixCell
from assay.report import units
from assay.schema import OWN

_MORE: tuple[Callable[[MatrixCell], str], ...] = (
    lambda cell: units.weights(cell.checkpoint) if cell.checkpoint else "",
    lambda cell: cell.device or "",
    lambda cell: ", ".join(workload.name for workload in cell.workloads),
    lambda cell: cell.session.id if cell.session else "",
)
"""What tells cells of one name apart: appended, one after the other, only to names that several cells would have."""


def names(cells: Sequence[MatrixCell], *, device: bool) -> list[str]:
    """A name for each cell of a matrix, such as `bert on openvino, tiny, f32`.

    Args:
        device: name it. Figures of different devices are different series; a test is the same one on any of them.
    """
    found = [_name(cell, device=device) for cell in cells]
    for more in _MORE:
        shared = Counter(found)
        found = [
            f"{name}, {units.plain(more(cell))}" if shared[name] > 1 and more(cell) else name
            for name, cell in zip(found, cells, strict=True)
        ]
    return found


def _name(cell: MatrixCell, *, device: bool) -> str:
    own = cell.size == OWN and cell.checkpoint
    parts = [f"{cell.family} on {cell.backend}", f"{units.name(own)} {units.weights(own)}" if own else cell.size]
    parts += [cell.precision, *([cell.device] if device and cell.device else [])]
    return units.plain(", ".join(parts))
