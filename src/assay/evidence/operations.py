"""How much work a call is: operations by torch's own formulas, and the bytes that a step of decoding reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from assay.evidence.float64 import Exact, TrueFloat64, float64_default, widened
from assay.evidence.reference import Reference
from assay.evidence.rounding import MATRIX
from assay.families.base import Tensors
from assay.families.generation import GeneratingFamily, grown
from assay.families.steps import stepper


class Counting(Exact):
    """Counts the operations of matrix products, convolutions and attentions; a product of a sum is two.

    Attributes:
        operations: so far.
        parameters: numbers of every parameter that an operation has read, by the parameter's identity; of a table that
            rows are looked up in, of these rows.
        matrices: the identities of those among them that have rows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.parameters: dict[int, int] = {}
        self.matrices: set[int] = set()

    def parameter(self, tensor: torch.Tensor) -> torch.Tensor:
        """As it is, its numbers counted."""
        self.parameters[id(tensor)] = tensor.numel()
        if tensor.ndim >= MATRIX:
            self.matrices.add(id(tensor))
        return super().parameter(tensor)

    def result(self, func: Any, arguments: Sequence[Any], result: Any) -> Any:
        """As it is, counted."""
        from torch.utils.flop_counter import flop_registry

        if formula := flop_registry.get(func.overloadpacket):
            self.operations += int(formula(*arguments, out_val=result))
        return result


def counted(reference: Reference, inputs: Tensors) -> tuple[dict[str, np.ndarray], int]:
    """The outputs of a forward pass, and the operations that they took."""
    counting = Counting()
    return reference.run(inputs, TrueFloat64(), counting), counting.operations


@dataclass(frozen=True)
class DecodingWork:
    """What decoding takes.

    Attributes:
        prefill: operations of a prefill.
        read: numbers that the step reads: of every parameter that it uses, and of the cache; activations, which stay
            in the processor's caches, are left out.
        matrices: numbers of weight matrices among them.
    """

    prefill: int
    read: int
    matrices: int


def decoding_work(reference: Reference, family: GeneratingFamily, prompt: Tensors) -> DecodingWork:
    """Count a prefill of this prompt and the step after it."""
    steps = stepper(family, reference.module.model)
    inputs = {name: torch.from_numpy(array) for name, array in widened(prompt).items()}
    first, step = Counting(), Counting()
    with float64_default(), torch.no_grad(), TrueFloat64():
        with first:
            cache, logits = steps.prefill(inputs, torch.tensor([inputs[family.target].shape[1] - 1]))
        inputs[family.target] = logits[:, -1].argmax(-1, keepdim=True)
        if family.target == "input_ids":
            inputs["attention_mask"] = torch.from_numpy(grown(prompt["attention_mask"], 1))
        with step:
            steps.advance(cache, inputs, torch.tensor([0]))
    matrices = sum(step.parameters[each] for each in step.matrices)
    return DecodingWork(first.operations, sum(step.parameters.values()) + _numbers(cache), matrices)


def _numbers(cache: Any) -> int:
    """Of all keys and values, those of the source included."""
    parts = [getattr(cache, name, None) for name in ("self_attention_cache", "cross_attention_cache")]
    layers = [layer for part in (parts if parts[0] is not None else [cache]) if part for layer in part.layers]
    return sum(layer.keys.numel() + layer.values.numel() for layer in layers)
