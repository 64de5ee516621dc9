"""T5: an encoder-decoder of text; judged are the decoder's logits, teacher-forced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assay.families.base import WORDS, Config, heads, load_tokenizer, sentence, settings, text, token_ids
from assay.families.generation import FORCED_TOKENS, GeneratingFamily
from assay.schema import Workload

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, T5Config


class T5(GeneratingFamily):
    """The T5 row."""

    id = "t5"
    title = "T5"
    kind = "generation"
    graph = "encoder-decoder"
    auto_class = "AutoModelForSeq2SeqLM"
    architectures = (
        *heads(("T5", "MT5", "UMT5", "Bart", "MBart", "Pegasus"), ("ForConditionalGeneration",)),
        "T5WithLMHeadModel", "MarianMTModel",
    )  # fmt: skip
    modules = ("transformers.models.t5.modeling_t5",)
    outputs = ("logits",)
    dynamic = {
        "input_ids": {0: "batch", 1: "length"},
        "attention_mask": {0: "batch", 1: "length"},
        "decoder_input_ids": {0: "batch", 1: "decoder_length"},
    }
    sample = Workload(name="export", batch=2, length=9, decoder_length=5, padded=True)
    measured = Workload(name="batch-1", batch=1, length=16, decoder_length=8)
    challenges = (
        Workload(name="single", batch=1, length=16, decoder_length=8),
        Workload(name="padded", batch=3, length=13, decoder_length=4, padded=True),
        Workload(name="longer", batch=4, length=37, decoder_length=11, padded=True),
    )
    target = "decoder_input_ids"
    forced = Workload(name="forced", batch=3, length=12, decoder_length=1, new_tokens=FORCED_TOKENS, padded=True)
    decoded = Workload(name="decode", batch=1, length=16, decoder_length=1, new_tokens=FORCED_TOKENS)

    def config(self, size: str) -> T5Config:
        """Two layers of width 64 a side; base: those of t5-small."""
        from transformers import T5Config

        if size == "base":
            return T5Config(decoder_start_token_id=0, architectures=["T5ForConditionalGeneration"])
        return T5Config(
            vocab_size=256, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, architectures=["T5ForConditionalGeneration"],
        )  # fmt: skip

    def save_processor(self, directory: Path, config: PreTrainedConfig) -> None:
        """A unigram tokenizer: words cost less than their characters."""
        from transformers import T5Tokenizer

        from assay.families.tokenizers import CHARACTERS

        special = (("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0))
        pieces = (("▁", -4.0), *((f"▁{word}", -3.0) for word in WORDS))
        characters = ((character, -5.0) for character in CHARACTERS)
        sentinels = ((f"<extra_id_{number}>", 0.0) for number in reversed(range(100)))
        vocabulary = [*special, *pieces, *characters, *sentinels]
        T5Tokenizer(vocab=vocabulary, model_max_length=128).save_pretrained(directory)

    def inputs(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Random source and target tokens; every target begins with the decoder's start token."""
        size, (padding, end) = self.vocabulary(config)
        source = text(rng, workload, size, padding=padding, end=end)
        target = token_ids(rng, size, (workload.batch, workload.decoder_length), (padding, end))
        start = settings(config, decoder_start_token_id=None)["decoder_start_token_id"]
        target[:, 0] = padding if start is None else start
        return {**source, "decoder_input_ids": target}

    def prompt(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A source, and the decoder's start token."""
        return self.inputs(config, workload, rng)

    def vocabulary(self, config: Config) -> tuple[int, tuple[int | None, ...]]:
        """The whole vocabulary but padding and end."""
        t5 = settings(config, vocab_size=32128, pad_token_id=0, eos_token_id=1)
        return t5["vocab_size"], (t5["pad_token_id"], t5["eos_token_id"])

    def forward(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Next-token logits, (batch, decoder length, vocabulary)."""
        return {"logits": model(**inputs, use_cache=False).logits}

    def preprocessing(self, directory: Path, config: Config, rng: np.random.Generator) -> Callable[[], object]:
        """Tokenize one source sentence."""
        tokenizer, raw = load_tokenizer(directory), sentence(rng)
        return lambda: tokenizer(raw, return_tensors="np")


FAMILY = T5()
