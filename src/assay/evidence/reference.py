"""The reference: a checkpoint in transformers' eager code on the CPU in true float64, and its noise floor.

The noise floor says how much this very model amplifies rounding: every weight and the
result of every operation is moved relatively by +-u (the unit round-off of the precision), and the
change of the outputs is what honest arithmetic of that precision may look like. The idea of judging by a
float64 run is that of PyTorch's dynamo benchmarks (`same()` with `fp64_ref`); the perturbation is
the discrete stochastic arithmetic of Vignes (CESTAC) with random signs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.evidence.case import KEPT
from assay.evidence.float64 import Exact, TrueFloat64, float64_default, widened
from assay.evidence.layers import Expected, watched
from assay.evidence.rounding import MATRIX, perturbation
from assay.evidence.tape import Tape
from assay.families.base import Family, Tensors
from assay.families.module import kept_wide
from assay.schema import Precision
from assay.weights import inputs_first

DRAWS = 4
"""Perturbed runs for one floor."""

Outputs = dict[str, np.ndarray]


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
        return [exact for exact, _ in self._run_all(calls, [])]

    def watched(self, inputs: Tensors, precision: Precision, seed: int) -> tuple[Outputs, Outputs, Expected]:
        """Outputs, the noise around them, (draws, *shape), and both for every module of the network."""
        with watched() as seen:
            exact = self.outputs(inputs)
        runs, draws = [], []
        for draw in range(DRAWS):
            with watched() as moved:
                runs.append(self.run(inputs, TrueFloat64(), self._perturbation(precision, seed, draw)))
            draws.append(moved.layers())
        noise = {name: np.stack([run[name] for run in runs]) for name in self._outputs}
        return exact, noise, Expected.of(seen.layers(), draws)

    def run(self, inputs: Tensors, mode: TrueFloat64, arithmetic: Exact) -> Outputs:
        """The outputs under these modes."""
        return _arrays(self._pass(inputs, mode, arithmetic))

    def _pass(self, inputs: Tensors, mode: TrueFloat64, arithmetic: Exact) -> dict[str, torch.Tensor]:
        tensors = {name: torch.from_numpy(array) for name, array in widened(inputs).items()}
        for tensor in tensors.values():
            if tensor.is_floating_point():
                arithmetic.inexact(tensor)
        with float64_default(), torch.no_grad(), arithmetic, mode:
            found = self.module(**tensors)
        return {name: found[name] for name in self._outputs}

    def with_noise(
        self, calls: Sequence[Tensors], precision: Precision, seed: int, draws: int = DRAWS
    ) -> list[tuple[Outputs, Outputs]]:
        """The outputs of every call, and under perturbation, an array (draws, *output shape) by output name, if any."""
        runs = self._run_all(calls, [self._perturbation(precision, seed, draw) for draw in range(draws)])
        return [
            (exact, {name: np.stack([run[name] for run in moved]) for name in exact if moved}) for exact, moved in runs
        ]

    def noise(
        self, calls: Sequence[Tensors], precision: Precision, seed: int, draws: int = DRAWS
    ) -> list[Outputs]:  # fmt: skip
        """The second of `with_noise`."""
        return [noise for _, noise in self.with_noise(calls, precision, seed, draws)]

    def _run_all(
        self, calls: Sequence[Tensors], arithmetics: Sequence[Exact]
    ) -> list[tuple[Outputs, list[Outputs]]]:  # fmt: skip
        """Every call's outputs, and those in each arithmetic.

        Calls of equal shapes are one batch: what a pass costs beside its arithmetic is then paid once.
        """
        found: dict[int, list[Outputs]] = {index: [] for index in range(len(calls))}
        for alike in _alike(calls):
            batch = {name: np.concatenate([calls[index][name] for index in alike]) for name in calls[alike[0]]}
            for outputs in self._runs(batch, arithmetics):
                for place, index in enumerate(alike):
                    found[index].append({
                        name: _part(array, place, len(alike), pairwise=name in self._pairwise)
                        for name, array in outputs.items()
                    })  # fmt: skip
        return [(exact, moved) for exact, *moved in found.values()]

    def _runs(self, inputs: Tensors, arithmetics: Sequence[Exact]) -> Iterator[Outputs]:
        """The outputs, and then those in each arithmetic; the model is asked once, if its operations are the same."""
        tape = Tape()
        outputs = self._pass(inputs, tape.mode, tape)
        tape.end(outputs)
        yield _arrays(outputs)
        for arithmetic in arithmetics:
            if tape.whole:
                with float64_default(), torch.no_grad():
                    yield _arrays(tape.again(arithmetic))
            else:
                yield self.run(inputs, TrueFloat64(), arithmetic)

    def _perturbation(self, precision: Precision, seed: int, draw: int) -> Exact:
        return perturbation(precision, seed, draw, self._inputs_first)

    @cached_property
    def _inputs_first(self) -> frozenset[int]:
        """The identities of the matrices that are (in, out)."""
        return frozenset(
            id(parameter)
            for owner in self.module.modules()
            for name, parameter in owner.named_parameters(recurse=False)
            if inputs_first(owner, name)
        )

    def unused(self, arrays: Mapping[str, np.ndarray], inputs: Tensors) -> set[str]:
        """The names of those arrays that the outputs do not depend on, whatever the tensors that hold them are made of.

        Tensors are found by their content: names change between a checkpoint and the model that loads it.
        """
        if not arrays:
            return set()
        before = self.outputs(inputs)
        holders = {name: self._holders(array) for name, array in arrays.items()}

        def idle(names: Iterable[str]) -> bool:
            with _others(tensor for name in names for tensor in holders[name]):
                after = self.outputs(inputs)
            return all(np.array_equal(after[name], before[name]) for name in before)

        # All of them at once: mostly nothing depends on any.
        return set(arrays) if idle(arrays) else {name for name in arrays if idle([name])}

    def _holders(self, array: np.ndarray) -> list[torch.Tensor]:
        return [tensor for tensor in self.module.state_dict().values() if np.array_equal(tensor.numpy(), array)]


@contextmanager
def _others(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Other numbers in these tensors; integers in another order, for others in their place may lead nowhere."""
    held = {id(tensor): tensor for tensor in tensors}
    originals = {key: tensor.clone() for key, tensor in held.items()}
    try:
        for tensor in held.values():
            other = 1 + torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            tensor.copy_(other if tensor.is_floating_point() else tensor.flatten().roll(1).view(tensor.shape))
        yield
    finally:
        for key, tensor in held.items():
            tensor.copy_(originals[key])


def _arrays(outputs: Mapping[str, torch.Tensor]) -> Outputs:
    return {name: tensor.numpy() for name, tensor in outputs.items()}


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
