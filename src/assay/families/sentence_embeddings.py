"""Sentence Embeddings: a text encoder, pooled and normalised as the folder's sentence-transformers modules say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from assay.errors import UsageError
from assay.families.base import Config, Family, heads, load_tokenizer, sentence, settings, text
from assay.families.bert import TOWERS
from assay.families.rates import rate
from assay.schema import Metric, Precision, Workload

if TYPE_CHECKING:
    import torch
    from transformers import BertConfig, PreTrainedConfig, PreTrainedModel

_MODULES = "modules.json"
_MODES: Mapping[str, Literal["mean", "cls", "max"]] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True)
class Pooling:
    """How the states of a sentence's tokens become one vector."""

    mode: Literal["mean", "cls", "max"] = "mean"
    normalise: bool = True

    @classmethod
    def of(cls, directory: Path) -> Pooling:
        """What `modules.json` and the pooling module's `config.json` say; the mean, normalised, where they are absent.

        Raises:
            UsageError: a module or a mode of pooling that this row does not know.
        """
        if not (directory / _MODULES).is_file():
            return cls()
        try:
            modules = {each["type"].rpartition(".")[2]: each["path"] for each in _read(directory / _MODULES)}
        except (TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"{directory / _MODULES}: is no list of modules with type and path") from error
        if unknown := sorted(set(modules) - {"Transformer", "Pooling", "Normalize"}):
            raise UsageError(f"{directory / _MODULES}: the module {unknown[0]} is not supported")
        mode = _mode(directory / modules["Pooling"] / "config.json") if "Pooling" in modules else "mean"
        return cls(mode, "Normalize" in modules)


def _mode(file: Path) -> Literal["mean", "cls", "max"]:
    config = _read(file)
    if not isinstance(config, dict):
        raise UsageError(f"{file}: is no configuration of pooling")
    if name := config.get("pooling_mode"):  # newer files name it, older ones have a flag a mode
        found = [name]
    else:
        flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        found = [_MODES.get(flag, flag) for flag in flags]
    if len(found) != 1 or found[0] not in _MODES.values():
        raise UsageError(f"{file}: pooling by {', '.join(found) or 'nothing'}; this row knows mean, cls and max")
    mode: Literal["mean", "cls", "max"] = found[0]
    return mode


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error


class SentenceEmbeddings(Family):
    """The Sentence Embeddings row; `load` returns a module whose family has the checkpoint's own pooling."""

    id = "sentence-embeddings"
    title = "Sentence Embeddings"
    kind = "embeddings"
    item = "vectors"
    graph = "encoder"
    auto_class = "AutoModel"
    model_options = {"add_pooling_layer": False}
    architectures = heads(TOWERS, ("Model", "ForMaskedLM"))
    modules = ("transformers.models.bert.modeling_bert",)
    outputs = ("sentence_embedding",)
    dynamic = {"input_ids": {0: "batch", 1: "length"}, "attention_mask": {0: "batch", 1: "length"}}
    sample = Workload(name="export", batch=2, length=9, padded=True)
    measured = Workload(name="batch-1", batch=1, length=16)
    challenges = (
        Workload(name="single", batch=1, length=16),
        Workload(name="padded", batch=3, length=13, padded=True),
        Workload(name="longer", batch=4, length=37, padded=True),
    )

    def __init__(self, pooling: Pooling | None = None) -> None:
        self.pooling = pooling or Pooling()

    def load(
        self, directory: Path, *, attention: str | None = None, precision: Precision = Precision.F32
    ) -> torch.nn.Module:
        """The encoder with the pooling that its folder describes."""
        from assay.families.module import JudgedModule, load_pretrained

        model = load_pretrained(self, directory, attention, precision)
        return JudgedModule(SentenceEmbeddings(Pooling.of(directory)), model)

    def accept(self, config: Config, directory: Path) -> None:
        """Refuse other architectures and unknown kinds of pooling."""
        super().accept(config, directory)
        Pooling.of(directory)

    def claim(self, config: Config, directory: Path) -> int:
        """A sentence-transformers folder says so itself, and BERT's architectures alone do not."""
        return 3 * super().claim(config, directory) if (directory / _MODULES).is_file() else 0

    def config(self, size: str) -> BertConfig:
        """Two layers of width 64; base: those of all-MiniLM-L6-v2."""
        from transformers import BertConfig

        if size == "base":
            return BertConfig(
                hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
                architectures=["BertModel"],
            )  # fmt: skip
        return BertConfig(
            vocab_size=512, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=128, max_position_embeddings=128, architectures=["BertModel"],
        )  # fmt: skip

    def save_processor(self, directory: Path, config: PreTrainedConfig) -> None:
        """A WordPiece tokenizer and the files of a sentence-transformers folder: mean pooling, normalised."""
        from transformers import BertTokenizer

        from assay.families.tokenizers import wordpiece

        BertTokenizer(vocab=wordpiece(), model_max_length=128).save_pretrained(directory)
        paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
        modules = [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (kind, path) in enumerate(paths.items())
        ]
        pooling = {"word_embedding_dimension": config.hidden_size} | {
            flag: mode == "mean" for flag, mode in _MODES.items()
        }
        (directory / "1_Pooling").mkdir()
        for name, content in (
            (_MODULES, modules),
            ("1_Pooling/config.json", pooling),
            ("sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False}),
        ):
            (directory / name).write_text(json.dumps(content, indent=2), encoding="utf-8")

    def inputs(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Random tokens, right padding."""
        bert = settings(config, vocab_size=30522, pad_token_id=0)
        return text(rng, workload, bert["vocab_size"], padding=bert["pad_token_id"])

    def forward(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One vector a sentence, (batch, width)."""
        import torch

        states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        if self.pooling.mode == "cls":
            vector = states[:, 0]
        elif self.pooling.mode == "max":
            vector = states.masked_fill(mask == 0, torch.finfo(states.dtype).min).amax(1)
        else:
            weights = mask.to(states.dtype)
            vector = (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        if self.pooling.normalise:
            vector = torch.nn.functional.normalize(vector, dim=-1)
        return {"sentence_embedding": vector}

    def preprocessing(self, directory: Path, config: Config, rng: np.random.Generator) -> Callable[[], object]:
        """Tokenize one sentence."""
        tokenizer, raw = load_tokenizer(directory), sentence(rng)
        return lambda: tokenizer(raw, truncation=True, return_tensors="np")

    def metrics(self, config: Config, workload: Workload, latency: Metric) -> dict[str, Metric]:
        """Vectors per second, their dimension, and what one of them takes in float32, as it is handed over."""
        dimension = settings(config, hidden_size=768)["hidden_size"]
        return {
            "vectors_per_second": rate(latency, workload.batch, "vectors/s"),
            "dimension": Metric(value=dimension, unit="dimensions", better="neither"),
            "memory_per_vector": Metric(value=4 * dimension, unit="B"),
        }


FAMILY = SentenceEmbeddings()
