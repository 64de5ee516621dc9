"""What the modules of a network compute, and the first of them whose output passes its bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_hook

from assay.evidence.case import Answer, Arrays, compared
from assay.schema import Check, Precision, Verdict

Layers = Mapping[tuple[str, int], np.ndarray]
"""Outputs of modules, by name and number of the call, in the order in which the calls ended."""

_ROWS = 2
"""Axes that an output needs to have rows."""


@dataclass
class Watched:
    """What ran while modules were watched; `layers` gives it names."""

    calls: list[tuple[torch.nn.Module, np.ndarray | None]] = field(default_factory=list)

    def layers(self) -> Layers:
        """The first tensor of floats that each module gave; the module that ended last is the root of the names."""
        if not self.calls:
            return {}
        names = {module: name for name, module in self.calls[-1][0].named_modules()}
        found: dict[tuple[str, int], np.ndarray] = {}
        counts: dict[str, int] = {}
        for module, array in self.calls[:-1]:
            if array is not None and module in names:
                number = counts[names[module]] = counts.get(names[module], 0) + 1
                found[names[module], number] = array
        return found


@contextmanager
def watched() -> Iterator[Watched]:
    """Whatever torch modules run meanwhile, in any engine of this process."""
    found = Watched()

    def note(module: torch.nn.Module, _arguments: Any, output: Any) -> None:
        tensor = _first(output)
        # A copy: what follows may add to a module's output in place.
        found.calls.append((module, None if tensor is None else np.array(_plain(tensor))))

    hook = register_module_forward_hook(note)
    try:
        yield found
    finally:
        hook.remove()


def _plain(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    plain: np.ndarray = (tensor if tensor.dtype is torch.float64 else tensor.float()).numpy()
    return plain


def _first(output: Any) -> torch.Tensor | None:
    """The first tensor of floats with rows, in whatever a module gave."""
    if isinstance(output, torch.Tensor):
        return output if output.is_floating_point() and output.ndim >= _ROWS else None
    parts: Sequence[Any] = ()
    if isinstance(output, Mapping):
        parts = list(output.values())
    elif isinstance(output, tuple | list):
        parts = output
    return next((tensor for part in parts if (tensor := _first(part)) is not None), None)


@dataclass(frozen=True)
class Expected:
    """What the reference's modules gave, and the noise around it, (draws, *shape)."""

    exact: Layers
    noise: Layers

    @classmethod
    def of(cls, exact: Layers, draws: Sequence[Layers]) -> Expected:
        """Those modules that rounding moves: of what follows from integers alone nobody can tell a floor."""
        noise = {key: np.stack([draw[key] for draw in draws]) for key in exact if all(key in draw for draw in draws)}
        told = {
            key: spread for key, spread in noise.items()
            if np.isfinite(spread).all() and np.any(spread != exact[key])
        }  # fmt: skip
        return cls({key: exact[key] for key in told}, told)

    def failing(self, found: Layers, masks: Arrays, call: str, precision: Precision) -> Iterator[tuple[str, int]]:
        """The modules whose outputs pass their bounds, in the order of the network."""
        for key in self.exact:
            if key in found and self.check(key, found, masks, call, precision).verdict is Verdict.FAILED:
                yield key

    def check(self, key: tuple[str, int], found: Layers, masks: Arrays, call: str, precision: Precision) -> Check:
        """One module's output against its bound."""
        exact = self.exact[key]
        fitting = next(
            (_spread(mask, exact) for mask in masks.values() if mask.shape == exact.shape[: mask.ndim]), None
        )
        name = title(key)
        answer = Answer(
            name=call, inputs={}, outputs={name: found[key]}, expected={name: exact}, noise={name: self.noise[key]},
            masks={} if fitting is None else {name: fitting},
        )  # fmt: skip
        return compared(name, answer, precision)


def _spread(mask: np.ndarray, exact: np.ndarray) -> np.ndarray | None:
    """A mask of positions for all axes but the last; None where it reaches that one."""
    if mask.ndim >= exact.ndim:
        return None
    rows = exact.shape[:-1]
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * (len(rows) - mask.ndim)), rows)


def title(key: tuple[str, int]) -> str:
    """A module's name in the pretrained model, with the number of its call where it is not the first."""
    name, number = key
    own = name.removeprefix("model.") if name != "model" else "the model itself"
    return own if number == 1 else f"{own} (call {number})"
