"""The timed loop."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np
import pytest

from assay.measure import clock
from assay.measure.clock import FEWEST, KEPT, ROOM, Tensors, time_calls, warm


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """These engines are warm, and the tests' own heap is large to collect."""
    monkeypatch.setattr(clock, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(clock.gc, "collect", lambda: 0)


class Recorder:
    """An engine that writes down what it is given."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seen: list[int] = []
        self._seconds = seconds

    def __call__(self, inputs: Tensors) -> Tensors:
        self.seen.append(int(inputs["x"][0]))
        time.sleep(self._seconds)
        return {"y": inputs["x"] * 2}


def fresh(number: int) -> Tensors:
    """Inputs that tell their number."""
    return {"x": np.array([number])}


def test_every_call_gets_an_input_never_seen_before() -> None:
    engine = Recorder()
    time_calls(engine, fresh, budget=0.05, least=30, choose=lambda n: 0)
    assert len(engine.seen) == len(set(engine.seen))


@pytest.mark.parametrize(("cold", "calls"), [(0, 10), (2, 10), (3, 11), (7, 15)])
def test_it_is_warm_when_times_fall_no_longer(cold: int, calls: int) -> None:
    """When no more than two of the earlier window's five calls are cold, its median is that of warm ones."""
    times = [2.0] * cold + [1.0] * 40
    assert next(count for count in range(1, 40) if warm(times[:count])) == max(calls, 10)


def test_short_calls_are_warm_by_windows_of_many() -> None:
    """Calls of a millisecond, and at first of a half more, which falls to a third every 15 of them."""
    times = [1e-3 * (1 + 0.5 * np.exp(-number / 15)) for number in range(500)]
    warm_at = next(count for count in range(1, 500) if warm(times[:count]))
    assert times[warm_at] < 1.02e-3


def test_one_slow_call_keeps_nobody_from_being_warm() -> None:
    assert warm([1.0] * 9 + [7.0])
    assert warm([1.0, 7.0] + [1.0] * 8)
    assert not warm([1.1] * 5 + [1.0] * 5)


def test_an_engine_that_never_gets_warm_is_measured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "warm", lambda times: False)
    monkeypatch.setattr(clock, "LONGEST_WARM_UP", 0.01)
    assert len(time_calls(Recorder(), fresh, budget=0.0, least=6, choose=lambda n: 0).samples) >= 6


def test_making_inputs_is_outside_the_clock() -> None:
    def slow(number: int) -> Tensors:
        time.sleep(0.01)
        return fresh(number)

    timed = time_calls(Recorder(), slow, budget=0.0, least=10, choose=lambda n: 0)
    assert max(timed.samples) < 0.01


def test_the_clock_covers_the_call() -> None:
    timed = time_calls(Recorder(seconds=0.005), fresh, budget=0.0, least=10, choose=lambda n: 0)
    assert min(timed.samples) >= 0.005


def test_outputs_that_were_kept_are_those_of_their_call() -> None:
    timed = time_calls(Recorder(), fresh, budget=0.02, least=30, choose=lambda n: n // 2)
    assert len(timed.kept) == KEPT
    assert all(outputs["y"][0] == 2 * number for number, outputs in timed.kept.items())


def kept_places(choose: Callable[[int], int]) -> list[int]:
    """Which of the timed calls were kept, counted from the first."""
    engine = Recorder()
    timed = time_calls(engine, fresh, budget=0.0, least=40, choose=choose)
    return [number - (len(engine.seen) - len(timed.samples)) for number in sorted(timed.kept)]


def test_the_first_and_the_last_calls_can_be_kept() -> None:
    assert kept_places(lambda n: n - 1) == list(range(KEPT))
    assert kept_places(lambda n: 0) == list(range(40 - KEPT, 40))


def test_every_call_is_as_likely_to_be_kept_as_any_other() -> None:
    draw = random.Random(0)
    counts = [0] * 40
    for _ in range(100):
        for place in kept_places(draw.randrange):
            counts[place] += 1
    # 800 places in 40 cells of expectation 20: chi-squared with 39 degrees of freedom passes 72 once in 1000.
    assert sum((count - 20) ** 2 / 20 for count in counts) < 72


def test_of_large_outputs_fewer_are_kept() -> None:
    def large(inputs: Tensors) -> Tensors:
        return {"y": np.broadcast_to(inputs["x"][:1].astype(np.uint8), ROOM // KEPT + 1)}

    timed = time_calls(large, fresh, budget=0.0, least=20, choose=lambda n: n // 2)
    assert len(timed.kept) == FEWEST


def test_kept_outputs_are_copies() -> None:
    buffer = np.zeros(1)

    def reuses(inputs: Tensors) -> Tensors:
        buffer[0] = inputs["x"][0]
        return {"y": buffer}

    timed = time_calls(reuses, fresh, budget=0.0, least=20, choose=lambda n: 0)
    assert all(outputs["y"][0] == number for number, outputs in timed.kept.items())
