"""What a person sees while a session runs: a live line in a terminal, plain lines elsewhere, nothing for programs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

from assay.errors import counted
from assay.plan import Place

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from assay.schema import Cell


class Progress(Protocol):
    """What a session tells while it runs."""

    def session(self, backend: str, cells: int) -> None:
        """It begins with so many cells."""

    def phase(self, cell: str, role: str, phase: str) -> None:
        """A role of a cell enters a phase, or has ended: an empty one. Several cells may be under way."""

    def done(self, cell: Cell) -> None:
        """A cell is finished."""

    def finished(self) -> None:
        """So is the session."""


def choose(*, quiet: bool) -> Progress:
    """The progress that suits where standard error goes."""
    if quiet:
        return QuietProgress()
    return LiveProgress() if sys.stderr.isatty() else PlainProgress(sys.stderr)


class QuietProgress:
    """Says nothing."""

    def session(self, backend: str, cells: int) -> None:
        """Nothing."""

    def phase(self, cell: str, role: str, phase: str) -> None:
        """Nothing."""

    def done(self, cell: Cell) -> None:
        """Nothing."""

    def finished(self) -> None:
        """Nothing."""


class PlainProgress:
    """One line for each finished cell."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._count = 0
        self._total = 0

    def session(self, backend: str, cells: int) -> None:
        """How many cells there will be."""
        self._total = cells
        self._print(f"{backend}: {counted(cells, 'cell')}")

    def phase(self, cell: str, role: str, phase: str) -> None:
        """Nothing: a log has no use for it."""

    def done(self, cell: Cell) -> None:
        """The cell's line."""
        self._count += 1
        self._print(f"[{self._count}/{self._total}] {summary(cell).plain}")

    def finished(self) -> None:
        """Nothing more."""

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class LiveProgress:
    """Finished cells above, and a live line with the role, phase and time of every cell that runs."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._backend = ""
        self._total = 0
        self._count = 0
        self._current: dict[str, tuple[str, float]] = {}
        self._console = Console(stderr=True, highlight=False, emoji=False)
        # Last: it draws its first line at once.
        self._live = Live(get_renderable=self._line, console=self._console, refresh_per_second=4, transient=True)

    def session(self, backend: str, cells: int) -> None:
        """Start the live line."""
        self._backend, self._total = backend, cells
        self._live.start()

    def phase(self, cell: str, role: str, phase: str) -> None:
        """Show it with the time since; a cell that waits for its turn is not shown."""
        if phase:
            self._current[cell] = (f"{role}, {phase}", time.monotonic())
        else:
            self._current.pop(cell, None)

    def done(self, cell: Cell) -> None:
        """Print the cell above the live line."""
        self._current.pop(str(Place(cell.family, cell.precision)), None)
        self._count += 1
        self._console.print(summary(cell))

    def finished(self) -> None:
        """Take the live line away."""
        self._live.stop()

    def _line(self) -> RenderableType:
        from rich.text import Text

        now = time.monotonic()
        cells = [f"{cell}: {what}, {now - since:.0f} s" for cell, (what, since) in self._current.items()]
        what = "; ".join(cells) or "starting"
        return Text(f"[{self._count}/{self._total}] {self._backend}: {what}", style="dim", overflow="ellipsis")


def summary(cell: Cell) -> Text:
    """A finished cell in a line: status, latency, agreement error against its bound; the reason if it is not REAL."""
    from rich.text import Text

    from assay.report import grid, units
    from assay.report.terminal import status_text
    from assay.schema import Status

    parts = []
    if latency := cell.metrics.get("latency"):
        parts.append(f"{'' if latency.stable else '~'}{units.quantity(latency)}")
    check = grid.agreement(cell)
    if check and check.value is not None and check.bound is not None:
        parts.append(f"error {units.error(check.value)} of {units.error(check.bound)}")
    if cell.status is not Status.REAL:
        parts.append(units.plain(cell.reason))
    if cell.seconds:
        parts.append(f"took {units.duration(cell.seconds)}")
    return Text.assemble(
        status_text(cell.status), f" {cell.family} on {cell.backend}, {cell.precision}: {', '.join(parts)}"
    )
