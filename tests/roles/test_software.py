"""What a process holds: mocks however they are hidden, and code that stands in others' modules."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, Mock, NonCallableMock

import numpy as np
import pytest

from assay.roles.software import mocks_in, seen_running, software


class Slotted:
    __slots__ = ("empty", "held")

    def __init__(self, held: object) -> None:
        self.held = held


class Bound:
    def __init__(self, held: object) -> None:
        self.held = held

    def run(self) -> object:
        return self.held


def closed_over(value: object) -> Callable[[], object]:
    return lambda: value


def with_class_attribute(value: object) -> object:
    return type("Engine", (), {"run": value})()


class Yes:
    """Every attribute is there, `__class__` included, and it is no mock."""

    def __getattribute__(self, name: str) -> Any:
        return MagicMock if name == "__class__" else True


HIDING: list[Callable[[object], object]] = [
    lambda mock: mock,
    lambda mock: SimpleNamespace(session=mock),
    lambda mock: {"a": [({mock},)]},
    lambda mock: np.fromiter([mock], dtype=object),
    lambda mock: partial(print, mock),
    lambda mock: Bound(mock).run,
    Slotted,
    closed_over,
    with_class_attribute,
]


@pytest.mark.parametrize("mock", [MagicMock(), Mock(spec=dict), NonCallableMock()], ids=["magic", "spec", "plain"])
@pytest.mark.parametrize("hide", HIDING)
def test_a_mock_is_found_wherever_it_is_held(hide: Callable[[object], object], mock: object) -> None:
    found, whole = mocks_in(SimpleNamespace(deep=[hide(mock)]))
    assert found and whole


def test_what_only_answers_like_a_mock_is_none_and_cycles_end() -> None:
    cycle = SimpleNamespace(yes=Yes(), array=np.ones(3), kind=MagicMock)
    cycle.itself = [cycle]
    assert mocks_in(cycle) == ([], True)


def test_a_search_that_was_cut_short_says_so() -> None:
    assert mocks_in([[number] for number in range(100)], limit=50)[1] is False


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with a class, as if it had been imported."""
    module = ModuleType("some_runtime")
    module.__file__ = "/site/some_runtime/__init__.py"
    exec("class Core:\n    def run(self): ...\n", vars(module))  # noqa: S102 (the module's own code)
    monkeypatch.setitem(sys.modules, "some_runtime", module)
    return module


def test_patches_of_a_runtime_s_modules_are_told(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object) -> None: ...

    assert "some_runtime" not in str(software([], set(), ["some_runtime"])["code"])
    monkeypatch.setattr(runtime.Core, "run", run)
    runtime.shortcut = staticmethod(run)
    runtime.Other = Slotted
    found = software([], set(), ["some_runtime"])
    assert found["code"][__file__] == ["some_runtime:shortcut", "some_runtime:Other", "some_runtime:Core.run"]
    json.dumps(found)


def test_mocks_in_modules_and_in_their_place_are_told(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.Core = MagicMock()
    monkeypatch.setitem(sys.modules, "some_runtime.core", MagicMock())
    found = software([SimpleNamespace(spare=Mock())], set(), ["some_runtime"])
    assert found["mocks"] == ["some_runtime.core", "some_runtime.Core", "SimpleNamespace.spare"]


def test_modules_whose_code_ran_are_searched_and_those_that_they_name(
    runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.patched = closed_over
    monkeypatch.setitem(globals(), "named", runtime)
    with seen_running() as ran:
        closed_over(1)
    assert __file__ in ran
    assert software([], ran, [])["code"][__file__] == ["some_runtime:patched"]
