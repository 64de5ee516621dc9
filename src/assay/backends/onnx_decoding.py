"""Decoding with exported graphs, whatever runtime keeps the cache: the encoder once a sequence, then steps."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from assay.backends.base import Engine, Tensors
from assay.families.generation import KEEP, GeneratingFamily, grown


class DecodingEngine(Engine):
    """Whole passes, prefills and steps over a decoder graph; a runtime says how a sequence begins and goes on."""

    def __init__(self, family: GeneratingFamily) -> None:
        self._target = family.target
        self._mask: np.ndarray | None = None
        self._next = np.empty((0, 1), np.int64)

    @abstractmethod
    def begin(self, batch: int, source: Tensors) -> Tensors:
        """An empty cache for a batch; where there is an encoder, it reads the source.

        Returns:
            What the encoder's graph answers beside the keys and values of the source: nothing, unless it is watched.
        """

    @abstractmethod
    def decode(self, feed: Tensors) -> Tensors:
        """`logits` of these tokens, (batch, kept, vocabulary), and what else the graph answers that is no cache.

        The cache grows by all of these tokens.
        """

    def run(self, inputs: Tensors) -> Tensors:
        """One pass over all tokens, from an empty cache that is dropped again."""
        outputs = self._first(inputs, np.arange(inputs[self._target].shape[1]))
        self.reset()
        return outputs

    def prefill(self, inputs: Tensors) -> Tensors:
        """The prompt at once."""
        return {"logits": self._first(inputs, np.array([inputs[self._target].shape[1] - 1]))["logits"][:, -1]}

    def step(self, tokens: np.ndarray) -> Tensors:
        """One token a sequence."""
        if self._target == "input_ids" and self._mask is not None:
            self._mask = grown(self._mask, 1)
        # In the array of the step before: a runtime that reads it there need not be told anew.
        if len(self._next) != len(tokens):
            self._next = np.empty((len(tokens), 1), np.int64)
        self._next[:, 0] = tokens
        return {"logits": self.decode(self._feed(self._next, _ONLY))["logits"][:, -1]}

    def _first(self, inputs: Tensors, keep: np.ndarray) -> Tensors:
        self.reset()
        tokens = inputs[self._target]
        self._mask = inputs.get("attention_mask")
        watched = self.begin(len(tokens), inputs)
        return {**watched, **self.decode(self._feed(tokens, keep))}

    def _feed(self, tokens: np.ndarray, keep: np.ndarray) -> Tensors:
        feed = {self._target: np.ascontiguousarray(tokens), KEEP: keep}
        return feed if self._mask is None else feed | {"attention_mask": self._mask}


_ONLY = np.array([0])
