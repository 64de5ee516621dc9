"""Servers and the processes that they fork, by a role that needs no runtime."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.roles.partner import ROLE

from assay.roles.process import SPINS, Call, Request, RoleFailed, Servers

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the server does not fork")
PRELOAD = ("tests.roles.partner",)


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Servers whose roles have ten seconds a phase."""
    with Servers(limit=10) as servers:
        yield servers


def meeting(servers: Servers, folder: Path, *then: str) -> list[Call]:
    """Two roles that wait for each other, and what each does then: it answers, waits or kills the server."""
    names = ("left", "right")
    calls = []
    for own, other, action in zip(names, reversed(names), then or ("answer", "answer"), strict=True):
        content = {"other": str(folder / other), "then": action}
        calls.append(servers.call(Request(ROLE, PRELOAD, content, folder / own, alone=False)))
    return calls


@linux
def test_a_server_runs_several_roles_at_once_and_tells_their_answers_apart(servers: Servers, tmp_path: Path) -> None:
    left, right = meeting(servers, tmp_path)
    assert right.finish().response == {"met": str(tmp_path / "left")}
    assert left.finish().response == {"met": str(tmp_path / "right")}


@linux
def test_a_server_imports_what_a_request_names_once_and_for_all(servers: Servers, tmp_path: Path) -> None:
    def imported(name: str, module: str, imports: tuple[str, ...] = ()) -> bool:
        content = {"other": str(tmp_path / name), "then": "look for a module", "module": module}
        request = Request(ROLE, PRELOAD, content, tmp_path / name, alone=False, imports=imports)
        return bool(servers.call(request).finish().response["imported"])

    assert not imported("before", "colorsys")
    assert imported("then", "colorsys", ("colorsys",))
    assert imported("after", "colorsys")
    assert not imported("missing", "no_such_module", ("no_such_module",))


@linux
def test_threads_spin_in_a_server_of_their_own(servers: Servers, tmp_path: Path) -> None:
    def waits(name: str, *, spins: bool) -> dict[str, object]:
        content = {"other": str(tmp_path / name), "then": "tell how threads wait"}
        return servers.call(Request(ROLE, PRELOAD, content, tmp_path / name, alone=True, spins=spins)).finish().response

    alone, beside, again = waits("alone", spins=True), waits("beside", spins=False), waits("again", spins=True)
    assert alone["spins"] == str(SPINS)
    assert beside["spins"] is None
    assert alone == again
    assert alone["server"] != beside["server"]


@linux
def test_a_server_that_ends_fails_all_that_it_runs_and_the_next_call_has_a_new_one(
    servers: Servers, tmp_path: Path
) -> None:
    for call in meeting(servers, tmp_path / "first", "wait", "kill the server"):
        with pytest.raises(RoleFailed, match="the server ended with code -9"):
            call.finish()
    assert [call.finish().response for call in meeting(servers, tmp_path / "second")]


@linux
def test_servers_that_have_ended_are_no_error_at_the_end(tmp_path: Path) -> None:
    with Servers(limit=10) as servers:
        for call in meeting(servers, tmp_path, "wait", "kill the server"):
            with pytest.raises(RoleFailed):
                call.finish()


@linux
def test_a_role_that_takes_too_long_is_killed_alone(servers: Servers, tmp_path: Path) -> None:
    servers.start(PRELOAD).wait()
    servers.limit = 0.5
    alone = servers.call(
        Request(ROLE, PRELOAD, {"other": str(tmp_path / "nobody"), "then": "answer"}, tmp_path / "alone", False)
    )
    with pytest.raises(RoleFailed, match="hung: no end of this phase"):
        alone.finish()
    servers.limit = 10
    assert [call.finish().response for call in meeting(servers, tmp_path)]


@linux
def test_what_a_role_leaves_behind_ends_before_its_answer_is_read(servers: Servers, tmp_path: Path) -> None:
    left, right = meeting(servers, tmp_path, "leave a process behind", "answer")
    pid = left.finish().response["left"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert right.finish().response
