"""What generating families share: prompts, tokens to go on with, and the forward pass that judges them.

The harness decodes the same way on every backend: a prompt once (`prefill`), then one token a sequence at a
time (`step`). What it decoded is judged by one forward pass of the reference over prompt and tokens together,
which needs no cache.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np

from assay.families.base import Config, Family, Tensors, load_tokenizer, token_ids
from assay.families.rates import rate
from assay.schema import Metric, Workload

KEEP = "logits_to_keep"
"""The exported decoder's input that names the tokens whose logits are wanted."""
FORCED_TOKENS = 32
"""Tokens of the judged sequences, beside the prompt."""


class GeneratingFamily(Family):
    """A row whose models decode with a key/value cache.

    Class attributes:
        target: the input that grows by one token a step: `input_ids` of a decoder, `decoder_input_ids` where an
            encoder reads the source.
        forced: the judged sequences: prompts of different lengths, and tokens drawn from the seed.
        decoded: the batch-1 workload whose steps are timed: a prompt, and tokens that the model chooses.
    """

    item = "tokens"
    target: ClassVar[str]
    forced: ClassVar[Workload]
    decoded: ClassVar[Workload]

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """Those of one forward pass, and those that decode."""
        return (*super().workloads, self.forced, self.decoded)

    @abstractmethod
    def prompt(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Inputs of a prefill; the next token of every row follows its last one."""

    @abstractmethod
    def vocabulary(self, config: Config) -> tuple[int, tuple[int | None, ...]]:
        """The number of token ids, and those that are never drawn (padding, end)."""

    def tokens(self, config: Config, workload: Workload, rng: np.random.Generator) -> np.ndarray:
        """Tokens to be forced upon a decoder, int64 of shape (batch, new tokens)."""
        size, avoid = self.vocabulary(config)
        return token_ids(rng, size, (workload.batch, workload.new_tokens), avoid)

    def extended(self, prompt: Tensors, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs of the forward pass over a prompt and the tokens after it, (batch, n).

        Its logits from position `prompt length - 1` on are those of prefill and steps.
        """
        whole = dict(prompt) | {self.target: np.concatenate((prompt[self.target], tokens), axis=1)}
        if self.target == "input_ids":
            whole["attention_mask"] = grown(prompt["attention_mask"], tokens.shape[1])
        return whole

    def transcript(self, directory: Path, outputs: Tensors) -> str:
        """The text of `tokens`, (batch, n), special ones included: a random model writes them anywhere."""
        return str(load_tokenizer(directory).decode(outputs["tokens"][0]))

    def metrics(self, config: Config, workload: Workload, latency: Metric) -> dict[str, Metric]:
        """None of one pass: what users wait for is decoding."""
        return {}

    def decoding_metrics(
        self, config: Config, first: Metric, each: Metric, cache_bytes_per_token: float
    ) -> dict[str, Metric]:
        """Standard metrics of generation, from the times of a prefill and of a step of the `decoded` workload."""
        workload = self.decoded
        prompt = workload.batch * workload.length  # of an encoder-decoder, the source
        return {
            "time_to_first_token": first,
            "time_per_output_token": each,
            "decode_tokens_per_second": rate(each, workload.batch, "tokens/s"),
            "prefill_tokens_per_second": rate(first, prompt, "tokens/s"),
            "cache_bytes_per_token": Metric(value=cache_bytes_per_token, unit="B"),
        }


def grown(mask: np.ndarray, columns: int) -> np.ndarray:
    """An attention mask, (batch, length), with room for that many more tokens."""
    return np.concatenate((mask, np.ones((len(mask), columns), mask.dtype)), axis=1)


def left_padded(tensors: Tensors) -> dict[str, np.ndarray]:
    """Random rows padded on the right, turned around: padded on the left, as decoders take prompts."""
    return {name: np.ascontiguousarray(array[:, ::-1]) for name, array in tensors.items()}
