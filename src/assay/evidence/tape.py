"""A tape of a forward pass: its operations, to be run again in another arithmetic.

Of a pass of a small model most of the time goes to the Python that asks for its operations. A tape holds what of them
depends on numbers that rounding moves; what follows from integers alone (masks, positions) it keeps as it was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from assay.evidence.float64 import Exact, TrueFloat64
from assay.evidence.rounding import coarse

_READ_OUTSIDE = {torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__, torch.Tensor.data.__get__}
"""What gets at numbers without an operation that a tape could see."""
_INDEX = torch.ops.aten.index.Tensor
_BY_VALUE = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where on a tape a tensor's values are; written on the tensor itself, with the mark of that tape."""

    tape: object
    number: int


Places = list[tuple[int, int]]
"""Indices among arguments, and the places of the tensors there."""


@dataclass(slots=True)
class _Step:
    """An operation.

    Attributes:
        func: what is done.
        arguments: to what; None where `places` or `lists` say what.
        keywords: how.
        parametric: whether parameters are among the arguments.
        places: the arguments that are on the tape.
        lists: those that are lists of tensors: index, list, and what of it is on the tape.
        results: the places of the results.
        unused: places that no later step needs.
    """

    func: Any
    arguments: list[Any]
    keywords: Mapping[str, Any]
    parametric: bool = False
    places: Places = field(default_factory=list)
    lists: list[tuple[int, list[Any], Places]] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    unused: list[int] = field(default_factory=list)

    @property
    def depends(self) -> bool:
        """Whether anything that rounding moves is among the arguments."""
        return self.parametric or bool(self.places) or any(places for _, _, places in self.lists)

    def filled(self, values: list[Any]) -> list[Any]:
        """The arguments, with these tensors in their places."""
        arguments = self.arguments.copy()
        for index, number in self.places:
            arguments[index] = values[number]
        for index, members, places in self.lists:
            arguments[index] = members.copy()
            for inner, number in places:
                arguments[index][inner] = values[number]
        return arguments


