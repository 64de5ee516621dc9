"""Servers and the processes that they fork, by a role that needs no runtime."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.roles.partner import ROLE

from assay.roles.process import Call, Request, RoleFailed, Servers

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the server does not fork")
PRELOAD = ("tests.roles.partner",)


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Servers whose roles have ten seconds a phase."""
    with Servers(limit=10) as servers:
        yield servers


def meeting(servers: Servers, folder: Path, *, ends_server: bool = False) -> list[Call]:
    """Two roles that wait for each other; the first may end their server then."""
    names = ("left", "right")
    return [
        servers.call(
            Request(
                ROLE, PRELOAD, {"other": str(folder / other), "ends_server": ends_server and own == "left"},
                folder / own, alone=False,
            )
        )
        for own, other in zip(names, reversed(names), strict=True)
    ]  # fmt: skip


@linux
def test_a_server_runs_several_roles_at_once_and_tells_their_answers_apart(servers: Servers, tmp_path: Path) -> None:
    left, right = meeting(servers, tmp_path)
    assert right.finish().response == {"met": str(tmp_path / "left")}
    assert left.finish().response == {"met": str(tmp_path / "right")}


@linux
def test_a_server_that_ends_fails_all_that_it_runs_and_the_next_call_has_a_new_one(
    servers: Servers, tmp_path: Path
) -> None:
    for call in meeting(servers, tmp_path / "first", ends_server=True):
        with pytest.raises(RoleFailed, match="the server ended with code -9"):
            call.finish()
    assert [call.finish().response for call in meeting(servers, tmp_path / "second")]


@linux
def test_a_role_that_takes_too_long_is_killed_alone(servers: Servers, tmp_path: Path) -> None:
    servers.limit = 0.5
    alone = servers.call(
        Request(ROLE, PRELOAD, {"other": str(tmp_path / "nobody"), "ends_server": False}, tmp_path / "alone", False)
    )
    with pytest.raises(RoleFailed, match="hung: no end of this phase"):
        alone.finish()
    servers.limit = 10
    assert [call.finish().response for call in meeting(servers, tmp_path)]
