"""How often a fresh process computes its first call of a vector function wrongly: `python -m tests.first_calls`.

With torch's threads alone, and with what `use_threads` does beside (pytorch/pytorch#188792). Processes are forked, four
at a time, and a call is wrong that differs from the same call made again.

    python -m tests.first_calls [SECONDS [FUNCTION]]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from assay.machine import threads
from assay.roles.process import role_environment
from assay.torch_threads import use_threads

AT_ONCE = 4
"""Processes side by side, so that threads are interrupted between two instructions."""
NUMBERS = 10_000
"""Enough for two threads to share."""


def apart(prepare: Callable[[], None], function: str) -> float:
    """How far the first call is from the second."""
    import torch

    prepare()
    numbers = torch.linspace(-4, 4, NUMBERS)
    _ = numbers * numbers + numbers  # the threads are there
    first, second = (getattr(torch, function)(numbers) for _ in range(2))
    return float((first - second).abs().max())


def forked(prepare: Callable[[], None], function: str) -> int:
    """A process that exits with 1 if its first call was wrong."""
    pid = os.fork()
    if not pid:
        os._exit(apart(prepare, function) > 0)
    return pid


def count(prepare: Callable[[], None], function: str, seconds: float) -> tuple[int, int]:
    """How many processes there were, and how many of them were wrong."""
    running: set[int] = set()
    started = wrong = 0
    deadline = time.monotonic() + seconds
    while running or time.monotonic() < deadline:
        while len(running) < AT_ONCE and time.monotonic() < deadline:
            running.add(forked(prepare, function))
            started += 1
        pid, status = os.wait()
        running.remove(pid)
        wrong += os.waitstatus_to_exitcode(status)
    return started, wrong


def main(arguments: list[str]) -> None:
    """Print both counts."""
    import torch

    seconds, function = float((arguments or ["30"])[0]), (arguments[1:] or ["tanh"])[0]
    ways: dict[str, Callable[[], None]] = {
        "torch's threads": lambda: torch.set_num_threads(threads()),
        "use_threads": lambda: use_threads(threads()),
    }
    for name, prepare in ways.items():
        started, wrong = count(prepare, function, seconds)
        print(f"{name}: {wrong} of {started:,} processes computed their first {function} wrongly", flush=True)


if __name__ == "__main__":
    os.environ |= role_environment()  # torch reads it when it is loaded
    main(sys.argv[1:])
