"""Calls that are made twice."""

from __future__ import annotations

import time

import numpy as np

from assay.measure import probes
from assay.measure.probes import repeats


def fresh(number: int) -> probes.Tensors:
    """Inputs that tell their number."""
    return {"x": np.array([number])}


def test_every_input_comes_twice_and_never_as_the_same_array() -> None:
    seen: list[np.ndarray] = []

    def call(inputs: probes.Tensors) -> probes.Tensors:
        seen.append(inputs["x"])
        return {"y": inputs["x"] * 2}

    found = repeats(call, fresh, typical=0.001)
    pairs = list(zip(seen[0::2], seen[1::2], strict=False))
    assert len(found.fresh) == len(found.repeated) == len(pairs) == probes.PAIRS
    assert all(first[0] == again[0] and first is not again for first, again in pairs)
    assert len({int(array[0]) for array in seen}) == probes.PAIRS + 1
    assert (found.outputs, found.changed, found.kinds) == (1, 0, [])


def test_slow_calls_are_made_less_often() -> None:
    found = repeats(lambda inputs: {"y": inputs["x"]}, fresh, typical=0.06)
    assert len(found.fresh) == probes.SLOW_PAIRS


def test_what_a_call_needs_is_outside_its_clock() -> None:
    found = repeats(lambda inputs: {"y": inputs["x"]}, fresh, typical=0.001, before=lambda: time.sleep(0.005))
    assert min(found.fresh) < 0.005


def test_computing_on_access_is_counted_as_reading() -> None:
    class Late:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            time.sleep(0.003)
            return np.zeros(1)

    late: probes.Tensors = {"y": Late()}  # type: ignore[dict-item]
    found = repeats(lambda inputs: late, fresh, typical=0.001)
    assert min(found.read) >= 0.003
    assert found.kinds == ["Late"] * probes.PAIRS


def test_an_output_that_changes_afterwards_is_seen() -> None:
    counter = np.zeros(1)

    class Counting:
        """Another number whenever it is looked at."""

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            counter[...] += 1
            return counter

    outputs: probes.Tensors = {"y": Counting(), "z": np.ones(2)}  # type: ignore[dict-item]
    found = repeats(lambda inputs: outputs, fresh, typical=0.001)
    assert (found.outputs, found.changed) == (2, 1)
