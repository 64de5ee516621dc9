"""The timed loop."""

from __future__ import annotations

import time

import numpy as np

from assay.measure.clock import KEPT, Tensors, time_calls


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


def test_any_call_can_be_kept() -> None:
    numbers = iter(range(10_000))
    first = time_calls(Recorder(), fresh, budget=0.0, least=40, choose=lambda n: n - 1)
    last = time_calls(Recorder(), fresh, budget=0.0, least=40, choose=lambda n: next(numbers) % KEPT)
    assert max(first.kept) < min(last.kept)


def test_kept_outputs_are_copies() -> None:
    buffer = np.zeros(1)

    def reuses(inputs: Tensors) -> Tensors:
        buffer[0] = inputs["x"][0]
        return {"y": buffer}

    timed = time_calls(reuses, fresh, budget=0.0, least=20, choose=lambda n: 0)
    assert all(outputs["y"][0] == number for number, outputs in timed.kept.items())
