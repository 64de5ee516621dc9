"""The reference: a checkpoint in transformers' eager code on the CPU in true float64, and its noise floor.

The noise floor says how much this very model amplifies rounding: every weight and the
result of every operation is moved relatively by +-u (the unit round-off of the precision), and the
change of the outputs is what honest arithmetic of that precision may look like. The idea of judging by a
float64 run is that of PyTorch's dynamo benchmarks (`same()` with `fp64_ref`); the perturbation is
the discrete stochastic arithmetic of Vignes (CESTAC) with random signs.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from assay.evidence.case import KEPT
from assay.evidence.layers import Expected, watched
from assay.families.base import Family, Tensors
from assay.families.module import kept_wide
from assay.schema import Precision

UNIT_ROUND_OFF = {Precision.F32: 2.0**-24, Precision.F16: 2.0**-11, Precision.BF16: 2.0**-8}
ACCUMULATION = {Precision.F32: 3.0, Precision.F16: 1.0, Precision.BF16: 1.0}
"""How many units a value is moved by in a noise floor. A sum of n terms in L lanes is rounded n / L times a lane as
well: a random walk whose variance is n / (6 L) of that which moving every term by one unit gives. For the 3,072 terms
of a published feed-forward layer and 64 lanes that is 8, and sqrt(1 + 8) = 3. Lower precisions accumulate in float32,
where it is nothing."""
LANES = 8
"""The fewest float32 lanes in which a runtime in use sums up."""
DRAWS = 4
"""Perturbed runs for one floor."""
MATRIX = 2
SIGNS = 2**20
"""Random signs that perturbed runs read from."""

Outputs = dict[str, np.ndarray]

_COARSE = {torch.nn.functional.interpolate, torch.sin, torch.cos, torch.Tensor.sin, torch.Tensor.cos}
_EXACT = {
    "aten::clone", "aten::_to_copy", "aten::cat", "aten::stack", "aten::embedding", "aten::index", "aten::index_select",
    "aten::gather", "aten::where", "aten::masked_fill", "aten::relu", "aten::neg", "aten::zeros_like",
    "aten::ones_like", "aten::full", "aten::full_like", "aten::zeros", "aten::ones", "aten::empty", "aten::arange",
    "aten::constant_pad_nd", "aten::scalar_tensor", "aten::roll", "aten::repeat", "aten::abs", "aten::clamp",
    "aten::maximum", "aten::minimum", "aten::max", "aten::lift_fresh", "aten::copy", "aten::triu", "aten::tril",
}  # fmt: skip
"""Operations that move values without rounding."""
_EMBEDDING = torch.ops.aten.embedding.default
_GROUP_NORM = torch.ops.aten.native_group_norm.default
_FLOAT64 = {torch.float32: torch.float64}


class TrueFloat64(TorchFunctionMode):
    """Turns every request for float32 inside a model into one for float64.

    Norms, rotary tables and eager softmaxes cast to float32 inside; in a reference that is an error.

    Args:
        coarse: run the operations whose rounding no perturbation of values models (interpolation
            coordinates, sines and cosines of large angles) in float32: for the floor's own draws.
    """

    def __init__(self, *, coarse: bool = False) -> None:
        super().__init__()
        self._coarse = coarse

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` with float64 where float32 was asked for."""
        kwargs = kwargs or {}
        if func is torch.Tensor.float:
            return args[0].double()
        if self._coarse and func in _COARSE:
            return _in_float32(func, args, kwargs)
        args = tuple(_FLOAT64.get(arg, arg) if isinstance(arg, torch.dtype) else arg for arg in args)
        if isinstance(kwargs.get("dtype"), torch.dtype):
            kwargs = {**kwargs, "dtype": _FLOAT64.get(kwargs["dtype"], kwargs["dtype"])}
        return func(*args, **kwargs)


def _in_float32(func: Any, args: Any, kwargs: Any) -> Any:
    tensor, *rest = args
    if tensor.dtype is not torch.float64:
        return func(*args, **kwargs)
    return func(tensor.to(torch.float32), *rest, **kwargs).to(torch.float64)


