"""What runs beside what."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from assay.roles.process import Answer, Call, Request, RoleFailed, Servers
from assay.schedule import Schedule, Work
from assay.schema import Cell, Failure, Precision


class Clockwork:
    """Servers whose calls take as many looks as their request says, and that remember who ran beside whom."""

    def __init__(self) -> None:
        self.running: list[Request] = []
        self.beside: list[list[Request]] = []

    def call(self, request: Request) -> Call:
        """Start."""
        self.running.append(request)
        self.beside.append(list(self.running))
        return cast("Call", Running(self, request))


class Running:
    """A call of `Clockwork`."""

    server: Any = type("Ended", (), {"gone": True})  # nothing to wait for

    def __init__(self, servers: Clockwork, request: Request) -> None:
        self._servers, self._request = servers, request
        self._left: int = request.content["looks"]

    def answer(self) -> Answer | None:
        """None until it has been looked at often enough."""
        self._left -= 1
        if self._left > 0:
            return None
        self._servers.running.remove(self._request)
        if self._request.content["fails"]:
            raise RoleFailed(Failure(role="runner", phase="start", reason="as asked"), (), 0.0)
        return Answer(dict(self._request.content), (), 0.0, 0.0)

    def finish(self) -> Answer:
        """Look until it ends."""
        while not (answer := self.answer()):
            pass
        return answer


STEPS = st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), min_size=1, max_size=4)


def work(name: str, steps: list[tuple[int, bool, bool]]) -> Work:
    """A cell of these steps (looks, alone, fails); it ends at the first that fails."""
    reason = None
    try:
        for number, (looks, alone, fails) in enumerate(steps):
            content = {"looks": looks, "fails": fails}
            answer = yield Request("runner", (), content, Path(name) / str(number), alone)
            assert answer.response == content
    except RoleFailed as failed:
        reason = failed.failure
    return Cell(family=name, backend="b", size="tiny", precision=Precision.F32, failure=reason)


@given(st.lists(STEPS, max_size=9), st.integers(1, 4))
def test_every_cell_ends_and_nothing_runs_beside_what_must_be_alone(
    cells: list[list[tuple[int, bool, bool]]], width: int
) -> None:
    servers = Clockwork()
    works = [work(f"cell-{number}", steps) for number, steps in enumerate(cells)]
    ended = {cell.family: cell for cell in Schedule(cast("Servers", servers), width).run(works)}
    assert sorted(ended) == [f"cell-{number}" for number in range(len(cells))]
    for number, steps in enumerate(cells):
        assert (ended[f"cell-{number}"].failure is not None) is any(fails for _, _, fails in steps)
    for beside in servers.beside:
        assert len(beside) <= width
        assert len(beside) == 1 or not any(request.alone for request in beside)


def test_roles_that_may_share_do() -> None:
    servers = Clockwork()
    works = [work(f"cell-{number}", [(3, False, False)]) for number in range(4)]
    list(Schedule(cast("Servers", servers), 2).run(works))
    assert max(map(len, servers.beside)) == 2


def test_what_takes_longest_begins_first() -> None:
    """Of four roles of 1, 1, 1 and 3 looks on two cores the long one ends with the others, not after them."""
    servers = Clockwork()
    looks = {"short": 1, "shorter": 1, "shortest": 1, "long": 3}

    def judged(name: str, looks: int) -> Work:
        yield Request("judge", (), {"looks": looks, "fails": False}, Path(name), False, taken=float(looks))
        return Cell(family=name, backend="b", size="tiny", precision=Precision.F32)

    works = [judged(name, each) for name, each in looks.items()]
    ended = [cell.family for cell in Schedule(cast("Servers", servers), 2).run(works)]
    assert servers.beside[0][0].folder.name == "long"
    assert sorted(ended) == sorted(looks)


def test_a_large_cell_is_finished_before_the_next_begins() -> None:
    servers = Clockwork()
    works = [work(f"cell-{number}", [(1, True, False)] * 3) for number in range(3)]
    list(Schedule(cast("Servers", servers), 2).run(works))
    order = [beside[-1].folder.parts[0] for beside in servers.beside]
    assert order == sorted(order)
