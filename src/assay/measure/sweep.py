"""Sweeps: the measured call at growing batches and lengths, each workload timed like the first.

The knee is Kleinrock's (Power and deterministic rules of thumb for probabilistic problems in computer communications,
ICC 1979): where throughput over response time, the power, is largest. Beyond it a batch buys throughput with more than
as much waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import numpy as np

from assay.decoding import Decoded
from assay.measure.clock import timed, uncollected
from assay.measure.probes import numbers
from assay.measure.statistics import FEWEST, steady
from assay.schema import Workload

Tensors = Mapping[str, np.ndarray]

GAIN = 1.05
"""A batch twice as large that has not this much more throughput is the last one: batches beyond it only wait longer."""
LOOK = 0.5
"""Seconds that outlast most disturbances: what was seen for less and slower than it should be is looked at again."""
LEAST, MOST = 3, 10
"""Timed calls of one workload, beside one that warms up: a runtime may compile for a new shape."""
SECONDS = 0.05
"""Of one workload, where they are enough for the fewest samples that tell an interval."""
BUDGET = 5.0
"""Seconds after which a sweep ends with the workload that it is at."""
WIDEST = 64
"""Sequences beyond which no batch of a decoder grows."""
LARGEST = 2**28
"""Bytes of inputs and outputs beyond which no batch grows."""


@dataclass(frozen=True)
class Point:
    """A workload and the seconds of its calls; of decoding, of its steps."""

    workload: Workload
    samples: list[float]


@dataclass(frozen=True)
class Growth:
    """The largest batch.

    Attributes:
        batch: its size.
        large: seconds until each call returned.
        small: seconds of a call of batch 1.
        number: that of the last call's inputs.
        rows: of the last call's outputs, those that were kept.
    """

    batch: int
    large: list[float]
    small: float
    number: int = 0
    rows: list[int] = field(default_factory=list)


def batches(
    call: Callable[[Tensors], Tensors], larger: Callable[[int, int], Tensors], workload: Workload, *,
    single: float, small: float, enough: float, choose: Callable[[int], int],
) -> tuple[list[Point], Growth, Tensors]:  # fmt: skip
    """Double the batch until throughput gains little; and until calls take `enough` times as long as one of batch 1.

    Args:
        call: one forward pass.
        larger: the inputs of a batch of that size, number n.
        workload: of batch 1.
        single: seconds of a call of batch 1 in the timed loop.
        small: the same at the time of the sweep.
        enough: the times. Memory alone ends a sweep before they are reached.
        choose: a random integer below n, unknown to the engine: it picks the rows to keep.

    Returns:
        What was found, and the outputs of the last call.
    """
    points: list[Point] = []
    batch, best, started = 1, 1 / single, time.perf_counter()
    with uncollected():
        while True:
            batch *= 2
            samples, outputs, size = _sampled(call, partial(larger, batch))
            number = len(samples)
            if _doubtful(batch, samples, best):
                again, outputs, size = _sampled(call, partial(larger, batch), number + 1)
                number += 1 + len(again)
                samples = _undisturbed(samples, again)
            points.append(Point(workload.model_copy(update={"batch": batch}), samples))
            rate = batch / median(samples)
            done = rate < GAIN * best or time.perf_counter() - started > BUDGET
            best = max(best, rate)
            if batch > 2 and ((done and min(samples) >= enough * small) or 2 * size > LARGEST):
                # Not the first, which whoever computes a single row would compute; and two, since an answer that
                # is the same for both follows nothing.
                first = choose(batch - 1)
                second = (first + 1 + choose(batch - 2)) % (batch - 1)
                return points, Growth(batch, samples, small, number, [1 + first, 1 + second]), outputs


def lengths(
    call: Callable[[Tensors], Tensors], inputs: Iterable[tuple[Workload, Callable[[int], Tensors]]]
) -> list[Point]:
    """Time each workload, in order, as long as there is time.

    Args:
        call: one forward pass.
        inputs: workloads, each with its inputs number n.
    """
    points: list[Point] = []
    started = time.perf_counter()
    with uncollected():
        for workload, fresh in inputs:
            if time.perf_counter() - started > BUDGET:
                break
            points.append(Point(workload, _sampled(call, fresh)[0]))
    return points


def decoded_batches(sequence: Callable[[Workload, int], Decoded], workload: Workload, *, single: float) -> list[Point]:
    """Double the batch of a decoder until its steps gain little throughput.

    Args:
        sequence: decodes a fresh prompt of this workload, number n.
        workload: of batch 1.
        single: seconds of a step of batch 1.
    """
    points: list[Point] = []
    batch, best, started = 1, 1 / single, time.perf_counter()
    with uncollected():
        while time.perf_counter() - started < BUDGET and batch < WIDEST:
            batch *= 2
            larger = workload.model_copy(update={"batch": batch})
            sequence(larger, 0)  # each length of the cache may be a shape that the runtime has not met at this batch
            steps = sequence(larger, 1).steps
            if _doubtful(batch, steps, best):
                steps = _undisturbed(steps, sequence(larger, 2).steps)
            points.append(Point(larger, steps))
            rate = batch / median(steps)
            if rate < GAIN * best:
                break
            best = rate
    return points


def knee(points: Sequence[tuple[int, float]]) -> int:
    """The batch of the most power, of pairs of a batch and its seconds."""
    return max(points, key=lambda point: point[0] / point[1] ** 2)[0]


def _doubtful(batch: int, samples: list[float], best: float) -> bool:
    """Whether a batch may have met a disturbance: it has less throughput than a smaller one, and was seen shortly."""
    return batch / median(samples) < best and sum(samples) < LOOK


def _undisturbed(samples: list[float], again: list[float]) -> list[float]:
    """The faster of two looks: what else a machine does makes a batch slower, which would end the sweep too early."""
    return min(samples, again, key=median)


def _sampled(
    call: Callable[[Tensors], Tensors], fresh: Callable[[int], Tensors], number: int = 0
) -> tuple[list[float], Tensors, int]:
    """Seconds of calls after one with inputs `number`, which warms up; the last one's outputs, and all of its bytes."""
    call(fresh(number))
    samples: list[float] = []
    deadline = time.perf_counter() + SECONDS
    while True:
        inputs = fresh(number + len(samples) + 1)
        outputs, seconds = timed(call, inputs)
        samples.append(seconds)
        late, count = time.perf_counter() > deadline, len(samples)
        if count >= LEAST and (late or count >= MOST or (count >= FEWEST and steady(samples))):
            size = sum(array.nbytes for array in (*inputs.values(), *numbers(outputs).values()))
            return samples, outputs, size