class Tape(Exact):
    """Records the pass that runs under it, which is exact.

    Attributes:
        whole: whether running it again is the same as another pass. It is not where values decide what is done (which
            expert a token goes to), leave torch, or are written into something that is kept from the first pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mark = object()
        self._steps: list[_Step] = []
        self._given: list[torch.Tensor] = []
        self._kept: dict[int, tuple[torch.Tensor, int]] = {}
        self._last: list[int] = []
        self._decided = False
        self._ends: dict[str, torch.Tensor | int] = {}

    @property
    def mode(self) -> TrueFloat64:
        """The mode of the pass, which sees what an operation does not."""
        return _Watching(self)

    @property
    def whole(self) -> bool:
        """See `Tape`."""
        return not self._decided and all(tensor._version == version for tensor, version in self._kept.values())

    def inexact(self, tensor: torch.Tensor) -> None:
        """Begin with this tensor."""
        self._put(tensor, 0)
        self._given.append(tensor)
        self._keep(tensor)

    def end(self, outputs: Mapping[str, torch.Tensor]) -> None:
        """Say what the pass has given."""
        for name, tensor in outputs.items():
            number = self._place(tensor)
            self._ends[name] = tensor if number is None else number
        for number in set(range(len(self._last))).difference(self._ends.values()):
            if self._steps:
                self._steps[self._last[number]].unused.append(number)

    def again(self, arithmetic: Exact) -> dict[str, torch.Tensor]:
        """The outputs in this arithmetic."""
        values: list[Any] = [*self._given, *(None for _ in range(len(self._last) - len(self._given)))]
        for tensor in self._given:
            arithmetic.inexact(tensor)
        for step in self._steps:
            arguments = step.filled(values)
            if step.parametric:
                result = arithmetic.perform(step.func, arguments, step.keywords)
            else:
                result = arithmetic.result(step.func, arguments, step.func(*arguments, **step.keywords))
            if isinstance(result, torch.Tensor):
                values[step.results[0]] = result
            else:
                for number, each in zip(step.results, result, strict=True):
                    values[number] = each
            for number in step.unused:
                values[number] = None
        return {name: values[end] if isinstance(end, int) else end for name, end in self._ends.items()}

    def read(self, tensor: Any) -> None:
        """Numbers leave torch."""
        self._decided |= isinstance(tensor, torch.Tensor) and self._place(tensor) is not None

    def perform(self, func: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Exact, and written down if what it gives depends on what is inexact."""
        step = self._step(func, arguments, keywords)
        if not (step.depends or coarse(func)):
            return super().perform(func, arguments, keywords)
        self._decided |= self._decides(step) or any(map(self._is_placed, keywords.values()))
        self._keep_constants(step)
        result = super().perform(func, arguments, keywords)
        for each in _several(result):
            if isinstance(each, torch.Tensor):
                step.results.append(self._put(each, len(self._steps)))
            else:
                self._decided = True
        self._steps.append(step)
        return result

    def _step(self, func: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> _Step:
        """The operation, what is on the tape taken out of its arguments."""
        step = _Step(func, list(arguments), keywords)
        for index, argument in enumerate(arguments):
            if isinstance(argument, torch.Tensor):
                self._take(step, step.arguments, index, step.places)
            elif isinstance(argument, list | tuple) and any(isinstance(each, torch.Tensor) for each in argument):
                members: list[Any] = list(argument)
                places: Places = []
                for inner in range(len(members)):
                    self._take(step, members, inner, places)
                step.arguments[index] = None
                step.lists.append((index, members, places))
        return step

    def _take(self, step: _Step, arguments: list[Any], index: int, places: Places) -> None:
        """Put a tensor's place where the tensor is, if it has one."""
        tensor = arguments[index]
        if not isinstance(tensor, torch.Tensor):
            return
        if (number := self._place(tensor)) is not None:
            places.append((index, number))
            arguments[index] = None
            self._last[number] = len(self._steps)
        elif type(tensor) is not torch.Tensor and isinstance(tensor, torch.nn.Parameter):
            step.parametric = True

    def _decides(self, step: _Step) -> bool:
        """Whether values on the tape say how many there are of the result, or what a number is."""
        if not _by_value(step.func):
            return False
        return any(places for _, _, places in step.lists) or (bool(step.places) and step.func is not _INDEX)

    def _keep_constants(self, step: _Step) -> None:
        for argument in step.arguments:
            if type(argument) is torch.Tensor:
                self._keep(argument)
        for _, members, _ in step.lists:
            for member in members:
                if type(member) is torch.Tensor:
                    self._keep(member)

    def _keep(self, tensor: torch.Tensor) -> None:
        """Keep a tensor that must stay as it is."""
        if id(tensor) not in self._kept:
            self._kept[id(tensor)] = tensor, tensor._version

    def _put(self, tensor: torch.Tensor, step: int) -> int:
        """The tensor's place, a new one if it has none: an operation in place gives what it was given."""
        number = self._place(tensor)
        if number is None:
            number = len(self._last)
            self._last.append(step)
            tensor.assay_place = _Place(self._mark, number)
        return number

    def _place(self, tensor: torch.Tensor) -> int | None:
        place: _Place | None = getattr(tensor, "assay_place", None)
        return place.number if place is not None and place.tape is self._mark else None

    def _is_placed(self, argument: Any) -> bool:
        return isinstance(argument, torch.Tensor) and self._place(argument) is not None


class _Watching(TrueFloat64):
    """Tells a tape of numbers that are read outside torch."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READ_OUTSIDE:
            self._tape.read(args[0])
        return super().__torch_function__(func, types, args, kwargs)


def _several(result: Any) -> Sequence[Any]:
    return result if isinstance(result, list | tuple) else (result,)


@cache
def _by_value(func: Any) -> bool:
    return not _BY_VALUE.isdisjoint(func.tags)
