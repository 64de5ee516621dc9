"""The timed loop: every call gets an input that was never seen before, made outside the clock."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np

from assay.decoding import Decoded
from assay.measure.processes import Usage
from assay.measure.statistics import steady

Tensors = Mapping[str, np.ndarray]

SEQUENCES = 6
"""The least number of timed sequences: fewer give no interval of their median."""
WINDOW, SPAN = 5, 0.025
"""Calls whose medians are compared while an engine warms up: so many, and for as many seconds."""
FALLING = 0.02
"""The engine is warm when the median of a window is at most this much below that of the one before: steady state, told
by windows as Georges, Buytaert and Eeckhout do (OOPSLA 2007), but by medians: a time slice of the scheduler spoils
the coefficient of variation that they take."""
WARM_UP_SECONDS, LONGEST_WARM_UP = 0.1, 1.0
"""The least and the most time of warming up, whatever the windows say; two of them there always are."""
CHECK_EVERY = 10
KEPT, FEWEST = 8, 2
"""Outputs of the timed loop that are kept. Of a loop that computes half of its calls, all eight are such in one cell of
256 at the most. The fewest are kept where eight would take more than `ROOM`."""
ROOM = 2**24
"""Bytes of kept outputs: they count as the process's memory."""


@dataclass(frozen=True)
class Timed:
    """The timed loop's samples in seconds, by call number the outputs that were kept, and what the calls took."""

    samples: list[float]
    kept: dict[int, dict[str, np.ndarray]]
    usage: Usage


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector out of what is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def timed(call: Callable[[Tensors], Tensors], inputs: Tensors) -> tuple[dict[str, np.ndarray], float]:
    """The outputs of a call as arrays on the host, and the seconds until they were."""
    started = time.perf_counter()
    outputs = {name: np.asarray(array) for name, array in call(inputs).items()}
    return outputs, time.perf_counter() - started


def overhead(inputs: Tensors, outputs: Tensors) -> float:
    """Seconds of a timed call that are the clock's own: those of one that has its outputs already."""
    return median(timed(lambda _: outputs, inputs)[1] for _ in range(CHECK_EVERY))


def time_calls(
    call: Callable[[Tensors], Tensors],
    fresh: Callable[[int], Tensors],
    *,
    budget: float,
    least: int,
    choose: Callable[[int], int],
) -> Timed:
    """Warm up, then sample until the median is known to its target or the budget ends.

    Args:
        call: one forward pass; the clock stops when its outputs are arrays on the host.
        fresh: the inputs of call number n.
        budget: seconds of measuring.
        least: samples to take even past the budget.
        choose: a random integer below n, unknown to the engine: it picks the outputs to keep.
    """
    number = _warm_up(call, fresh)
    samples: list[float] = []
    kept: dict[int, dict[str, np.ndarray]] = {}
    usage = Usage()
    deadline = time.perf_counter() + budget
    with uncollected(), usage.watched():
        while len(samples) < least or time.perf_counter() < deadline:
            inputs = fresh(number)
            with usage.computing():
                outputs, seconds = timed(call, inputs)
            samples.append(seconds)
            _keep(kept, number, outputs, len(samples), choose)
            number += 1
            if len(samples) >= least and len(samples) % CHECK_EVERY == 0 and steady(samples):
                break
    usage.claimed = sum(samples)
    return Timed(samples, kept, usage)


def _warm_up(call: Callable[[Tensors], Tensors], fresh: Callable[[int], Tensors]) -> int:
    """Call until the engine is warm, or for as long as it may take; how many calls that were."""
    times: list[float] = []
    started = time.perf_counter()
    while True:
        inputs = fresh(len(times))
        called = time.perf_counter()
        call(inputs)
        now = time.perf_counter()
        times.append(now - called)
        passed = now - started
        if passed >= WARM_UP_SECONDS and (warm(times) or (passed >= LONGEST_WARM_UP and len(times) >= 2 * WINDOW)):
            return len(times)


def warm(times: Sequence[float]) -> bool:
    """Whether the last calls were no faster than those before them."""
    if len(times) < 2 * WINDOW:
        return False
    window = max(WINDOW, round(SPAN / median(times[-WINDOW:])))
    if len(times) < 2 * window:
        return False
    before, last = median(times[-2 * window : -window]), median(times[-window:])
    return last >= (1 - FALLING) * before


@dataclass(frozen=True)
class TimedDecoding:
    """Seconds of every prefill and of every step; one sequence, by number, that was kept; what all of them took."""

    first: list[float]
    steps: list[float]
    number: int
    kept: Decoded
    usage: Usage


def time_decoding(sequence: Callable[[int], Decoded], *, budget: float, choose: Callable[[int], int]) -> TimedDecoding:
    """Decode sequences until both medians are known to their target or the budget ends.

    Args:
        sequence: decodes a prompt that was never seen before.
        budget: seconds of measuring, once the least number of sequences is there.
        choose: a random integer below n, unknown to the engine: it picks the sequence to keep.
    """
    kept = (0, sequence(0))  # warms up; counted in no figure, and soon replaced
    first: list[float] = []
    steps: list[float] = []
    usage = Usage()
    deadline = time.perf_counter() + budget
    with uncollected(), usage.watched():
        while len(first) < SEQUENCES or time.perf_counter() < deadline:
            number = len(first) + 1
            with usage.computing():
                done = sequence(number)
            first.append(done.first)
            steps.extend(done.steps)
            if choose(number) == 0:
                kept = (number, done)
            if number >= SEQUENCES and steady(first) and steady(steps):
                break
    usage.claimed = sum(first) + sum(steps)
    return TimedDecoding(first, steps, *kept, usage)


def _keep(
    kept: dict[int, dict[str, np.ndarray]], number: int, outputs: Tensors, seen: int, choose: Callable[[int], int]
) -> None:
    """Reservoir sampling (Vitter, algorithm R): every call is as likely to be kept as any other."""
    room = KEPT if KEPT * sum(array.nbytes for array in outputs.values()) <= ROOM else FEWEST
    if len(kept) >= room:
        place = choose(seen)
        if place >= room:
            return
        del kept[sorted(kept)[place]]
    kept[number] = {name: array.copy() for name, array in outputs.items()}
