"""Modes in which torch computes a model in true float64, whatever it asks for inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from assay.families.base import Tensors

_EMBEDDING = torch.ops.aten.embedding.default
_FLOAT64 = {torch.float32: torch.float64}


class TrueFloat64(TorchFunctionMode):
    """Turns every request for float32 inside a model into one for float64.

    Norms, rotary tables and eager softmaxes cast to float32 inside; in a reference that is an error.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` with float64 where float32 was asked for."""
        kwargs = kwargs or {}
        if func is torch.Tensor.float:
            return args[0].double()
        args = tuple(_FLOAT64.get(arg, arg) if isinstance(arg, torch.dtype) else arg for arg in args)
        if isinstance(kwargs.get("dtype"), torch.dtype):
            kwargs = {**kwargs, "dtype": _FLOAT64.get(kwargs["dtype"], kwargs["dtype"])}
        return func(*args, **kwargs)


def widened(inputs: Tensors) -> dict[str, np.ndarray]:
    """Inputs as the reference takes them: what is floating-point in float64."""
    return {
        name: array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in inputs.items()
    }


@contextmanager
def float64_default() -> Iterator[None]:
    """New tensors are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Exact(TorchDispatchMode):
    """Widens parameters that are kept in float32, where they are used."""

    def inexact(self, tensor: torch.Tensor) -> None:
        """This tensor holds numbers that rounding could have changed."""

    def parameter(self, tensor: torch.Tensor) -> torch.Tensor:
        """What an operation gets in the place of a parameter."""
        return tensor.double() if tensor.dtype is torch.float32 else tensor

    def result(self, func: Any, arguments: Sequence[Any], result: Any) -> Any:
        """What an operation gives in the place of its result."""
        return result

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.perform(func, args, kwargs or {})

    def perform(self, func: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """An operation in this arithmetic."""
        if func is _EMBEDDING and isinstance(arguments[0], torch.nn.Parameter):
            return self.parameter(func(*arguments, **keywords))  # the rows that were looked up, not the whole table
        arguments = tuple(map(self._widened, arguments))  # operators take tensors by position
        return self.result(func, arguments, func(*arguments, **keywords))

    def _widened(self, argument: Any) -> Any:
        """The argument, parameters replaced; by hand, because `tree_map` takes as long as a small model."""
        if type(argument) is torch.Tensor:  # most are, and asking for a parameter takes longer
            return argument
        if isinstance(argument, torch.Tensor) and isinstance(argument, torch.nn.Parameter):
            return self.parameter(argument)
        if isinstance(argument, list | tuple) and any(isinstance(each, torch.nn.Parameter) for each in argument):
            return [self._widened(each) for each in argument]
        return argument
