"""What a process that was started first loses to one that is started beside it: `python -m tests.bench.started_first`.

The same bare loop over OpenVINO twice, a process each, `[FAMILY [TIMES]]`: the first is timed alone, the second is
started, and both are timed in turn, neither while the other computes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import geometric_mean, median

from assay import families
from assay.challenge import draw_seed
from assay.report.units import duration
from tests.bench import plan
from tests.bench.interleaved import Contestant, calls_in
from tests.bench.setting import Setting

LONG = 1.0
"""Seconds of each block."""


def started(setting: Setting) -> dict[str, float]:
    """Medians of one start of both, in seconds."""
    with Contestant(setting) as first:
        calls = calls_in(first, LONG)
        alone = median(first.block(calls))
        with Contestant(setting) as second:
            calls_in(second, LONG)
            found = [(median(second.block(calls)), median(first.block(calls))) for _ in range(2)]
    seconds, firsts = zip(*found, strict=True)
    return {"first alone": alone, "second": median(seconds), "first, beside it": median(firsts)}


def main(arguments: list[str]) -> None:
    """Print each start, and how much longer the first takes."""
    family, times = arguments[0] if arguments else "bert", int(arguments[1]) if len(arguments) > 1 else 6
    with tempfile.TemporaryDirectory() as folder:
        prepared = plan.prepare(family, "openvino", "base", Path(folder))
        setting = Setting(
            contestant="openvino loop", family=family, backend="openvino", seed=draw_seed(),
            workload=families.load(family).measured, **prepared,
        )  # fmt: skip
        starts = []
        for _ in range(times):
            starts.append(started(setting))
            print(", ".join(f"{name} {duration(each)}" for name, each in starts[-1].items()), flush=True)
    for name in ("first alone", "first, beside it"):
        print(f"{name}: {geometric_mean(each[name] / each['second'] for each in starts):.3f} times the second")


if __name__ == "__main__":
    main(sys.argv[1:])
