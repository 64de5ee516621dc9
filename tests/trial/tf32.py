"""TF32 where no processor has it: operands of matrix products and convolutions, rounded to its mantissa."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

DROPPED = 13
"""Bits of float32's mantissa that TF32 lacks: 23 less 10."""

OPERANDS = {
    **dict.fromkeys(("aten::linear", "aten::matmul", "aten::mm", "aten::bmm", "aten::convolution"), (0, 1)),
    **dict.fromkeys(("aten::conv1d", "aten::conv2d", "aten::conv3d"), (0, 1)),
    **dict.fromkeys(("aten::addmm", "aten::baddbmm"), (1, 2)),
    "aten::scaled_dot_product_attention": (0, 1, 2),
    "aten::einsum": (1,),
}
"""The arguments of an operator that are multiplied. What is added to the product stays float32, as the sums do."""


class Tf32(TorchDispatchMode):
    """Rounds what is multiplied to ten explicit bits of mantissa, as cuBLAS and cuDNN do where TF32 is allowed."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` on rounded operands, if it is a product."""
        if operands := OPERANDS.get(func.name().partition(".")[0]):
            args = tuple(_rounded(each) if place in operands else each for place, each in enumerate(args))
        return func(*args, **(kwargs or {}))


def _rounded(operand: Any) -> Any:
    """An operand, or a list of them."""
    return list(map(rounded, operand)) if isinstance(operand, list | tuple) else rounded(operand)


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    """To nearest, ties to even, in the bits of float32; of the tensor's own type."""
    bits = tensor.float().view(torch.int32)
    even = (bits >> DROPPED) & 1
    kept = (bits + (1 << (DROPPED - 1)) - 1 + even) & ~((1 << DROPPED) - 1)
    return kept.view(torch.float32).to(tensor.dtype)
