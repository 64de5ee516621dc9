"""assay's engines beside the best known other ways to run the same model: `nox -s bench`.

Writes `bench.json`: for every engine and peer the ratio of their median times, assay's over the peer's, over several
starts of both, with its 95 % interval. Below 1 assay is faster; an interval that holds 1 is a tie.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from assay import families
from assay.challenge import draw_seed
from assay.roles.process import role_environment
from tests.bench import plan
from tests.bench.interleaved import Contestant, ContestantEnded, Disagreement, timed, timed_alone
from tests.bench.peers import BENCHMARK_APP
from tests.bench.plan import Comparison
from tests.bench.setting import ASSAY, Setting
from tests.bench.summary import ALLOWED, Found, as_json, table

SIZES = ("tiny", "base")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, write, print; 1 if a comparison came to nothing."""
    options = _options(arguments)
    started = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {text}", file=sys.stderr, flush=True)

    wanted = list(
        plan.comparisons(options.family, options.backend, options.size, options.peer, full=options.full)
    )  # fmt: skip
    options.output.mkdir(parents=True, exist_ok=True)
    found, failed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        prepared = _prepared(wanted, Path(folder), progress)
        for number, comparison in enumerate(wanted, 1):
            try:
                ready = prepared[comparison.family, comparison.backend]
                found.append(_compared(comparison, ready, options.seconds, options.starts))
            except (ContestantEnded, Disagreement) as error:
                failed += 1
                progress(f"{number} of {len(wanted)}: {comparison.name} against {comparison.peer}: no figure: {error}")
                continue
            progress(f"{number} of {len(wanted)}: {_line(found[-1])}")
            # After each, so that nothing is lost with an interruption.
            (options.output / "bench.json").write_text(as_json(found), encoding="utf-8")
    print(table(found))
    for each in found:
        if each.slow:
            print(f"bench: more than {ALLOWED:.0%} slower: {_line(each)}", file=sys.stderr)
    return 1 if failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", type=_chosen(families.ORDER), default=families.ORDER, help="these rows only")
    parser.add_argument(
        "--backend", type=_chosen(plan.ONE_PASS), default=tuple(plan.ONE_PASS), help="these engines only"
    )
    parser.add_argument("--peer", type=_chosen(plan.PEERS), default=plan.PEERS, help="against these only")
    parser.add_argument("--size", choices=SIZES, default="base", help="of the local test models (default: base)")
    parser.add_argument("--full", action="store_true", help=f"with {', '.join(plan.LARGE)} at published size")
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, for each comparison (default: 20)")
    parser.add_argument("--starts", type=_several, default=6, help="of both processes, for each (default: 6)")
    parser.add_argument("--output", type=Path, default=Path("reports"), help="folder of bench.json")
    return parser.parse_args(arguments)


def _chosen(known: Sequence[str] | dict[str, Any]) -> Callable[[str], tuple[str, ...]]:
    def chosen(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(known)}")
        return names

    return chosen


def _prepared(
    wanted: Sequence[Comparison], folder: Path, progress: Callable[[str], None]
) -> dict[tuple[str, str], dict[str, Any]]:
    """By family and backend, what contestants are told; made before anything is timed, by a process that ends then."""
    os.environ |= role_environment()
    pairs = {(each.family, each.backend): each.size for each in wanted}
    found = {}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=plan.quiet) as pool:
        for (family, backend), size in pairs.items():
            found[family, backend] = pool.submit(plan.prepare, family, backend, size, folder).result()
            progress(f"prepared {family} for {backend}")
    return found


def _several(text: str) -> int:
    if (number := int(text)) < 2:
        raise argparse.ArgumentTypeError(f"{number} tells nothing of what starts differ by: 2 at the least")
    return number


def _compared(comparison: Comparison, prepared: dict[str, Any], seconds: float, starts: int) -> Found:
    seed = draw_seed()

    def contestant(name: str) -> Contestant:
        setting = Setting(
            contestant=name, family=comparison.family, backend=comparison.backend, workload=comparison.workload,
            seed=seed, **prepared,
        )  # fmt: skip
        return Contestant(setting)

    names = [ASSAY, comparison.peer]
    if comparison.peer == BENCHMARK_APP:
        return Found(comparison, [
            timed_alone(*(partial(contestant, name) for name in names), seconds / starts) for _ in range(starts)
        ])  # fmt: skip
    found = []
    for number in range(starts):
        # In turn the one and the other first: who starts first is slower, by 1 or 2 % of a model of published size.
        order = names[::-1] if number % 2 else names
        with ExitStack() as stack:
            opened = {name: stack.enter_context(contestant(name)) for name in order}
            found.append(timed(*(opened[name] for name in names), seconds / starts))
    return Found(comparison, found)


def _line(found: Found) -> str:
    what, ratio = found.comparison, found.ratio
    return f"{what.name} against {what.peer}: {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}), {ratio.verdict}"


if __name__ == "__main__":
    sys.exit(main())
