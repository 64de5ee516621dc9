"""Buckets of relative positions as a table that is looked up, not a logarithm that is computed anew.

T5 and its kin (WavLM and MPNet do the same) find the bucket of a distance with a logarithm, which transformers computes
in float32 whatever the model's precision is. In a graph it is arithmetic like any other: a runtime that is told bf16
rounds it, and a distance falls into its neighbour's bucket. A table of integers has nothing to round, and is less work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

METHODS = ("_relative_position_bucket", "_relative_positions_bucket", "relative_position_bucket")
"""How transformers' models name the function: distances in, int64 of any shape, their buckets out."""
REACH = 2048
"""Distances tried in both directions. Beyond a furthest one, 128 in T5 and 800 in WavLM, all are alike."""


def look_up_buckets(model: torch.nn.Module) -> bool:
    """Let every module of the model that has such a function look its buckets up; whether there is one.

    A table is made by the first call, which must not be a traced one.
    """
    found = [(module, name) for module in model.modules() for name in METHODS if hasattr(module, name)]
    for module, name in found:
        setattr(module, name, _Table(getattr(module, name)))
    return bool(found)


class _Table:
    """In place of one function. Where the last distances tried still differ it is asked itself."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        self._function = function
        self._tables: dict[Any, torch.Tensor | None] = {}

    def __call__(self, distances: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
        key = (others, tuple(sorted(named.items())))
        if key not in self._tables:
            buckets = self._function(torch.arange(-REACH, REACH + 1), *others, **named)
            ended = buckets[0] == buckets[REACH // 2] and buckets[-1] == buckets[-REACH // 2]
            self._tables[key] = buckets if ended else None
        table = self._tables[key]
        if table is None:
            return self._function(distances, *others, **named)
        return table[distances.clamp(-REACH, REACH) + REACH]
