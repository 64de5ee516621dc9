"""The reference: a checkpoint in transformers' eager code on the CPU in true float64, and its noise floor.

The noise floor says how much this very model amplifies rounding: every weight and the
result of every operation is moved relatively by +-u (the unit round-off of the precision), and the
change of the outputs is what honest arithmetic of that precision may look like. The idea of judging by a
float64 run is that of PyTorch's dynamo benchmarks (`same()` with `fp64_ref`); the perturbation is
the discrete stochastic arithmetic of Vignes (CESTAC) with random signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.evidence.case import KEPT
from assay.evidence.float64 import Exact, TrueFloat64, float64_default, widened
from assay.evidence.layers import Expected, watched
from assay.evidence.rounding import MATRIX, perturbation
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
        return self._run_all(calls, TrueFloat64(), Exact())

    def watched(self, inputs: Tensors, precision: Precision, seed: int) -> tuple[Outputs, Outputs, Expected]:
        """Outputs, the noise around them, (draws, *shape), and both for every module of the network."""
        with watched() as seen:
            exact = self.outputs(inputs)
        runs, draws = [], []
        for draw in range(DRAWS):
            with watched() as moved:
                runs += self._perturbed([inputs], precision, seed, draw)
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
        runs = [self._perturbed(inputs, precision, seed, draw) for draw in range(draws)]
        return [
            {name: np.stack([run[index][name] for run in runs]) for name in self._outputs}
            for index in range(len(inputs))
        ]

    def _perturbed(self, inputs: Sequence[Tensors], precision: Precision, seed: int, draw: int) -> list[Outputs]:
        moved = perturbation(precision, seed, draw, self._inputs_first)
        signs = torch.Generator().manual_seed(seed + draw)
        return self._run_all(inputs, TrueFloat64(coarse=signs), moved)

    @cached_property
    def _inputs_first(self) -> frozenset[int]:
        """The identities of the matrices that are (in, out)."""
        return frozenset(
            id(parameter)
            for owner in self.module.modules()
            for name, parameter in owner.named_parameters(recurse=False)
            if inputs_first(owner, name)
        )

    def uses(self, array: np.ndarray, inputs: Tensors) -> bool:
        """Whether the outputs change with other numbers in every tensor that holds these; not if none does.

        Tensors are found by their content: names change between a checkpoint and the model that loads it. Integers
        are put in another order: others in their place may be indices that lead nowhere.
        """
        state = self.module.state_dict()
        holders = [tensor for tensor in state.values() if np.array_equal(tensor.numpy(), array)]
        if not holders:
            return False
        before = self.outputs(inputs)
        originals = [tensor.clone() for tensor in holders]
        try:
            for tensor in holders:
                other = 1 + torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
                tensor.copy_(other if tensor.is_floating_point() else tensor.flatten().roll(1).view(tensor.shape))
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
