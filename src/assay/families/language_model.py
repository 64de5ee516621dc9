"""Language Model: any causal language model, GPT-2 as the test model; judged like LLAMA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assay.families.llama import Llama

if TYPE_CHECKING:
    from transformers import GPT2Config, PreTrainedConfig


class LanguageModel(Llama):
    """The Language Model row."""

    id = "language-model"
    title = "Language Model"
    architectures = ("GPT2LMHeadModel", "*ForCausalLM", "*LMHeadModel")
    modules = ("transformers.models.gpt2.modeling_gpt2",)
    vocab_size = 50257

    def config(self, size: str) -> GPT2Config:
        """Two layers of width 64; base: those of gpt2."""
        from transformers import GPT2Config

        if size == "base":
            return GPT2Config(architectures=["GPT2LMHeadModel"])
        return GPT2Config(
            vocab_size=512, n_embd=64, n_layer=2, n_head=4, n_positions=128,
            bos_token_id=0, eos_token_id=0, architectures=["GPT2LMHeadModel"],
        )  # fmt: skip

    def save_processor(self, directory: Path, config: PreTrainedConfig) -> None:
        """A byte-level BPE tokenizer."""
        from transformers import GPT2Tokenizer

        from assay.families.tokenizers import bytes_alphabet, merged, merges, numbered

        pairs = merges(before="Ġ")
        vocabulary = numbered(("<|endoftext|>", *bytes_alphabet(), *merged(pairs)))
        GPT2Tokenizer(vocab=vocabulary, merges=pairs, model_max_length=128).save_pretrained(directory)


FAMILY = LanguageModel()
