"""What software this process holds: imported modules, mapped libraries, whose code stands in which module, mocks.

It runs in the runner, after everything that is measured. Every object is asked through `type` and its real `__dict__`,
never by an attribute: a mock has every attribute and answers yes.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any

import numpy as np

LIMIT = 200_000
"""Objects that are looked at in an engine. An eager torch model has some 25 for each of its modules."""
EXAMPLES = 3
"""Attributes that are named for each file and package that its code stands in."""

_WRAPPERS = (staticmethod, classmethod, property)
_LEAVES = (str, bytes, int, float, complex, bool, type(None), CodeType)
_HOLDERS = (list, tuple, set, frozenset, deque)


@contextmanager
def seen_running() -> Iterator[set[str]]:
    """Gathers the files of all Python code that runs in the block, in this thread."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        yield files
    finally:
        sys.setprofile(None)


def software(roots: Sequence[object], ran: set[str], runtimes: Sequence[str]) -> dict[str, Any]:
    """What is in the process, as plain data.

    Args:
        roots: the engine and whatever else answered; mocks are looked for among all that they hold.
        ran: files whose code ran in a call. Their modules are searched for code and mocks, and the modules that those
            name: looking at every object of an imported torch takes half a second.
        runtimes: modules that are searched in any case.

    Returns:
        `modules`: file by name. `libraries`: paths as the kernel has them, None where it does not tell. `code`: for
        every file whose functions, classes or instances stand in modules of another package, some `module:attribute`.
        `mocks`: where one was found. `whole`: whether everything that the roots hold was looked at.
    """
    loaded: dict[str, object] = dict(sys.modules)
    modules = {name: module for name, module in loaded.items() if module is not None}
    contents = {name: _instance(module) for name, module in modules.items()}
    files = {name: file for name, content in contents.items() if (file := _absolute(content.get("__file__")))}
    standing = _Standing(files)
    standing.mocks += [name for name, module in modules.items() if is_mock(module)]
    searched = {name for name, file in files.items() if file in ran} | {name for name in runtimes if name in modules}
    for name in sorted(searched | set(_named(contents, searched))):
        if not is_mock(modules[name]):
            standing.look(name, contents[name])
    held, whole = mocks_in(*roots)
    return {
        "modules": files,
        "libraries": mapped_libraries(),
        "code": {file: [each for found in places.values() for each in found] for file, places in standing.code.items()},
        "mocks": [*standing.mocks, *held],
        "whole": whole,
    }


def _named(contents: Mapping[str, Mapping[str, Any]], modules: set[str]) -> Iterator[str]:
    """The modules that stand in these modules, and those that define the classes there."""
    for name in modules:
        for value in list(contents[name].values()):
            kind = type(value)
            found = _instance(value).get("__name__") if issubclass(kind, ModuleType) else None
            if issubclass(kind, type):
                found = _module_of(value)
            if type(found) is str and found in contents:
                yield found


class _Standing:
    """What stands in modules: mocks, and code of other packages' files."""

    def __init__(self, files: dict[str, str]) -> None:
        self.mocks: list[str] = []
        self.code: dict[str, dict[str, list[str]]] = {}
        self._files = files
        self._kinds: dict[type, tuple[bool, str | None]] = dict.fromkeys(_LEAVES, (False, None))

    def look(self, name: str, content: dict[str, Any]) -> None:
        """At the names of a module, and those of the classes that it defines."""
        home = _home(name, self._files)
        self._names(name, "", content, home)
        for attribute, value in list(content.items()):
            if issubclass(type(value), type) and _module_of(value) == name:
                self._names(name, f"{attribute}.", vars(value), home)

    def _names(self, module: str, prefix: str, content: Mapping[str, Any], home: str) -> None:
        for attribute, value in list(content.items()):
            mock, origin = self._mock_and_origin(value)
            if mock:
                self.mocks.append(f"{module}.{prefix}{attribute}")
            elif origin and not origin.startswith(home):
                found = self.code.setdefault(origin, {}).setdefault(module.partition(".")[0], [])
                if len(found) < EXAMPLES:
                    found.append(f"{module}:{prefix}{attribute}")

    def _mock_and_origin(self, value: Any) -> tuple[bool, str | None]:
        """Whether it is a mock, and the file of a function's code, of a class, or of an instance's class."""
        kind = type(value)
        if kind is FunctionType:
            return False, _absolute(value.__code__.co_filename)
        if kind not in self._kinds:
            self._kinds[kind] = is_mock(value), self._files.get(_module_of(kind))
        if kind in _WRAPPERS:
            inner = value.fget if kind is property else value.__func__
            return self._mock_and_origin(inner) if type(inner) is not kind else (False, None)
        if issubclass(kind, ModuleType):
            return False, _absolute(_instance(value).get("__file__"))
        if issubclass(kind, type):
            return False, self._files.get(_module_of(value))
        return self._kinds[kind]


