"""Puts the judge on trial: `nox -s trial`, or `nox -s trial -- --full`.

Mutants, honest controls and impostors; writes `trial.json` and `TRIAL.md`, prints the tables, and exits 1 if a mutant
of more than ten noise floors survived, an honest run was taken for faulty, or an impostor got another status than it
deserves.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from assay import families
from assay.schema import FLOATS, Precision
from tests.trial import impostors
from tests.trial.honest import PUBLISHED, Judged, judge_all
from tests.trial.lab import one_thread
from tests.trial.summary import Trial
from tests.trial.tried import Tried, try_all

PARTS = ("mutants", "honest", "impostors")
MUTANT_SEED = "5eed" * 8
"""The challenge of the mutants: a kill rate should be the same tomorrow."""


def main() -> int:
    """Try, write, print."""
    options = _options()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1"}
    started = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {text}", file=sys.stderr, flush=True)

    tried, judged = _numbers(options, progress)
    outcomes = impostors.run(progress) if "impostors" in options.parts else []
    trial = Trial(options.full, time.monotonic() - started, tried, judged, outcomes)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "trial.json").write_text(trial.to_json(), encoding="utf-8")
    (options.output / "TRIAL.md").write_text(trial.tables(), encoding="utf-8")
    print(trial.tables())
    for fault in (faults := trial.faults()):
        print(f"trial: {fault}", file=sys.stderr)
    return int(bool(faults))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s trial --", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="all precisions and repeats, 22,240 honest judgements")
    parser.add_argument("--family", type=_listed, default=families.ORDER, help="these rows only")
    parser.add_argument("--parts", type=_listed, default=PARTS, help=f"of {', '.join(PARTS)}")
    parser.add_argument("--output", type=Path, default=Path("reports"), help="folder of trial.json and TRIAL.md")
    return parser.parse_args()


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(options: argparse.Namespace, progress: Callable[[str], None]) -> tuple[list[Tried], list[Judged]]:
    """Mutants and honest controls, a process a core; torch computes with one thread in each."""
    tried: list[Tried] = []
    judged: list[Judged] = []
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=one_thread) as pool:
        tasks: dict[Future[Any], tuple[str, list[Any]]] = {}
        for text, store, function, arguments in _tasks(options):
            tasks[pool.submit(function, *arguments)] = text, tried if store == "mutants" else judged
        for number, done in enumerate(as_completed(tasks), 1):
            text, found = tasks[done]
            found.extend(done.result())
            progress(f"{number} of {len(tasks)}: {text}")
    return tried, judged


def _tasks(options: argparse.Namespace) -> Iterator[tuple[str, str, Callable[..., Any], tuple[Any, ...]]]:
    full = options.full
    for number, family in enumerate(options.family):
        lower = (Precision.BF16, Precision.F16)
        precisions = tuple(Precision) if full else (Precision.F32, lower[number % 2])
        for precision in precisions:
            # Weights in int8 are rounded by the quantisers of two runtimes: mutants run in torch, which has none.
            if "mutants" in options.parts and precision in FLOATS:
                yield (
                    f"mutants of {family} at {precision}",
                    "mutants",
                    try_all,
                    (family, precision, 3 if full else 1, MUTANT_SEED),
                )
            if "honest" in options.parts:
                for weights in range(2 if full else 1):
                    yield (
                        f"honest runs of {family} at {precision}, weights {weights}", "honest", judge_all,
                        (family, precision, weights, 32 if full else 4, weights == 0),
                    )  # fmt: skip
    if full and "honest" in options.parts:
        for family, size in PUBLISHED:
            for precision in FLOATS if family in options.family else ():
                yield (
                    f"honest runs of {family} at {precision}, {size}", "honest", judge_all,
                    (family, precision, 0, 4, True, size),
                )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
