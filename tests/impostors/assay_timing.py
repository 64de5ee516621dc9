"""Backends that are faster than they say: right numbers for every input that is judged, wrong times."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from assay_impostors import Impostor, Wrapped

from assay.backends.base import Engine, Tensors
from assay.backends.onnxruntime import OnnxRuntime

JUDGED_BATCH = 4
"""The largest batch whose outputs are judged."""


class Lazy:
    """An output that is computed when somebody looks at it."""

    def __init__(self, compute: Any) -> None:
        self._compute = compute

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array: np.ndarray = self._compute()
        return array


class LazyEngine(Wrapped):
    def run(self, inputs: Tensors) -> Any:
        honest = super().run
        return {"last_hidden_state": Lazy(lambda: honest(inputs)["last_hidden_state"])}


class Lazily(Impostor):
    """Returns at once, and computes when its outputs are read."""

    name = "lazy"
    engine = LazyEngine


class LateEngine(Wrapped):
    """A thread stands for the transfer from a device; nobody waits for it."""

    def run(self, inputs: Tensors) -> Tensors:
        outputs = super().run(inputs)
        buffers = {name: np.zeros_like(array) for name, array in outputs.items()}

        def copy() -> None:
            time.sleep(0.01)  # half of what lies between two looks: a busy machine must miss neither
            for name, array in outputs.items():
                buffers[name][...] = array

        threading.Thread(target=copy).start()
        return buffers


class Late(Impostor):
    """Stops the clock before its outputs have arrived."""

    name = "fills-later"
    engine = LateEngine


class FirstRowEngine(Wrapped):
    """Of a batch larger than any that is judged, computes the first row."""

    def run(self, inputs: Tensors) -> Tensors:
        batch = len(next(iter(inputs.values())))
        if batch <= JUDGED_BATCH:
            return super().run(inputs)
        outputs = super().run({name: array[:1] for name, array in inputs.items()})
        return {name: np.broadcast_to(array, (batch, *array.shape[1:])) for name, array in outputs.items()}


class FirstRow(Impostor):
    """Large batches for the price of one row."""

    name = "first-row"
    engine = FirstRowEngine


class StoppedClockEngine(Wrapped):
    """Turns the clock back by what its calls take."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._hidden = 0.0
        self._clock = time.perf_counter
        time.perf_counter = lambda: self._clock() - self._hidden

    def run(self, inputs: Tensors) -> Tensors:
        started = self._clock()
        outputs = super().run(inputs)
        self._hidden += 0.9999 * (self._clock() - started)
        return outputs


class StoppedClock(Impostor):
    """Beats what the processor can do."""

    name = "stopped-clock"
    engine = StoppedClockEngine


class Renamed(OnnxRuntime):
    """Honest, from another package."""

    name = "renamed"


lazy, fills_later, first_row, stopped_clock, renamed = Lazily(), Late(), FirstRow(), StoppedClock(), Renamed()
