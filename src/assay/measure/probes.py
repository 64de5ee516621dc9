"""Calls after the timed loop that tell whether its clock can be believed.

An input right after itself, outputs read to their last byte, and looked at again a little later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from assay.measure.clock import uncollected

Tensors = Mapping[str, np.ndarray]

SLOW = 0.05
"""Seconds of a call from which on fewer are made: noise of a scheduler's time slice matters little to it."""
PAIRS, SLOW_PAIRS = 6, 4
"""Pairs of a new input and the same again."""
SETTLES = 0.02
"""Seconds after which outputs are looked at again, at the least."""


@dataclass
class Repeats:
    """Pairs of calls, the second with the input of the first.

    Attributes:
        fresh, repeated: seconds of each call, its outputs read to the last byte.
        read: the seconds of a repeated call that passed after it had returned.
        outputs: how many outputs were looked at again after a while.
        changed: how many of those had changed by then.
        kinds: types of outputs that are no plain arrays.
    """

    fresh: list[float] = field(default_factory=list)
    repeated: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    outputs: int = 0
    changed: int = 0
    kinds: list[str] = field(default_factory=list)


def repeats(
    call: Callable[[Tensors], Tensors],
    fresh: Callable[[int], Tensors],
    *,
    typical: float,
    before: Callable[[], object] = lambda: None,
) -> Repeats:
    """Call with an input never seen before, and then with the same again, several times.

    Args:
        call: one forward pass.
        fresh: the inputs of pair number n.
        typical: seconds that a call takes.
        before: what each call needs, outside the clock.
    """
    found = Repeats()
    count = PAIRS if typical < SLOW else SLOW_PAIRS
    with uncollected():
        for number in range(count):
            # Made anew for the second call: what runs before both is the same, and no array is that of the other.
            _, called, read = _timed(call, fresh(number), before)
            found.fresh.append(called + read)
            outputs, called, read = _timed(call, fresh(number), before)
            found.repeated.append(called + read)
            found.read.append(read)
            found.kinds.extend(type(each).__name__ for each in outputs.values() if type(each) is not np.ndarray)
        before()
        _look_again(found, call(fresh(count)), max(SETTLES, typical))
    return found


def _timed(
    call: Callable[[Tensors], Tensors], inputs: Tensors, before: Callable[[], object] = lambda: None
) -> tuple[Tensors, float, float]:
    """Outputs, seconds until the call returned, and seconds until every byte of them had been read."""
    before()
    started = time.perf_counter()
    outputs = call(inputs)
    returned = time.perf_counter()
    with np.errstate(all="ignore"):
        for array in numbers(outputs).values():
            np.add.reduce(array, axis=None)
    return outputs, returned - started, time.perf_counter() - returned


def _look_again(found: Repeats, outputs: Tensors, seconds: float) -> None:
    before = [array.tobytes() for array in numbers(outputs).values()]
    time.sleep(seconds)
    after = [array.tobytes() for array in numbers(outputs).values()]
    found.outputs += len(after)
    found.changed += sum(old != new for old, new in zip(before, after, strict=True))


def numbers(outputs: Tensors) -> dict[str, np.ndarray]:
    """The outputs that are numbers; whatever else an engine answers is missing for the judge."""
    arrays: dict[str, np.ndarray] = {name: np.asarray(each) for name, each in outputs.items()}
    return {name: array for name, array in arrays.items() if array.dtype.kind in "fiub"}
