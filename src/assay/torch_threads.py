"""Torch's threads, and what one of them has to do before several compute."""

from __future__ import annotations

VECTOR_FUNCTIONS = (
    "acos", "asin", "atan", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "expm1", "lgamma", "log", "log10", "log1p",
    "log2", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip
"""Functions of one number that torch may leave to the vector functions of oneMKL."""


def use_threads(count: int) -> None:
    """Have torch compute on so many threads, and make the first call of every vector function on this one alone.

    oneMKL looks for the kernel of a vector function when it is called first. Where several threads call it at once one
    of them may compute its share of that call, and of no other, with a kernel of low accuracy (pytorch/pytorch#188792):
    the first `tanh` of a process is then wrong, in one process of thousands (`python -m tests.first_calls`).
    """
    import torch

    torch.set_num_threads(count)
    for dtype in (torch.float32, torch.float64):
        one = torch.full((1,), 0.5, dtype=dtype)
        for name in VECTOR_FUNCTIONS:
            getattr(torch, name)(one)
