"""What honest rounding may make of a model's values: the perturbations of the noise floor.

Random signs stand for errors whose sizes are known, as in the discrete stochastic arithmetic of Vignes (CESTAC).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

import torch

from assay.evidence.float64 import Exact
from assay.schema import Precision

UNIT_ROUND_OFF = {Precision.F32: 2.0**-24, Precision.F16: 2.0**-11, Precision.BF16: 2.0**-8}
"""Of a precision's arithmetic."""
ACCUMULATION = {Precision.F32: 3.0, Precision.F16: 1.0, Precision.BF16: 1.0}
"""How many units a value is moved by in a noise floor. A sum of n terms in L lanes is rounded n / L times a lane as
well: a random walk whose variance is n / (6 L) of that which moving every term by one unit gives. For the 3,072 terms
of a published feed-forward layer and 64 lanes that is 8, and sqrt(1 + 8) = 3. Lower precisions accumulate in float32,
where it is nothing."""
STEP = {Precision.INT8: 1 / 127}
"""From one code to the next where weights are integers, with one scale for all that makes up an output: a share of the
largest of these weights."""
LANES = 8
"""The fewest float32 lanes in which a runtime in use sums up."""
COORDINATES = 3.0
"""How many times what float32 is off an interpolation by it may be off: as any other value is moved by three units. One
runtime rounds its coordinates at other places than another: those of ONNX Runtime and torch, of 1,001 frames stretched
to 1,024, are off by as much, and have nothing in common."""
MATRIX = 2
SIGNS = 2**20
"""Random signs that perturbed runs read from."""

_EXACT = {
    "aten::clone", "aten::_to_copy", "aten::cat", "aten::stack", "aten::embedding", "aten::index", "aten::index_select",
    "aten::gather", "aten::where", "aten::masked_fill", "aten::relu", "aten::neg", "aten::zeros_like",
    "aten::ones_like", "aten::full", "aten::full_like", "aten::zeros", "aten::ones", "aten::empty", "aten::arange",
    "aten::constant_pad_nd", "aten::scalar_tensor", "aten::roll", "aten::repeat", "aten::abs", "aten::clamp",
    "aten::maximum", "aten::minimum", "aten::max", "aten::lift_fresh", "aten::copy", "aten::triu", "aten::tril",
}  # fmt: skip
"""Operations that move values without rounding."""
_LARGEST = {dtype: torch.finfo(dtype).max for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}
_WAVES = {"aten::sin", "aten::cos"}
_INTERPOLATION = re.compile(r"aten::_?upsample_")
_GROUP_NORM = torch.ops.aten.native_group_norm.default


def perturbation(precision: Precision, seed: int, draw: int, inputs_first: frozenset[int]) -> Exact:
    """The arithmetic of one perturbed run.

    Args:
        precision: what rounds.
        seed: of the signs.
        draw: which of the runs with this seed.
        inputs_first: the identities of the parameters that are matrices (in, out), not (out, in).
    """
    signs, places = _factors(precision, seed), random.Random(seed + draw)  # noqa: S311 (to be drawn again)
    coordinates = torch.Generator().manual_seed(seed + draw)
    if precision in STEP:
        return Quantising(signs, places, coordinates, _moves(precision, seed), inputs_first)
    return Rounding(signs, places, coordinates)


class Rounding(Exact):
    """Moves every parameter, and the result of every operation that computes with inexact values, by +-unit.

    Views and copies round nothing. What follows from integers alone stays as it is: T5 sorts
    distances into buckets by a logarithm whose exact value lies on the edges of the buckets. Where no move of values
    models what float32 does, it is asked: sines and cosines of large angles, and the coordinates of interpolations.

    Args:
        factors: see `_factors`.
        places: where in them each move begins.
        coordinates: signs of what interpolations are off by.
    """

    def __init__(self, factors: torch.Tensor, places: random.Random, coordinates: torch.Generator) -> None:
        super().__init__()
        self._factors = factors
        self._places = places
        self._coordinates = coordinates
        self._mark = object()

    def inexact(self, tensor: torch.Tensor) -> None:
        """See `Exact`. A mark on the tensor itself is found in a tenth of the time that a weak dictionary takes."""
        tensor.assay_inexact = self._mark

    def _any_inexact(self, arguments: Sequence[Any]) -> bool:
        """Whether this run has marked any; a buffer of the model may bear the mark of an earlier one."""
        return any(getattr(tensor, "assay_inexact", None) is self._mark for tensor in _tensors(arguments))

    def parameter(self, tensor: torch.Tensor) -> torch.Tensor:
        """Widened and moved; another time by other signs."""
        wide = super().parameter(tensor)
        if not wide.is_floating_point():
            return wide
        if wide.numel() <= SIGNS:
            moved = wide * self._read(wide)
        else:
            moved = self._move(wide.clone() if wide is tensor else wide)
        self.inexact(moved)
        return moved

    def result(self, func: Any, arguments: Sequence[Any], result: Any) -> Any:
        """Moved, where the operation rounds and had inexact values to round."""
        if coarse(func):
            result = self._coarse(func, arguments, result)
        if not self._any_inexact(arguments):
            return result
        if func is _GROUP_NORM:
            result = self._off_mean(arguments, *result)
        if _rounds(func):
            result = self._nudge(result) if isinstance(result, torch.Tensor) else tuple(map(self._nudge, result))
        for each in _tensors((result,)):
            if each.is_floating_point():
                self.inexact(each)
        return result

    def _coarse(self, func: Any, arguments: Sequence[Any], exact: torch.Tensor) -> torch.Tensor:
        """What float32 makes of it, or in an interpolation what its coordinates do."""
        tensor, *rest = arguments
        if tensor.dtype is not torch.float64:
            return exact
        narrow: torch.Tensor = func(tensor.float(), *rest).double()
        return narrow if func._schema.name in _WAVES else displaced(tensor, exact, narrow, self._coordinates)

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

    def _nudge(self, tensor: torch.Tensor) -> torch.Tensor:
        """Every value moved up or down by the unit, in place where that can be, for new memory costs more than moving.

        Integers stay as they are.
        """
        if not (isinstance(tensor, torch.Tensor) and tensor.is_floating_point()):
            return tensor
        largest = _LARGEST[tensor.dtype]  # masks hold the type's least value
        return self._move(tensor.double()).clamp_(-largest, largest)

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() <= SIGNS:
            return tensor.mul_(self._read(tensor))
        tensor, place = tensor.contiguous(), self._places.randrange(SIGNS)
        for part in tensor.view(-1).split(SIGNS):
            part.mul_(self._factors[place : place + part.numel()])
        return tensor

    def _read(self, tensor: torch.Tensor) -> torch.Tensor:
        """As many factors as a tensor of at most `SIGNS` values has, in its shape."""
        place = self._places.randrange(SIGNS)
        return self._factors[place : place + tensor.numel()].view(tensor.shape)


