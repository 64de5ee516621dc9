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
    started = time.perf_counter()
    answer = np.asarray(engine.prefill(prompt)["logits"])
    first, steps = time.perf_counter() - started, []
    batch, vocabulary = answer.shape
    tokens = np.empty((batch, count), np.int64)
    logits = np.empty((batch, count + 1, vocabulary), answer.dtype)
    logits[:, 0] = answer  # a copy: the engine may use its buffer again
    before = engine.cache_size()
    for number in range(count):
        given = logits[:, number].argmax(axis=-1) if forced is None else forced[:, number]
        tokens[:, number] = given
        started = time.perf_counter()
        answer = np.asarray(engine.step(given)["logits"])
        steps.append(time.perf_counter() - started)
        logits[:, number + 1] = answer
    grown = (engine.cache_size() - before) / (count * batch)
    engine.reset()
    return Decoded(tokens, logits, first, steps, grown)
