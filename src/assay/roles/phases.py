"""Phases of a role: written by the child as they begin and end, read by the parent while it waits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from assay.schema import Phase


@dataclass
class PhaseLog:
    """The child's side: appends a line when a phase begins and one when it ends.

    A line is flushed before the phase goes on, so that the file tells where a killed process was.
    """

    path: Path

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time one phase."""
        self._write({"begin": name})
        started = time.perf_counter()
        yield
        self._write({"end": name, "seconds": time.perf_counter() - started})

    def _write(self, record: dict[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")


@dataclass(frozen=True)
class Progressed:
    """The parent's side: the phases that ended, and the one that has begun."""

    ended: tuple[Phase, ...]
    current: str | None


def read(path: Path, role: str) -> Progressed:
    """What a phase file says so far; an unfinished last line is left for the next look."""
    ended: list[Phase] = []
    current = None
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        record = json.loads(line)
        if "begin" in record:
            current = record["begin"]
        else:
            ended.append(Phase(role=role, name=record["end"], seconds=record["seconds"]))
            current = None
    return Progressed(tuple(ended), current)