class Reference:
    """A checkpoint in float64: `outputs` for inputs, and `noise` around them; `extra` tensors have no place in it.

    Args:
        family: the row.
        directory: the checkpoint's folder.
        kept: the most parameters that are held in float64.
    """

    def __init__(self, family: Family, directory: Path, kept: int = KEPT) -> None:
        self.module = family.load(directory, attention="eager")
        large = sum(parameter.numel() for parameter in self.module.parameters()) > kept
        # Matrices alone stay narrow: they are nearly all of a large model.
        matrices = [(each, each.data) for each in self.module.parameters() if large and each.ndim == MATRIX]
        for parameter, _ in matrices:
            parameter.data = parameter.new_empty(0)
        self.module.double()
        for parameter, values in matrices:
            parameter.data = values
        self._outputs = family.outputs
        self._pairwise = family.pairwise
        self.extra: tuple[str, ...] = getattr(self.module, "extra", ())

    def kept_wide(self, precision: Precision) -> int:
        """How many matrices of this model transformers keeps in float32 at that precision."""
        return kept_wide(self.module.model, precision)

    def outputs(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """The judged outputs, float64 arrays on the host."""
        return self.run(inputs, TrueFloat64(), Exact())

    def all_outputs(self, calls: Sequence[Tensors]) -> list[dict[str, np.ndarray]]:
        """The outputs of every call; equal to `outputs` but for the order in which sums are taken."""
        return self._run_all(calls, TrueFloat64(), Exact())

    def watched(self, inputs: Tensors, precision: Precision, seed: int) -> tuple[Outputs, Outputs, Expected]:
        """Outputs, the noise around them, (draws, *shape), and both for every module of the network."""
        with watched() as seen:
            exact = self.outputs(inputs)
        runs, draws = [], []
        factors = _factors(precision, seed)
        for draw in range(DRAWS):
            with watched() as moved:
                runs += self._perturbed([inputs], factors, seed + draw)
            draws.append(moved.layers())
        noise = {name: np.stack([run[name] for run in runs]) for name in self._outputs}
        return exact, noise, Expected.of(seen.layers(), draws)

    def run(self, inputs: Tensors, mode: TrueFloat64, arithmetic: Exact) -> dict[str, np.ndarray]:
        """The outputs under these modes."""
        tensors = {name: torch.from_numpy(array) for name, array in widened(inputs).items()}
        for tensor in tensors.values():
            if tensor.is_floating_point():
                arithmetic.inexact(tensor)
        with float64_default(), torch.no_grad(), arithmetic, mode:
            found = self.module(**tensors)
        return {name: found[name].numpy() for name in self._outputs}

    def _run_all(self, calls: Sequence[Tensors], mode: TrueFloat64, arithmetic: Exact) -> list[dict[str, np.ndarray]]:
        """Calls of equal shapes are one batch: what a pass costs beside its arithmetic is then paid once."""
        found: dict[int, dict[str, np.ndarray]] = {}
        for alike in _alike(calls):
            batch = {name: np.concatenate([calls[index][name] for index in alike]) for name in calls[alike[0]]}
            outputs = self.run(batch, mode, arithmetic)
            for place, index in enumerate(alike):
                found[index] = {
                    name: _part(array, place, len(alike), pairwise=name in self._pairwise)
                    for name, array in outputs.items()
                }
        return [found[index] for index in range(len(calls))]

    def noise(
        self, inputs: Sequence[Tensors], precision: Precision, seed: int, draws: int = DRAWS
    ) -> list[dict[str, np.ndarray]]:
        """Outputs under perturbation, for each inputs an array (draws, *output shape) by output name."""
        factors = _factors(precision, seed)
        runs = [self._perturbed(inputs, factors, seed + draw) for draw in range(draws)]
        return [
            {name: np.stack([run[index][name] for run in runs]) for name in self._outputs}
            for index in range(len(inputs))
        ]

    def _perturbed(self, inputs: Sequence[Tensors], factors: torch.Tensor, seed: int) -> list[Outputs]:
        rounding = _Rounding(factors, random.Random(seed))  # noqa: S311 (to be drawn again)
        return self._run_all(inputs, TrueFloat64(coarse=True), rounding)

    def uses(self, array: np.ndarray, inputs: Tensors) -> bool:
        """Whether the outputs change with other numbers in every tensor that holds these; not if none does.

        Tensors are found by their content: names change between a checkpoint and the model that loads it.
        """
        state = self.module.state_dict()
        holders = [tensor for tensor in state.values() if np.array_equal(tensor.numpy(), array)]
        if not holders:
            return False
        before = self.outputs(inputs)
        originals = [tensor.clone() for tensor in holders]
        try:
            for tensor in holders:
                other = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
                tensor.copy_((1 + other).to(tensor.dtype))
            after = self.outputs(inputs)
            return not all(np.array_equal(after[name], before[name]) for name in before)
        finally:
            for tensor, original in zip(holders, originals, strict=True):
                tensor.copy_(original)


def _alike(calls: Sequence[Tensors]) -> list[list[int]]:
    """Which calls have inputs of the same names and shapes."""
    groups: dict[Any, list[int]] = {}
    for index, inputs in enumerate(calls):
        groups.setdefault(tuple((name, array.shape) for name, array in inputs.items()), []).append(index)
    return list(groups.values())


def _part(array: np.ndarray, place: int, parts: int, *, pairwise: bool) -> np.ndarray:
    """The rows of one of the calls that make up a batch, and its columns where an output has one for every item."""
    for axis in range(1 + pairwise):
        array = np.split(array, parts, axis)[place]
    return array


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
        if func is _EMBEDDING and isinstance(args[0], torch.nn.Parameter):
            return self.parameter(func(*args, **(kwargs or {})))  # the rows that were looked up, not the whole table
        args, kwargs = tuple(map(self._widened, args)), kwargs or {}  # operators take tensors by position
        return self.result(func, args, func(*args, **kwargs))

    def _widened(self, argument: Any) -> Any:
        """The argument, parameters replaced; by hand, because `tree_map` takes as long as a small model."""
        if type(argument) is torch.Tensor:  # most are, and asking for a parameter takes longer
            return argument
        if isinstance(argument, torch.nn.Parameter):
            return self.parameter(argument)
        if isinstance(argument, list | tuple) and any(isinstance(each, torch.nn.Parameter) for each in argument):
            return [self._widened(each) for each in argument]
        return argument


class _Rounding(Exact):
    """Moves every parameter, and the result of every operation that computes with inexact values, by +-unit.

    Views and copies round nothing. What follows from integers alone stays as it is: T5 sorts
    distances into buckets by a logarithm whose exact value lies on the edges of the buckets.
    """

    def __init__(self, factors: torch.Tensor, places: random.Random) -> None:
        super().__init__()
        self._factors = factors
        self._places = places
        self._inexact = WeakIdKeyDictionary()

    def inexact(self, tensor: torch.Tensor) -> None:
        """See `Exact`."""
        self._inexact[tensor] = True

    def parameter(self, tensor: torch.Tensor) -> torch.Tensor:
        """Widened and moved; another time by other signs."""
        moved = self.nudged(super().parameter(tensor))
        self.inexact(moved)
        return moved

    def result(self, func: Any, arguments: Sequence[Any], result: Any) -> Any:
        """Moved, where the operation rounds and had inexact values to round."""
        if not any(each in self._inexact for each in _tensors(arguments)):
            return result
        if func is _GROUP_NORM:
            result = self._off_mean(arguments, *result)
        if _rounds(func):
            result = self.nudged(result) if isinstance(result, torch.Tensor) else tuple(map(self.nudged, result))
        for each in _tensors((result,)):
            if each.is_floating_point():
                self.inexact(each)
        return result

    def _off_mean(
        self, arguments: Sequence[Any], output: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """A normalisation whose mean a runtime's float32 sum has missed, where its terms are equal.

        Equal terms are rounded all alike: n of them in L lanes add up to as much as n / (2 L) units, where others walk
        at random and stay within `ACCUMULATION`. They are equal if they differ by less than the last place of their
        sum. Then nothing is left but that difference, and the normalisation makes it large: silence with an offset.

        Args:
            arguments: input, (batch, channels, ...); weight and bias, (channels) or None; sizes, groups, epsilon.
            output: as the input.
            mean, scale: of every group, (batch, groups); the scale is 1 / sqrt(variance + epsilon).
        """
        _, weight, _, _, channels, size, groups, epsilon = arguments
        terms = channels // groups * size
        deviation = (scale**-2 - epsilon).clamp_min(0).sqrt()
        equal = deviation <= terms * mean.abs() * 2 * UNIT_ROUND_OFF[Precision.F32]
        if not equal.any():
            return output, mean, scale
        missed = self._signs(mean) * mean * equal * terms / (2 * LANES) * UNIT_ROUND_OFF[Precision.F32]
        moved = (missed * scale).repeat_interleave(channels // groups, dim=1)
        if weight is not None:
            moved = moved * weight
        return output + moved.view(*moved.shape, *(1 for _ in output.shape[2:])), mean, scale

    def _signs(self, tensor: torch.Tensor) -> torch.Tensor:
        """As many random signs."""
        place = self._places.randrange(SIGNS)
        return torch.sign(self._factors[place : place + tensor.numel()] - 1).view(tensor.shape)

    def nudged(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, every value moved up or down by the unit; integers as they are."""
        if not (isinstance(tensor, torch.Tensor) and tensor.is_floating_point()):
            return tensor
        factors = self._factors[self._places.randrange(SIGNS) :]
        if (size := tensor.numel()) <= SIGNS:
            moved = torch.mul(tensor, factors[:size].view(tensor.shape))
        else:
            moved = tensor.clone(memory_format=torch.contiguous_format)
            for part in moved.view(-1).split(SIGNS):
                part.mul_(factors[: part.numel()])
        limits = torch.finfo(tensor.dtype)  # masks hold the type's least value
        return moved.clamp_(limits.min, limits.max)


@cache
def _rounds(func: Any) -> bool:
    return not (func.is_view or func._schema.is_mutable or func._schema.name in _EXACT)


@lru_cache(maxsize=1)
def _factors(precision: Precision, seed: int) -> torch.Tensor:
    """(2 SIGNS,): 1 +- what this precision rounds by, with random signs.

    They are there twice, so that as many follow whatever place one begins at.
    Drawing signs costs more than computing: they are drawn once, and every operation of every run reads them elsewhere.
    """
    unit = ACCUMULATION[precision] * UNIT_ROUND_OFF[precision]
    signs = torch.randint(0, 2, (SIGNS,), generator=torch.Generator().manual_seed(seed)).double()
    return signs.mul_(2 * unit).add_(1 - unit).repeat(2)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among an operator's arguments or results, those in lists included."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from (each for each in value if isinstance(each, torch.Tensor))