def is_mock(value: object) -> bool:
    """Whether it is an object of `unittest.mock`, or of its twin on the package index, whatever it says of itself."""
    return any(base.__name__ == "NonCallableMock" for base in type(value).__mro__)


def mapped_libraries() -> list[str] | None:
    """Paths of the shared libraries mapped into this process; None where `/proc` does not tell."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    paths = {line.split(maxsplit=5)[5] for line in maps.read_text().splitlines() if line.count(" /")}
    return sorted(path for path in paths if ".so" in Path(path).name)


def mocks_in(*roots: object, limit: int = LIMIT) -> tuple[list[str], bool]:
    """The mocks among everything that these objects hold, nearest first, and whether `limit` objects were enough."""
    found: list[str] = []
    seen: dict[int, object] = {}  # kept, so that no other object gets the same id meanwhile
    waiting = deque((type(root).__name__, root) for root in roots)
    while waiting and len(seen) < limit:
        path, value = waiting.popleft()
        if id(value) in seen or type(value) in _LEAVES or issubclass(type(value), ModuleType):
            continue
        seen[id(value)] = value
        if is_mock(value):
            found.append(path)
        else:
            waiting.extend((f"{path}{name}", each) for name, each in _held(value))
    return found, not waiting


def _held(value: Any) -> Iterator[tuple[str, object]]:
    """What an object holds: items, attributes, slots, what a function has bound, and its class."""
    kind = type(value)
    if issubclass(kind, type):
        if _module_of(value) != "builtins":
            yield from ((f".{name}", each) for name, each in list(vars(value).items()))
        return
    yield from (("[...]", each) for each in _items(value))
    yield from ((f".{name}", each) for name, each in list(_instance(value).items()))
    for name, slot in ((name, slot) for base in kind.__mro__ for name, slot in vars(base).items()):
        if type(slot) is MemberDescriptorType and name != "__globals__":
            with suppress(AttributeError):  # an empty slot
                yield f".{name}", slot.__get__(value)
    if kind is FunctionType:
        for cell in value.__closure__ or ():
            with suppress(ValueError):  # a variable that is not bound yet
                yield " holds", cell.cell_contents
    yield f" ({kind.__qualname__})", kind


def _items(value: Any) -> list[object]:
    """The items of a container, by the methods of the built-in type that it is."""
    kind = type(value)
    if issubclass(kind, dict):
        return list(dict.values(value))
    for base in _HOLDERS:
        if issubclass(kind, base):
            return list(base.__iter__(value))
    return value.ravel().tolist() if kind is np.ndarray and value.dtype.hasobject else []


def _instance(value: object) -> dict[str, Any]:
    """The real attributes of an object, whatever it answers when it is asked."""
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return {}
    return attributes if type(attributes) is dict else {}  # no copy: what is touched, a fork must copy


def _module_of(kind: type) -> str:
    module = type.__getattribute__(kind, "__module__")
    return module if isinstance(module, str) else ""


def _absolute(file: object) -> str | None:
    """The path; what is made at run time, `<string>` for example, has none."""
    return file if isinstance(file, str) and file.startswith("/") else None


def _home(module: str, files: dict[str, str]) -> str:
    """Where the files of a module's package are, which may stand in each other's modules."""
    file = files.get(module.partition(".")[0], "?")
    folder, _, name = file.rpartition("/")
    return folder + "/" if name.startswith("__init__.") else file
