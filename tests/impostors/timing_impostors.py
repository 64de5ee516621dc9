"""Backends that are faster, or elsewhere, than they say: right numbers for every input that is judged, wrong times."""

from __future__ import annotations

import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from assay_impostors import Impostor, Wrapped

from assay.backends.base import Artifact, Engine, Operation, PhaseClock, Tensors
from assay.backends.onnxruntime import OnnxRuntime
from assay.devices import Device
from assay.schema import Precision

JUDGED_BATCH = 4
"""The largest batch whose outputs are judged."""


class RememberingEngine(Wrapped):
    """Answers an input that it has seen from memory."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._answers: dict[bytes, Tensors] = {}

    def run(self, inputs: Tensors) -> Tensors:
        key = b"".join(array.tobytes() for array in inputs.values())
        if key not in self._answers:
            self._answers[key] = super().run(inputs)
        return self._answers[key]


class Remembering(Impostor):
    """Fast, for whoever measures one input again and again."""

    name = "remembering"
    engine = RememberingEngine


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


class UnsynchronisedEngine(Wrapped):
    """A thread stands for the device; nobody waits for it."""

    def run(self, inputs: Tensors) -> Tensors:
        outputs = super().run(inputs)
        buffers = {name: np.zeros_like(array) for name, array in outputs.items()}

        def copy() -> None:
            time.sleep(0.002)
            for name, array in outputs.items():
                buffers[name][...] = array

        threading.Thread(target=copy).start()
        return buffers


class Unsynchronised(Impostor):
    """Stops the clock before the device has finished."""

    name = "unsynchronised"
    engine = UnsynchronisedEngine


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


class ElsewhereEngine(Engine):
    """Passes every input to another process and waits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, inputs: Tensors) -> Tensors:
        self._connection.send(dict(inputs))
        outputs: Tensors = self._connection.recv()
        return outputs

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        return self.run(inputs), [Operation("MatMul", "CPUExecutionProvider:MatMul", "cpu", "f32", True, 1e-3)]


class Elsewhere(OnnxRuntime):
    """Right numbers from a process that nobody watches."""

    name = "elsewhere"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        ours, theirs = multiprocessing.Pipe()
        options = {"device": device, "precision": precision, "phase": phase}

        def serve() -> None:
            ours.close()
            with OnnxRuntime.open(self, artifact, **options) as engine:  # type: ignore[arg-type]
                while True:
                    try:
                        theirs.send(dict(engine.run(theirs.recv())))
                    except EOFError:  # the runner has ended
                        return

        multiprocessing.get_context("fork").Process(target=serve).start()
        theirs.close()
        return ElsewhereEngine(ours)


class Renamed(OnnxRuntime):
    """Honest, from another package."""

    name = "renamed"


remembering, lazily, unsynchronised = Remembering(), Lazily(), Unsynchronised()
first_row, stopped_clock, elsewhere, renamed = FirstRow(), StoppedClock(), Elsewhere(), Renamed()

ENTRY_POINTS = {
    backend.name: f"timing_impostors:{name}"
    for name, backend in list(globals().items())
    if isinstance(backend, OnnxRuntime)
}
