"""What assay keeps between sessions: test models, twins, exports and compiled kernels, folders that can be made again.

An entry is published whole (`files.published_folder`), counts as used when it is found or made, and is moved aside
before it is deleted. A session holds the cache while it runs, so that no other process prunes it meanwhile.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import platformdirs

from assay.errors import UsageError, listed
from assay.files import published_folder
from assay.report.units import amount

Kind = Literal["checkpoints", "twins", "exports", "compiled"]
MARKERS: Mapping[Kind, str] = {
    "checkpoints": "assay.json", "twins": "assay.json", "exports": "export.json", "compiled": "compiled.json",
}  # fmt: skip
"""The folders of the cache, and the file that assay writes last into every entry there: what lacks it is not ours."""
CAP = 40 * 2**30
"""Bytes kept after a session, but for what it used. The test models of published dimensions have 2.1e9 parameters:
with twins and exports, four float32 copies of each, 31 GiB."""
_NAME = r"[\w-]+-[0-9a-f]{16,}"
_ENTRY = re.compile(_NAME)
_DRAFT = re.compile(rf"\.{_NAME}\.\w{{8}}")
"""As `published_folder` names what is being written, and `_discard` what is being deleted."""
_ABANDONED = 86_400
"""Seconds after which nobody is still writing a draft."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """A folder that assay made and keeps: its size in bytes, and when it was last used (seconds since 1970)."""

    kind: Kind
    path: Path
    size: int
    used: float

    def to_json(self) -> dict[str, object]:
        """As plain data; the time in UTC, ISO 8601."""
        used = datetime.fromtimestamp(self.used, UTC).isoformat(timespec="milliseconds")
        return {"kind": self.kind, "name": self.path.name, "size": self.size, "used": used}


class Missing(Exception):
    """An entry that was only to be found is not there."""


class InUse(UsageError):
    """The cache cannot be pruned while a session is running."""


def cache_dir() -> Path:
    """Where what assay makes is kept: `$ASSAY_CACHE`, or the user's cache folder."""
    override = os.environ.get("ASSAY_CACHE")
    return Path(override).expanduser().absolute() if override else platformdirs.user_cache_path("assay")


def cap() -> int:
    """Bytes that may be kept: `$ASSAY_CACHE_SIZE`, or 40 GiB.

    Raises:
        UsageError: the variable holds no size.
    """
    override = os.environ.get("ASSAY_CACHE_SIZE")
    return parse_size(override, "$ASSAY_CACHE_SIZE") if override else CAP


def parse_size(text: str, what: str) -> int:
    """Bytes from `500M` or `20G`, powers of 1024.

    Raises:
        UsageError: it is no size; `what` says whose it was to be.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise UsageError(f"{what} takes a size such as 500M or 20G, not {text!r}")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def entry(kind: Kind, name: str, build: Callable[[Path], None], whole: Callable[[Path], bool]) -> Path:
    """The folder of an entry, found or made now; it counts as used.

    Args:
        build: writes the content, the kind's marker last.
        whole: whether a folder that is there holds what was once written; where not, it is made again.
    """
    folder = cache_dir() / kind / name
    _touch(folder)  # before it is looked through, so that it is no candidate for pruning meanwhile
    if folder.is_dir() and not whole(folder):
        _discard(folder)
    if _apart and not folder.is_dir():
        folder = _apart[-1] / kind / name
    if not folder.is_dir():
        if kind in _only_found:
            raise Missing(folder)
        with published_folder(folder) as draft:
            build(draft)
        _touch(folder)
    return folder


_only_found: set[Kind] = set()
_apart: list[Path] = []


@contextmanager
def only_finding(kind: Kind) -> Iterator[None]:
    """In the block, in all threads, entries of that kind are found and not made: `Missing` is raised instead."""
    _only_found.add(kind)
    try:
        yield
    finally:
        _only_found.discard(kind)


@contextmanager
def making_in(folder: Path) -> Iterator[None]:
    """In the block, in all threads, entries that are not there are made in that folder, and are not kept."""
    _apart.append(folder)
    try:
        yield
    finally:
        _apart.pop()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on the cache's disk for entries that are used once, gone after the block.

    Where the process is killed meanwhile, it goes as a draft that nobody writes any more does.
    """
    folder = cache_dir() / "exports" / f".once-{secrets.token_hex(8)}.{secrets.token_hex(4)}"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def entries() -> list[Entry]:
    """Everything that is kept, newest use first."""
    found = [
        Entry(kind, folder, size_of(folder), folder.stat().st_mtime)
        for kind, marker in MARKERS.items()
        for folder in _folders(kind, _ENTRY)
        if (folder / marker).is_file()
    ]
    return sorted(found, key=lambda each: (-each.used, each.path))


