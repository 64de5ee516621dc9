"""Before several threads of torch compute, one has called every vector function."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from assay import checkpoints, torch_threads
from assay.backends.cpu import BACKEND
from assay.machine import threads
from assay.schema import Precision
from assay.torch_threads import VECTOR_FUNCTIONS, use_threads
from tests import first_calls


class Calls(TorchDispatchMode):
    """Which operators are called on how many numbers of which type."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, int, torch.dtype]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], torch.Tensor):
            self.seen.add((func.overloadpacket.__name__.removeprefix("special_"), args[0].numel(), args[0].dtype))
        return func(*args, **kwargs or {})


def test_each_is_called_on_one_number_in_both_types() -> None:
    """One number is the work of one thread."""
    with Calls() as calls:
        use_threads(2)
    assert torch.get_num_threads() == 2
    wanted = {(name, 1, dtype) for name in VECTOR_FUNCTIONS for dtype in (torch.float32, torch.float64)}
    assert wanted <= calls.seen


def test_an_engine_does_so_before_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Any] = []
    monkeypatch.setattr(torch_threads, "use_threads", order.append)

    def phase(name: str) -> Any:
        order.append(name)
        return nullcontext()

    checkpoint = checkpoints.local("bert", "tiny")
    artifact = BACKEND.build(checkpoint, precision=Precision.F32)
    with BACKEND.open(artifact, device=BACKEND.devices()[0], precision=Precision.F32, phase=phase):
        assert order == [threads(), "load"]


def test_wrong_first_calls_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of processes that are wrong, all; of those that are right, none."""
    assert first_calls.apart(lambda: use_threads(2), "tanh") == 0
    for found, share in ((1e-4, 1), (0.0, 0)):
        monkeypatch.setattr(first_calls, "apart", lambda *_, found=found: found)
        started, wrong = first_calls.count(lambda: None, "tanh", 0.1)
        assert started > 0 and wrong == share * started
