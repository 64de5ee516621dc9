"""Batches and lengths that grow, on a clock that nothing disturbs."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from assay.decoding import Decoded
from assay.measure import clock, sweep
from assay.measure.sweep import Tensors, batches, decoded_batches, knee, lengths
from assay.schema import Workload

SINGLE = Workload(name="batch-1", batch=1, length=16)


class Engine:
    """A call takes so many seconds, and so many for each row; the first four of a disturbed batch 50 times as many."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, fixed: float, each: float, limit: int = 10**9, disturbed: int = 0
    ) -> None:
        self.now, self.calls = 0.0, 0
        self._fixed, self._each, self._limit = fixed, each, limit
        self._disturbed, self._disturbances = disturbed, 4
        told = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(clock, "time", told)
        monkeypatch.setattr(sweep, "time", told)

    def seconds(self, rows: int) -> float:
        """Of a call; beyond the limit nothing is gained by a larger batch."""
        return (self._fixed + self._each * min(rows, self._limit)) * max(1.0, rows / self._limit)

    def run(self, inputs: Tensors) -> Tensors:
        self.calls += 1
        rows = len(inputs["x"])
        disturbed = rows == self._disturbed and self._disturbances > 0
        self._disturbances -= disturbed
        self.now += self.seconds(rows) * (50 if disturbed else 1)
        return {"y": inputs["x"]}


def larger(batch: int, number: int) -> Tensors:
    return {"x": np.full(batch, number)}


def grown(
    engine: Engine, choose: Callable[[int], int] = lambda n: n - 1
) -> tuple[list[sweep.Point], sweep.Growth, Tensors]:
    single = engine.seconds(1)
    return batches(engine.run, larger, SINGLE, single=single, small=single, enough=2, choose=choose)


def test_a_batch_doubles_until_throughput_gains_little(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, fixed=1e-3, each=5e-5, limit=32)
    points, growth, outputs = grown(engine)
    assert [point.workload.batch for point in points] == [2, 4, 8, 16, 32, 64]
    assert growth.batch == 64
    assert growth.rows == [63, 62]
    for point in points:
        assert point.samples == pytest.approx([engine.seconds(point.workload.batch)] * len(point.samples))
        assert len(point.samples) == 6  # equal samples are steady as soon as they have an interval
    np.testing.assert_array_equal(outputs["y"], larger(64, growth.number)["x"])


@pytest.mark.parametrize("disturbed", [2, 8, 32])
def test_a_batch_that_the_machine_disturbed_is_looked_at_again(monkeypatch: pytest.MonkeyPatch, disturbed: int) -> None:
    engine = Engine(monkeypatch, fixed=1e-3, each=5e-5, limit=32, disturbed=disturbed)
    points, growth, outputs = grown(engine)
    assert [point.workload.batch for point in points] == [2, 4, 8, 16, 32, 64]
    for point in points:
        assert point.samples == pytest.approx([engine.seconds(point.workload.batch)] * len(point.samples))
    np.testing.assert_array_equal(outputs["y"], larger(64, growth.number)["x"])


def test_a_batch_that_gains_nothing_grows_until_time_does(monkeypatch: pytest.MonkeyPatch) -> None:
    points, growth, _ = grown(Engine(monkeypatch, fixed=0.0, each=1e-3))
    assert [point.workload.batch for point in points] == [2, 4]
    assert min(growth.large) >= 2 * growth.small
    assert len(set(growth.rows)) == 2 and 0 not in growth.rows


def test_slow_calls_are_made_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _, _ = grown(Engine(monkeypatch, fixed=0.0, each=1.0))
    assert [len(point.samples) for point in points] == [sweep.LEAST] * 2


def test_a_batch_that_costs_nothing_grows_as_far_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an engine does that remembers: its time never doubles."""
    points, growth, _ = grown(Engine(monkeypatch, fixed=1e-3, each=0.0), choose=lambda n: 0)
    assert growth.rows == [1, 2]
    assert sweep.LARGEST / 2 < 2 * 8 * growth.batch <= sweep.LARGEST
    assert max(growth.large) < 2 * growth.small
    assert points[-1].workload.batch == growth.batch


def test_lengths_are_timed_as_long_as_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, fixed=0.0, each=0.05)
    longer = [SINGLE.model_copy(update={"length": length}) for length in (32, 64, 128)]
    inputs = [(each, lambda number, rows=each.length: larger(rows, number)) for each in longer]
    found = lengths(engine.run, inputs)
    assert [point.workload.length for point in found] == [32]  # four calls of 1.6 s are more than the budget
    assert found[0].samples == pytest.approx([1.6] * sweep.LEAST)


def test_decoding_doubles_its_batch_until_steps_gain_little(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, fixed=5e-3, each=1e-3, limit=8)
    asked: list[tuple[int, int]] = []

    def sequence(workload: Workload, number: int) -> Decoded:
        asked.append((workload.batch, workload.new_tokens))
        steps = [engine.seconds(workload.batch)] * workload.new_tokens
        nothing = np.zeros((workload.batch, 1))
        return Decoded(nothing, nothing, 0.0, steps, 0.0)

    points = decoded_batches(sequence, SINGLE.model_copy(update={"new_tokens": 32}), single=engine.seconds(1))
    assert [point.workload.batch for point in points] == [2, 4, 8, 16]
    assert asked == [(batch, 32) for batch in (2, 2, 4, 4, 8, 8, 16, 16)]  # of two sequences one warms up
    assert all(len(point.samples) == 32 for point in points)


def test_decoding_that_the_machine_disturbed_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, fixed=1e-4, each=2e-5)

    def sequence(workload: Workload, number: int) -> Decoded:
        times = 50 if (workload.batch, number) == (4, 1) else 1
        nothing = np.zeros((workload.batch, 1))
        return Decoded(nothing, nothing, 0.0, [times * engine.seconds(workload.batch)] * workload.new_tokens, 0.0)

    points = decoded_batches(sequence, SINGLE.model_copy(update={"new_tokens": 32}), single=engine.seconds(1))
    assert [point.workload.batch for point in points][-1] == sweep.WIDEST
    assert points[1].samples == [engine.seconds(4)] * 32


@pytest.mark.parametrize(("fixed", "each", "expected"), [(8.0, 1.0, 8), (0.1, 1.0, 1), (64.0, 1.0, 64), (3.0, 1.0, 4)])
def test_the_knee_is_where_a_batch_costs_as_much_as_its_call(fixed: float, each: float, expected: int) -> None:
    """Power b / (f + e b)^2 is largest at b = f / e; of doubling batches, at the one that is nearest by its factor."""
    points = [(batch, fixed + each * batch) for batch in (1, 2, 4, 8, 16, 32, 64, 128)]
    assert knee(points) == expected