def prune(limit: int, *, before: float = float("inf"), abandoned: float = _ABANDONED) -> list[Entry]:
    """Remove least recently used entries until at most `limit` bytes are kept, and drafts that nobody writes any more.

    Args:
        before: only entries that were last used before this time, seconds since 1970.
        abandoned: the age of such a draft, in seconds.

    Returns:
        The entries that were removed.

    Raises:
        InUse: a session is running.
        UsageError: an entry cannot be removed.
    """
    with _alone():
        _remove_drafts(abandoned)
        kept = entries()
        total = sum(each.size for each in kept)
        removed = []
        while total > limit and kept and kept[-1].used < before:
            _discard(kept[-1].path)
            removed.append(kept.pop())
            total -= removed[-1].size
        return removed


def clear() -> list[Entry]:
    """Remove every entry and every draft, and nothing that assay did not make; what was removed is returned.

    Raises:
        InUse, UsageError: as `prune` does.
    """
    removed = prune(-1, abandoned=0)
    for kind in MARKERS:
        with suppress(OSError):  # it is not there, or holds something else
            (cache_dir() / kind).rmdir()
    return removed


def enforce(limit: int, started: float) -> Iterator[str]:
    """Prune what a session that began then did not use, and say so; beside another session leave it to that one."""
    try:
        removed = prune(limit, before=started)
    except InUse:
        return
    except UsageError as error:
        yield str(error)
        return
    if removed:
        names = listed(each.path.name for each in removed)
        yield (
            f"the cache held more than {amount(limit)}: removed {_counted(removed)}, longest unused: {names}; "
            "$ASSAY_CACHE_SIZE sets the cap"
        )


def listing(removed: Sequence[Entry] | None = None) -> str:
    """What is kept, a line each and one for the total; after a removal what was removed, and the total."""
    kept = entries()
    shown = kept if removed is None else removed
    width = max((len(each.path.name) for each in shown), default=0)
    lines = [
        f"{each.kind:<11}  {each.path.name:<{width}}  {amount(each.size):>8}  "
        f"{datetime.fromtimestamp(each.used).astimezone():%Y-%m-%d %H:%M}"
        for each in shown
    ]
    if removed is not None:
        lines.append(f"removed {_counted(removed)}")
    lines.append(f"{_counted(kept)} kept, at most {amount(cap())}, in {cache_dir()}")
    return "\n".join(lines)


def to_json(removed: Sequence[Entry] | None = None) -> dict[str, object]:
    """The same as plain data."""
    kept = entries()
    return {
        "folder": str(cache_dir()),
        "cap": cap(),
        "total": sum(each.size for each in kept),
        "kept": [each.to_json() for each in kept],
        "removed": [each.to_json() for each in removed or ()],
    }


def _counted(found: Sequence[Entry]) -> str:
    what = "entry" if len(found) == 1 else "entries"
    return f"{len(found)} {what} ({amount(sum(each.size for each in found))})"


@contextmanager
def held() -> Iterator[None]:
    """While the block runs, no other process prunes the cache."""
    with _locked(exclusive=False):
        yield


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(place) / name).lstat().st_size
    return total


def _folders(kind: Kind, name: re.Pattern[str]) -> list[Path]:
    parent = cache_dir() / kind
    if not parent.is_dir():
        return []
    return sorted(each for each in parent.iterdir() if name.fullmatch(each.name) and _is_own_folder(each))


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _touch(folder: Path) -> None:
    with suppress(FileNotFoundError):
        now = time.time_ns()  # the file system's own clock is a few milliseconds behind
        os.utime(folder, ns=(now, now))


def _discard(folder: Path) -> None:
    """Move a folder aside in one step, then delete it: nobody ever meets half of an entry."""
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return  # somebody else was faster
    except OSError as error:
        raise UsageError(f"{folder}: cannot be removed: {error.strerror}") from error
    shutil.rmtree(aside, ignore_errors=True)


def _remove_drafts(age: float) -> None:
    for kind in MARKERS:
        for draft in _folders(kind, _DRAFT):
            with suppress(FileNotFoundError):
                if time.time() - draft.stat().st_mtime >= age:
                    shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _alone() -> Iterator[None]:
    try:
        with _locked(exclusive=True):
            yield
    except BlockingIOError:
        raise InUse(f"{cache_dir()}: a session is using the cache; try again when it has ended") from None


@contextmanager
def _locked(*, exclusive: bool) -> Iterator[None]:
    """A lock on the cache's folder, which ends with the process; none where the system has no such lock.

    Raises:
        BlockingIOError: it is to be exclusive, and somebody has one.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        handle = os.open(cache_dir(), os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"{cache_dir()}: cannot be used as the cache: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
        except BlockingIOError:
            raise
        except OSError:  # a network file system may know no locks
            pass
        yield
    finally:
        os.close(handle)
