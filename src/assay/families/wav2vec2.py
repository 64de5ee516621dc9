"""WAV2VEC2: speech recognition from the raw waveform; judged are the CTC logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assay.families.base import (
    Config,
    Family,
    Tensors,
    heads,
    load_processor,
    load_tokenizer,
    waveform,
)
from assay.families.rates import of_sound
from assay.schema import Metric, Workload

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, Wav2Vec2Config

RATE = 16_000
"""Samples a second: what every checkpoint of these is trained on; its `config.json` does not say."""


class Wav2Vec2(Family):
    """The WAV2VEC2 row."""

    id = "wav2vec2"
    title = "WAV2VEC2"
    kind = "audio"
    item = "clips"
    graph = "encoder"
    auto_class = "AutoModelForCTC"
    architectures = heads(("Wav2Vec2", "Hubert", "WavLM", "UniSpeechSat", "Data2VecAudio", "SEW"), ("ForCTC",))
    modules = ("transformers.models.wav2vec2.modeling_wav2vec2",)
    outputs = ("logits",)
    dynamic = {"input_values": {0: "batch", 1: "samples"}}
    sample = Workload(name="export", batch=2, seconds=0.4)
    measured = Workload(name="batch-1", batch=1, seconds=1.0)
    challenges = (
        Workload(name="single", batch=1, seconds=1.0),
        Workload(name="batch", batch=3, seconds=0.35),
        Workload(name="longer", batch=4, seconds=1.3),
    )

    def config(self, size: str) -> Wav2Vec2Config:
        """The published strides on seven convolutions of 32 channels, two layers of width 64; base: wav2vec2-base."""
        from transformers import Wav2Vec2Config

        if size == "base":
            return Wav2Vec2Config(architectures=["Wav2Vec2ForCTC"])
        return Wav2Vec2Config(
            vocab_size=32, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
            conv_dim=(32,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, architectures=["Wav2Vec2ForCTC"],
        )  # fmt: skip

    def save_processor(self, directory: Path, config: PreTrainedConfig) -> None:
        """A feature extractor that normalises the waveform, and a tokenizer of letters."""
        import json
        import string
        import tempfile

        from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

        from assay.families.tokenizers import numbered

        vocabulary = numbered(("<pad>", "<s>", "</s>", "<unk>", "|", "'", *string.ascii_uppercase))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "vocab.json"  # this tokenizer takes its vocabulary from a file alone
            file.write_text(json.dumps(vocabulary), encoding="utf-8")
            tokenizer = Wav2Vec2CTCTokenizer(str(file))
        extractor = Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True, return_attention_mask=False)
        Wav2Vec2Processor(extractor, tokenizer).save_pretrained(directory)

    def inputs(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Normalised sound of one length; no mask, as with the base models' own feature extractor."""
        return {"input_values": waveform(rng, workload.batch, workload.seconds, RATE)}

    def lengths(self, config: Config) -> tuple[Workload, ...]:
        """Two, four and eight seconds."""
        seconds = self.measured.seconds
        return tuple(self.measured.model_copy(update={"seconds": times * seconds}) for times in (2, 4, 8))

    def forward(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Logits of characters, (batch, frames, vocabulary)."""
        return {"logits": model(**inputs).logits}

    def transcript(self, directory: Path, outputs: Tensors) -> str:
        """The likeliest character of every frame, repetitions and blanks taken out: greedy CTC decoding."""
        return str(load_tokenizer(directory).decode(outputs["logits"][0].argmax(axis=-1)))

    def preprocessing(self, directory: Path, config: Config, rng: np.random.Generator) -> Callable[[], object]:
        """Normalise the measured workload's seconds of sound."""
        processor, raw = load_processor(directory), waveform(rng, 1, self.measured.seconds, RATE)[0]
        return lambda: processor(raw, sampling_rate=RATE, return_tensors="np")

    def metrics(self, config: Config, workload: Workload, latency: Metric) -> dict[str, Metric]:
        """Real-time factor and its inverse."""
        return of_sound(latency, workload.batch * workload.seconds)


FAMILY = Wav2Vec2()
