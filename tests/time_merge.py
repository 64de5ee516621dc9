"""How long `assay merge` takes of thousands of cells, step by step, and whether that grows in proportion.

    python -m tests.time_merge [CELLS ...]

Of three kinds of cell: `absent` is UNAVAILABLE and says little; `judged` has all evidence and few figures; `measured`
is as a run leaves it, with phases and samples. Four cells that were judged share a checkpoint, one of each backend, so
that all are shown; of those that are absent ten are, and the others are superseded, as in a history of sessions.
"""

from __future__ import annotations

import io
import itertools
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from assay import backends, cli, export, families, report_files
from assay import merge as merging
from assay.report import markdown, page, terminal
from assay.schema import Cell
from tests import strategies as make
from tests.report.many_cells import BACKENDS, rich

T = TypeVar("T")
A_SESSION = 40
"""Cells of one report."""


def absent() -> Iterator[Cell]:
    """Of all families in turn, as a session writes them that found no device."""
    while True:
        yield from (make.unavailable(family) for family in families.names())


def judged() -> Iterator[Cell]:
    """A model after the other, each on all backends."""
    for number in itertools.count():
        checkpoint = make.checkpoint(f"model-{number}", "path")
        yield from (make.cell("bert", backend, size="own", checkpoint=checkpoint) for backend in BACKENDS)


def measured() -> Iterator[Cell]:
    """The same, with everything that a run records."""
    rng, names = random.Random(0), families.names()
    for number in itertools.count():
        yield from (rich(rng, names[number % len(names)], backend, f"model-{number}") for backend in BACKENDS)


KINDS: dict[str, Callable[[], Iterator[Cell]]] = {"absent": absent, "judged": judged, "measured": measured}


def write(kind: str, count: int, folder: Path) -> float:
    """Session reports with so many cells.

    Returns:
        Bytes of a cell.
    """
    cells, size = KINDS[kind](), 0
    for start in range(0, count, A_SESSION):
        held = [next(cells) for _ in range(min(A_SESSION, count - start))]
        text = make.report(*held, session=f"s{start}", start=start).model_dump_json(indent=1)
        (folder / f"{start:07}.json").write_text(text, encoding="utf-8")
        size += len(text.encode())
    return size / count


def steps(source: Path, target: Path) -> dict[str, float]:
    """What the command does, in its order, and the processor seconds of each."""
    found = {}

    def timed(name: str, step: Callable[[], T]) -> T:
        started = time.process_time()
        made = step()
        found[name] = time.process_time() - started
        return made

    reports, _ = timed("read", lambda: report_files.read([source]))
    matrix = timed("merge", lambda: merging.merge(reports, families.names(), backends.columns()))
    timed("matrix.json", lambda: matrix.model_dump_json(indent=1))
    timed("STATUS.md", lambda: markdown.render(matrix))
    timed("index.html", lambda: page.render(matrix))
    timed("junit.xml", lambda: export.write("junit", matrix, target))
    timed("print", lambda: terminal.print_matrix(matrix, io.StringIO(), most=terminal.MOST))
    return found


def _report(kind: str, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "sessions")
        source.mkdir()
        size = write(kind, count, source)
        with cli.nothing_collected():
            found = steps(source, Path(folder))
        each = " ".join(f"{name} {seconds:.2f}" for name, seconds in found.items())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        total = sum(found.values())
        print(f"{kind:<8} {count:>7,} cells of {size / 1e3:.1f} kB: {total:6.2f} s, {total / count * 1e6:5.0f} µs a "
              f"cell, {peak:.2f} GiB; {each}", flush=True)  # fmt: skip


def main(counts: list[int]) -> None:
    for kind in KINDS:
        for count in counts:
            process = get_context("spawn").Process(target=_report, args=(kind, count))  # memory and heap of its own
            process.start()
            process.join()


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]] or [1_000, 10_000])