class Quantising(Rounding):
    """Moves weights by what integers in their place are off, and everything else as its arithmetic does.

    A weight between two codes is rounded to the nearer one: evenly distributed, such errors have a root mean square of
    1 / sqrt(12) steps (Bennett 1948), which is what each is moved by. The codes of all weights that make up one output
    share a scale, with which the largest is the last code; an embedding's row has its own. Whoever takes smaller groups
    is closer. What has no rows (biases, norms) stays as it is in float32.
    """

    def __init__(
        self, factors: torch.Tensor, places: random.Random, coordinates: torch.Generator, moves: torch.Tensor,
        inputs_first: frozenset[int],
    ) -> None:  # fmt: skip
        super().__init__(factors, places, coordinates)
        self._moves = moves
        self._inputs_first = inputs_first

    def parameter(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Exact`."""
        wide = super().parameter(tensor)
        if tensor.ndim < MATRIX or not tensor.is_floating_point():
            return wide
        moved = self._drawn(wide).mul_(wide.abs().amax(self._summed(tensor), keepdim=True)).add_(wide)
        self.inexact(moved)
        return moved

    def _summed(self, tensor: torch.Tensor) -> tuple[int, ...]:
        """The axes that one output sums over."""
        if not isinstance(tensor, torch.nn.Parameter):
            return (tensor.ndim - 1,)  # rows of an embedding
        # Of an expert's matrix nobody tells which way round it is: all of it has one scale then.
        return (0,) if id(tensor) in self._inputs_first and tensor.ndim == MATRIX else tuple(range(1, tensor.ndim))

    def _drawn(self, tensor: torch.Tensor) -> torch.Tensor:
        """As many moves, with random signs."""
        drawn = torch.empty(tensor.shape, dtype=tensor.dtype)
        moves = self._moves[self._places.randrange(SIGNS) :]
        for part in drawn.view(-1).split(SIGNS):
            part.copy_(moves[: part.numel()])
        return drawn


@cache
def coarse(func: Any) -> bool:
    """Whether float32 does to this operation what moving its result does not model, even where its values are exact."""
    name = func._schema.name
    return name in _WAVES or _INTERPOLATION.match(name) is not None


def displaced(
    tensor: torch.Tensor, exact: torch.Tensor, narrow: torch.Tensor, signs: torch.Generator
) -> torch.Tensor:  # fmt: skip
    """An interpolation with its coordinates off: each place along an axis that it stretches has a sign of its own.

    Args:
        tensor: what is interpolated.
        exact: the result.
        narrow: the result of float32.
        signs: where signs come from.
    """
    stretched = [new if new != old else 1 for new, old in zip(exact.shape, tensor.shape, strict=True)]
    sign = torch.randint(0, 2, stretched, generator=signs, dtype=torch.float64).mul_(2).sub_(1)
    return exact + COORDINATES * sign * (narrow - exact)


@cache
def _rounds(func: Any) -> bool:
    return not (func.is_view or func._schema.is_mutable or func._schema.name in _EXACT)


@lru_cache(maxsize=1)
def _factors(precision: Precision, seed: int) -> torch.Tensor:
    """(2 SIGNS,): 1 +- what this precision rounds by, with random signs.

    They are there twice, so that as many follow whatever place one begins at.
    Drawing signs costs more than computing: they are drawn once, and every operation of every run reads them elsewhere.
    """
    unit = ACCUMULATION[precision.arithmetic] * UNIT_ROUND_OFF[precision.arithmetic]
    signs = torch.randint(0, 2, (SIGNS,), generator=torch.Generator().manual_seed(seed)).double()
    return signs.mul_(2 * unit).add_(1 - unit).repeat(2)


@lru_cache(maxsize=1)
def _moves(precision: Precision, seed: int) -> torch.Tensor:
    """(2 SIGNS,): what rounding takes from a weight, as a share of the largest of its output, with the same signs."""
    return torch.sign(_factors(precision, seed) - 1).mul_(STEP[precision] / math.sqrt(12))


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among an operator's arguments or results, those in lists included."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from (each for each in value if isinstance(each, torch.Tensor))
