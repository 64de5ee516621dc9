"""When each role of each cell runs: what is timed runs alone, everything else several at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

from assay.machine import threads
from assay.roles.process import Answer, Call, Request, RoleFailed, Servers, wait
from assay.schema import Cell

WIDEST = 4
"""Roles that run at once, however many cores there are: each holds a model and its outputs."""

DEPTH = 5
"""Cells under way for each role that runs at once; what is lost when a session is interrupted."""

Work = Generator[Request, Answer, Cell]
"""A cell being made: it yields what it wants run, is sent the answer or thrown the failure, and returns its record."""

T = TypeVar("T")


def width() -> int:
    """How many roles may run at once here, where none must be alone."""
    return min(threads(), WIDEST)


class Schedule:
    """Runs cells on the servers, each one's roles in their order.

    Roles that need not be alone share the cores; when none of them is left, those that must be alone have their turn,
    one after the other. Several cells for each core are under way, so that uneven ones leave no core idle; and those
    that take longest begin first, so that none of them is the last by itself (Graham, Bounds on multiprocessing timing
    anomalies, 1969).
    """

    def __init__(self, servers: Servers, width: int) -> None:
        self._servers = servers
        self._width = width
        self._together: list[tuple[Work, Request]] = []
        self._alone: deque[tuple[Work, Request]] = deque()
        self._running: dict[Call, Work] = {}

    def run(self, works: Iterable[Work]) -> Iterator[Cell]:
        """The cells, as they are finished."""
        coming = iter(works)
        while True:
            while self._under_way() < DEPTH * self._width and (work := next(coming, None)):
                yield from self._go_on(work)
            if not self._under_way():
                return
            if self._together or self._running:
                yield from self._side_by_side()
            else:
                yield from self._one_by_one()

    def _under_way(self) -> int:
        return len(self._together) + len(self._alone) + len(self._running)

    def _side_by_side(self) -> Iterator[Cell]:
        while self._together and len(self._running) < self._width:
            longest = max(range(len(self._together)), key=lambda at: self._together[at][1].taken)
            work, request = self._together.pop(longest)
            self._running[self._servers.call(request)] = work
        wait(self._running)
        for call in list(self._running):
            if answer := _outcome(call.answer):
                yield from self._go_on(self._running.pop(call), answer)

    def _one_by_one(self) -> Iterator[Cell]:
        """Those that wait now, each with what it wants next, as long as that is alone too."""
        turn, self._alone = self._alone, deque()
        while turn:
            work, request = turn.popleft()
            yield from self._go_on(work, _outcome(self._servers.call(request).finish))
            turn.extendleft(self._alone)
            self._alone.clear()

    def _go_on(self, work: Work, answer: Answer | RoleFailed | None = None) -> Iterator[Cell]:
        """Give a cell what it waited for, and queue what it wants next."""
        try:
            if answer is None:
                request = next(work)
            elif isinstance(answer, RoleFailed):
                request = work.throw(answer)
            else:
                request = work.send(answer)
        except StopIteration as finished:
            yield finished.value
        else:
            (self._alone if request.alone else self._together).append((work, request))


def _outcome(ask: Callable[[], T]) -> T | RoleFailed:
    try:
        return ask()
    except RoleFailed as failed:
        return failed
