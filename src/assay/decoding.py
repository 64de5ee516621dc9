"""The loop that decodes: the same on every backend, so that its times and its tokens mean the same everywhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from assay.backends.base import Engine, Tensors


@dataclass(frozen=True)
class Decoded:
    """A prompt and n tokens after it.

    Attributes:
        tokens: int64, (batch, n).
        logits: those that prefill and steps gave, (batch, n + 1, vocabulary).
        first: seconds of the prefill.
        steps: seconds of each step.
        cache: bytes by which the cache grew for each token of one sequence.
    """

    tokens: np.ndarray
    logits: np.ndarray
    first: float
    steps: list[float]
    cache: float


def decode(engine: Engine, prompt: Tensors, count: int, forced: np.ndarray | None = None) -> Decoded:
    """Prefill, then `count` steps; the clock stops when logits are on the host.

    Args:
        engine: one that decodes.
        prompt: inputs of a prefill.
        count: tokens after the prompt.
        forced: these tokens, (batch, count); without them each next one is the likeliest.
    """
    engine.reset()
    chosen: list[np.ndarray] = []
    started = time.perf_counter()
    logits = [np.array(engine.prefill(prompt)["logits"])]
    first = time.perf_counter() - started
    before, steps = engine.cache_size(), []
    for number in range(count):
        tokens = logits[-1].argmax(axis=-1) if forced is None else forced[:, number]
        started = time.perf_counter()
        answer = np.asarray(engine.step(tokens)["logits"])
        steps.append(time.perf_counter() - started)
        logits.append(np.array(answer))  # the engine may use its buffer again
        chosen.append(tokens)
    grown = (engine.cache_size() - before) / (count * len(logits[0]))
    engine.reset()
    return Decoded(np.stack(chosen, axis=1), np.stack(logits, axis=1), first, steps, grown)
