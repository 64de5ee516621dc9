"""LLAMA: a causal decoder with rotary positions; judged are logits of a forward pass and of decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from assay.families.base import Config, Tensors, heads, load_tokenizer, sentence, settings, text
from assay.families.generation import FORCED_TOKENS, GeneratingFamily, left_padded
from assay.schema import Workload

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel


DECODERS = (
    "Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Gemma3", "Phi", "Phi3", "SmolLM3", "Olmo2", "Granite",
)  # fmt: skip
"""Decoders with rotary positions, RMS or layer norms and gated or plain feed-forward layers."""


class Llama(GeneratingFamily):
    """The LLAMA row."""

    id = "llama"
    title = "LLAMA"
    kind = "generation"
    graph = "decoder"
    auto_class = "AutoModelForCausalLM"
    architectures = heads(DECODERS, ("ForCausalLM",))
    modules = ("transformers.models.llama.modeling_llama",)
    outputs = ("logits",)
    dynamic = {"input_ids": {0: "batch", 1: "length"}, "attention_mask": {0: "batch", 1: "length"}}
    sample = Workload(name="export", batch=2, length=9, padded=True)
    measured = Workload(name="batch-1", batch=1, length=16)
    challenges = (
        Workload(name="single", batch=1, length=16),
        Workload(name="padded", batch=3, length=13, padded=True),
        Workload(name="longer", batch=4, length=37, padded=True),
    )
    target = "input_ids"
    forced = Workload(name="forced", batch=3, length=7, new_tokens=FORCED_TOKENS, padded=True)
    decoded = Workload(name="decode", batch=1, length=16, new_tokens=FORCED_TOKENS)
    vocab_size: ClassVar[int] = 32000
    """The class default of `vocab_size`, for configurations that leave it out."""

    def config(self, size: str) -> PreTrainedConfig:
        """Two layers of width 64, two query heads to a key head; base: those of TinyLlama-1.1B."""
        from transformers import LlamaConfig

        if size == "base":
            return LlamaConfig(
                hidden_size=2048, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
                intermediate_size=5632, max_position_embeddings=2048, rms_norm_eps=1e-5,
                architectures=["LlamaForCausalLM"],
            )  # fmt: skip
        return LlamaConfig(
            vocab_size=512, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=128, max_position_embeddings=128, architectures=["LlamaForCausalLM"],
        )  # fmt: skip

    def save_processor(self, directory: Path, config: PreTrainedConfig) -> None:
        """A BPE tokenizer with byte fallback, whose tokens mark the beginning of a word."""
        from transformers import LlamaTokenizer

        from assay.families.tokenizers import CHARACTERS, merged, merges, numbered

        pairs = merges(before="▁")
        fallback = (f"<0x{byte:02X}>" for byte in range(256))
        vocabulary = numbered(("<unk>", "<s>", "</s>", *fallback, "▁", *CHARACTERS, *merged(pairs)))
        LlamaTokenizer(vocab=vocabulary, merges=pairs, model_max_length=128).save_pretrained(directory)

    def inputs(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Random tokens, padded on the right, where no query is left without a key; prompts are padded on the left."""
        size, (padding, *_) = self.vocabulary(config)
        return text(rng, workload, size, padding=padding)

    def prompt(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Random tokens, padded on the left."""
        return left_padded(self.inputs(config, workload, rng))

    def vocabulary(self, config: Config) -> tuple[int, tuple[int | None, ...]]:
        """The whole vocabulary but padding: an end token in a prompt ends nothing."""
        decoder = settings(config, vocab_size=self.vocab_size, pad_token_id=None)
        return decoder["vocab_size"], (decoder["pad_token_id"],)

    def forward(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Next-token logits, (batch, length, vocabulary); a row's positions count from its first real token."""
        from assay.families.steps import positions

        return {"logits": model(**inputs, position_ids=positions(inputs["attention_mask"]), use_cache=False).logits}

    def masks(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """Padding means nothing."""
        return {"logits": inputs["attention_mask"].astype(bool)}

    def preprocessing(self, directory: Path, config: Config, rng: np.random.Generator) -> Callable[[], object]:
        """Tokenize one prompt."""
        tokenizer, raw = load_tokenizer(directory), sentence(rng)
        return lambda: tokenizer(raw, return_tensors="np")


FAMILY = Llama()
