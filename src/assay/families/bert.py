"""BERT: a bidirectional text encoder; the judged output is the last hidden state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assay.families.base import Config, Family, Tensors, heads, load_tokenizer, sentence, settings, text
from assay.families.rates import rate
from assay.schema import Metric, Workload

if TYPE_CHECKING:
    import torch
    from transformers import BertConfig, PreTrainedConfig, PreTrainedModel


TOWERS = (
    "Bert", "Roberta", "DistilBert", "ModernBert", "XLMRoberta", "MPNet", "Electra", "Albert", "Camembert", "DebertaV2",
)  # fmt: skip
HEADS = (
    "Model", "ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification",
    "ForQuestionAnswering",
)  # fmt: skip
"""A head is left out: what is judged is the encoder."""


class Bert(Family):
    """The BERT row."""

    id = "bert"
    title = "BERT"
    kind = "text"
    item = "sentences"
    graph = "encoder"
    auto_class = "AutoModel"
    model_options = {"add_pooling_layer": False}
    architectures = heads(TOWERS, HEADS)
    modules = ("transformers.models.bert.modeling_bert",)
    outputs = ("last_hidden_state",)
    dynamic = {
        "input_ids": {0: "batch", 1: "length"},
        "attention_mask": {0: "batch", 1: "length"},
        "token_type_ids": {0: "batch", 1: "length"},
    }
    sample = Workload(name="export", batch=2, length=9, padded=True)
    measured = Workload(name="batch-1", batch=1, length=16)
    challenges = (
        Workload(name="single", batch=1, length=16),
        Workload(name="padded", batch=3, length=13, padded=True),
        Workload(name="longer", batch=4, length=37, padded=True),
    )

    def config(self, size: str) -> BertConfig:
        """Two layers of width 64; base: those of bert-base-uncased."""
        from transformers import BertConfig

        if size == "base":
            return BertConfig(architectures=["BertModel"])
        return BertConfig(
            vocab_size=512, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=128, max_position_embeddings=128, architectures=["BertModel"],
        )  # fmt: skip

    def save_processor(self, directory: Path, config: PreTrainedConfig) -> None:
        """A WordPiece tokenizer."""
        from transformers import BertTokenizer

        from assay.families.tokenizers import wordpiece

        BertTokenizer(vocab=wordpiece(), model_max_length=128).save_pretrained(directory)

    def inputs(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Random tokens, all segments, right padding."""
        bert = settings(config, vocab_size=30522, pad_token_id=0, type_vocab_size=2)
        tensors = text(rng, workload, bert["vocab_size"], padding=bert["pad_token_id"])
        segments = rng.integers(0, max(1, bert["type_vocab_size"]), size=tensors["input_ids"].shape, dtype=np.int64)
        return {**tensors, "token_type_ids": segments}

    def forward(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The encoder's last hidden state, (batch, length, width)."""
        return {"last_hidden_state": model(**inputs).last_hidden_state}

    def masks(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """Padding means nothing."""
        return {"last_hidden_state": inputs["attention_mask"].astype(bool)}

    def preprocessing(self, directory: Path, config: Config, rng: np.random.Generator) -> Callable[[], object]:
        """Tokenize one sentence."""
        tokenizer, raw = load_tokenizer(directory), sentence(rng)
        return lambda: tokenizer(raw, truncation=True, return_tensors="np")

    def metrics(self, config: Config, workload: Workload, latency: Metric) -> dict[str, Metric]:
        """Sentences and tokens per second."""
        return {
            "sentences_per_second": rate(latency, workload.batch, "sentences/s"),
            "tokens_per_second": rate(latency, workload.batch * workload.length, "tokens/s"),
        }


FAMILY = Bert()
