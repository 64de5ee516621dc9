"""Installed distributions: who owns a file, and whether it is still what the install record (RECORD) says.

It runs in the parent, once a session: records are read at the latest, and files hashed, when a cell first asks for
them. Only files that a runner used are hashed. The format is that of the packaging specification "Recording installed
projects".
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from importlib.metadata import Distribution, distributions
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlparse

from assay.cache import cache_dir
from assay.machine import threads

OWN = os.path.realpath(Path(__file__).parent) + os.sep
"""assay's own files, which judge and did not serve the call."""
_DELETED = " (deleted)"
"""What the kernel writes behind the path of a mapped file that has been removed or replaced since."""
_PYTHON = {os.path.realpath(sysconfig.get_paths()[name]) + os.sep for name in ("stdlib", "platstdlib")}
_SITE = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


@dataclass(frozen=True)
class Recorded:
    """A file in a RECORD: its distribution, and hash (algorithm, URL-safe base64) and bytes where they are there."""

    distribution: str
    hash: tuple[str, str] | None
    size: int | None


@dataclass(frozen=True)
class Findings:
    """What became of the comparison; the lists are sentences' parts, for people.

    Attributes:
        served: version by name of every distribution of which a file was used.
        compared: used files whose hash was compared.
        modified: used files that are not as recorded, or not there any more.
        unrecorded: used files in the place of a distribution's that its record does not know.
        patched: attributes of modules whose code comes from the backend's own package, or from no distribution.
        open: why something could not be compared.
    """

    served: Mapping[str, str] = field(default_factory=dict)
    compared: int = 0
    modified: Sequence[str] = ()
    unrecorded: Sequence[str] = ()
    patched: Sequence[str] = ()
    open: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Installation:
    """The distributions of this environment.

    Args:
        path: where they are looked for; by default where Python looks.
    """

    def __init__(self, path: Sequence[str] | None = None) -> None:
        self._path = path
        self._owners: dict[str, Recorded | None] = {}
        self._intact: dict[str, bool] = {}
        self._comparing = Lock()

    def read(self) -> None:
        """Read the records now, a quarter of a second, and not when the first cell asks."""
        _ = self._names, self._linked

    def compare(
        self, modules: Mapping[str, str], libraries: Collection[str], code: Mapping[str, Sequence[str]], *,
        backend: str, runtimes: tuple[str, ...],
    ) -> Findings:  # fmt: skip
        """What a runner used, beside the records; one thread at a time, so that each file is hashed once.

        Args:
            modules: file by name of every imported module.
            libraries: paths of mapped shared libraries, as the kernel writes them.
            code: by file, `module:attribute` of some of the places where its code stands in other packages.
            backend: the file of the backend's own module.
            runtimes: file-name prefixes of libraries that a distribution must own.
        """
        with self._comparing:
            return self._compared(modules, libraries, code, backend, runtimes)

    def _compared(
        self, modules: Mapping[str, str], libraries: Collection[str], code: Mapping[str, Sequence[str]], backend: str,
        runtimes: tuple[str, ...],
    ) -> Findings:  # fmt: skip
        named = {os.path.normpath(file): name for name, file in modules.items()}
        gone = {each.removesuffix(_DELETED) for each in libraries if each.endswith(_DELETED)}
        used = {file: self._known(file) for file in (*named, *(each.removesuffix(_DELETED) for each in libraries))}
        recorded = {file: record for file, record in used.items() if record}
        self._hash(file for file, record in recorded.items() if record.hash)
        unrecorded, unowned = [], []
        for file in (file for file in used if file not in recorded):
            name = named.get(file)
            if name is None and not self._in_place(file) and not Path(file).name.startswith(runtimes):
                continue  # the system's libraries
            if name is not None and _is_neutral(file):
                continue
            if reason := self._unverifiable(file, name):
                unowned.append(reason)
            elif name is None or name.partition(".")[0] in self._names:
                unrecorded.append(file)
            else:
                unowned.append(f"{file} belongs to no installed distribution")
        unhashed = {record.distribution for record in recorded.values() if not record.hash}
        return Findings(
            served={
                name: self._version(name) for name in sorted({record.distribution for record in recorded.values()})
            },
            compared=sum(record.hash is not None for record in recorded.values()),
            modified=sorted(
                file for file, record in recorded.items()
                if file in gone or not Path(file).is_file() or (record.hash and not self._intact[file])
            ),
            unrecorded=sorted(unrecorded),
            patched=sorted(self._patched(code, modules, backend)),
            open=list(dict.fromkeys((
                *sorted(unowned),
                *(f"the install record of {name} has no hash for a used file" for name in sorted(unhashed)),
                *self._preloaded(),
            ))),
        )  # fmt: skip

    @cached_property
    def _found(self) -> dict[str, Distribution]:
        """By name; of several with one name the first is what Python imports."""
        found: dict[str, Distribution] = {}
        for each in distributions() if self._path is None else distributions(path=list(self._path)):
            # What an aborted installation left has no metadata; an egg-info may be a file by itself.
            if any(each.read_text(name) for name in ("METADATA", "PKG-INFO", "")):
                found.setdefault(each.name, each)
        return found

    @cached_property
    def _records(self) -> dict[str, Recorded]:
        """By absolute path, links resolved up to the folder that distributions lie in."""
        found: dict[str, Recorded] = {}
        for name, distribution in self._found.items():
            base = _base(distribution)
            for path, digest, size, *_ in (
                [*row, "", ""] for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()) if row
            ):
                algorithm, _, value = digest.partition("=")
                known = value and algorithm in hashlib.algorithms_guaranteed
                found[os.path.normpath(f"{base}/{path}")] = Recorded(
                    name, (algorithm, value) if known else None, int(size) if size.isdecimal() else None
                )
        return found

    @cached_property
    def _places(self) -> dict[str, set[str]]:
        """The top-level names that records have, by the folder that they lie in."""
        places: dict[str, set[str]] = {_base(each): set() for each in self._found.values()}
        for file in self._records:
            for base, tops in places.items():
                if file.startswith(base + os.sep):
                    tops.add(file[len(base) + 1 :].partition(os.sep)[0])
        return places

    @cached_property
    def _names(self) -> set[str]:
        """The top-level modules that distributions with a record install."""
        tops = {top.partition(".")[0] for tops in self._places.values() for top in tops}
        return tops - {"", "__pycache__"}

    @cached_property
    def _linked(self) -> dict[str, list[str]]:
        """Recorded files by name, for installers that leave links to a store."""
        found: dict[str, list[str]] = {}
        for file in self._records:
            if ".so" in (name := Path(file).name):
                found.setdefault(name, []).append(file)
        return found

    def _known(self, file: str) -> Recorded | None:
        """The file's record, whatever links its path goes through."""
        if file not in self._owners:
            self._owners[file] = self._look_up(file)
        return self._owners[file]

    def _look_up(self, file: str) -> Recorded | None:
        folder, name = os.path.split(file)
        for path in (file, f"{os.path.realpath(folder)}/{name}"):
            if path in self._records:
                return self._records[path]
        for path in self._linked.get(name, ()):
            if os.path.realpath(path) == file:
                return self._records[path]
        return None

    def _hash(self, files: Iterable[str]) -> None:
        """Hash what was not hashed yet, several at once: hashing leaves Python to others."""
        fresh = [file for file in files if file not in self._intact and Path(file).is_file()]
        with ThreadPoolExecutor(threads()) as pool:
            self._intact |= dict(zip(fresh, pool.map(self._is_intact, fresh), strict=True))

    def _is_intact(self, file: str) -> bool:
        record = self._known(file)
        assert record is not None
        assert record.hash is not None
        if record.size is not None and record.size != Path(file).stat().st_size:
            return False
        algorithm, expected = record.hash
        with Path(file).open("rb") as stream:
            digest = hashlib.file_digest(stream, algorithm).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == expected

    def _in_place(self, file: str) -> bool:
        """Whether it lies in a folder that some record fills."""
        return any(
            file.startswith(base + os.sep) and file[len(base) + 1 :].partition(os.sep)[0] in tops
            for base, tops in self._places.items()
        )

    def _unverifiable(self, file: str, module: str | None) -> str | None:
        """Why no record can speak for this file: a distribution has it without one, or it was compiled here."""
        if file.startswith(f"{cache_dir() / 'compiled'}{os.sep}"):
            return "no install record can say what code should be that was compiled here"
        for name, folder in self._editable.items():
            if file.startswith(folder + os.sep):
                return f"{name} is installed editable, from {folder}, so no record says what its files should be"
        top = (module or "").partition(".")[0]
        for name, tops in self._unrecorded.items():
            if top in tops and file.startswith(_base(self._found[name]) + os.sep):
                return f"{name} was installed without a record of its files"
        return None

    @cached_property
    def _editable(self) -> dict[str, str]:
        found = {}
        for name, distribution in self._found.items():
            url = {}
            with suppress(ValueError):
                url = json.loads(distribution.read_text("direct_url.json") or "{}")
            if url.get("dir_info", {}).get("editable"):
                found[name] = os.path.realpath(unquote(urlparse(url["url"]).path))
        return found

    @cached_property
    def _unrecorded(self) -> dict[str, set[str]]:
        """The top-level modules of distributions without a record: as they say, or by their own name."""
        return {
            name: set((distribution.read_text("top_level.txt") or name.replace("-", "_")).split())
            for name, distribution in self._found.items()
            if distribution.read_text("RECORD") is None
        }

    def _patched(self, code: Mapping[str, Sequence[str]], modules: Mapping[str, str], backend: str) -> Iterator[str]:
        """Code of the backend's package, or of nobody's, in modules that are somebody else's."""
        own = self._known(backend)
        for file, places in code.items():
            if _is_neutral(file) or not self._is_foreign(file, own):
                continue
            for place in places:
                module, _, attribute = place.partition(":")
                home = modules.get(module)
                if home and (_is_neutral(home) or (self._known(home) and not self._is_foreign(home, own))):
                    yield f"{module}.{attribute} (from {file})"

    def _is_foreign(self, file: str, own: Recorded | None) -> bool:
        record = self._known(file)
        return record is None or (own is not None and record.distribution == own.distribution)

    def _version(self, name: str) -> str:
        return self._found[name].version

    @staticmethod
    def _preloaded() -> Iterator[str]:
        if names := os.environ.get("LD_PRELOAD"):
            yield f"LD_PRELOAD puts {names} before every library"


def source_file(thing: object) -> str:
    """The file of the module that defines this object's class."""
    return os.path.normpath(str(sys.modules[type(thing).__module__].__file__))


@cache
def _is_neutral(file: str) -> bool:
    """Whether it is Python's own, or assay's."""
    real = os.path.realpath(file)
    return real.startswith(OWN) or (real.startswith(tuple(_PYTHON)) and not any(each in real for each in _SITE))


def _base(distribution: Distribution) -> str:
    return os.path.realpath(str(distribution.locate_file("")))
