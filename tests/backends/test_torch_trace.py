"""What torch's trace sees beside the thread that it follows, and what a device's clock says."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from assay.backends.torch_eager import TorchEngine, between_events


class Aside(torch.nn.Module):
    """A product, here or in another thread."""

    def __init__(self, *, aside: bool) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
        self.aside = aside

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found: list[torch.Tensor] = []

        def compute() -> None:
            with torch.inference_mode():
                found.append(self.linear(x))

        if self.aside:
            thread = threading.Thread(target=compute)
            thread.start()
            thread.join()
        else:
            compute()
        return {"y": found[0]}


def test_operations_of_other_threads_are_in_the_trace_as_run_where_nobody_watched() -> None:
    inputs = {"x": np.ones((2, 8), np.float32)}
    _, own = TorchEngine(Aside(aside=False), "cpu").trace(inputs)
    _, other = TorchEngine(Aside(aside=True), "cpu").trace(inputs)
    assert {operation.device for operation in own} == {"cpu"}
    unseen = [operation for operation in other if operation.device != "cpu"]
    assert unseen and all(operation.compute and operation.precision == "f32" for operation in unseen)
    assert {operation.device for operation in unseen} == {"a device that was not watched"}


def test_a_device_s_clock_is_read_when_it_has_passed_what_was_called() -> None:
    """With a stream that is 7.5 ms behind each call."""
    done: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            done.append("record")

        def synchronize(self) -> None:
            done.append("wait")

        def elapsed_time(self, other: object) -> float:
            assert other is not self and done == ["record", "call", "record", "wait"]
            return 7.5

    cuda: Any = SimpleNamespace(Event=Event)
    assert between_events(cuda, lambda: done.append("call")) == 0.0075


def test_a_processor_has_no_clock_but_the_host_s() -> None:
    assert TorchEngine(Aside(aside=False), "cpu").device_time({"x": np.ones((2, 8), np.float32)}) is None
