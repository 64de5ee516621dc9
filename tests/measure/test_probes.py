"""Calls that are made twice, and batches that grow."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from assay.measure import probes
from assay.measure.probes import growth, repeats


def fresh(number: int) -> probes.Tensors:
    """Inputs that tell their number."""
    return {"x": np.array([number])}


def larger(batch: int, number: int) -> probes.Tensors:
    """A batch."""
    return {"x": np.full(batch, number)}


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


def test_a_batch_grows_until_time_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 ms a call, and 0.1 ms a row, on a clock that nothing disturbs."""
    now = 0.0
    monkeypatch.setattr(probes, "time", SimpleNamespace(perf_counter=lambda: now))

    def call(inputs: probes.Tensors) -> probes.Tensors:
        nonlocal now
        now += 2e-3 + 1e-4 * len(inputs["x"])
        return {"y": inputs["x"]}

    found, outputs = growth(call, larger, typical=2.1e-3, enough=2, choose=lambda n: n - 1)
    assert found.batch == 64
    assert found.rows == [63, 62]
    np.testing.assert_array_equal(outputs["y"], larger(64, probes.LARGER)["x"])
    assert found.large == pytest.approx([8.4e-3] * probes.LARGER)


def test_a_batch_that_costs_nothing_grows_as_far_as_memory_allows() -> None:
    found, _ = growth(lambda inputs: {"y": inputs["x"]}, larger, typical=10.0, enough=2, choose=lambda n: 0)
    assert found.rows == [1, 2]
    assert 2 * 8 * found.batch * probes.SLOW_FACTOR > probes.LARGEST
    assert 2 * 8 * found.batch <= probes.LARGEST
    assert max(found.large) < 2 * found.small
