"""WHISPER: an encoder-decoder of speech; judged are the decoder's logits, teacher-forced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.families.base import (
    Config,
    Family,
    load_processor,
    rate,
    real_time_factor,
    settings,
    texture,
    token_ids,
    waveform,
)
from assay.schema import Metric, Workload

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, WhisperConfig

RATE = 16_000
"""Samples a second of every Whisper checkpoint."""
FRAMES_PER_SECOND = 100
"""Spectrogram frames a second; the encoder halves them."""
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 51865, "num_mel_bins": 80, "max_source_positions": 1500, "decoder_start_token_id": 50257,
    "pad_token_id": 50256, "eos_token_id": 50256,
}  # fmt: skip


def _seconds(config: Config) -> float:
    """The window that the encoder always takes in full."""
    return float(2 * settings(config, **_DEFAULTS)["max_source_positions"] / FRAMES_PER_SECOND)


class Whisper(Family):
    """The WHISPER row."""

    id = "whisper"
    title = "WHISPER"
    kind = "audio"
    graph = "encoder-decoder"
    auto_class = "AutoModelForSpeechSeq2Seq"
    architectures = ("WhisperForConditionalGeneration",)
    modules = ("transformers.models.whisper.modeling_whisper",)
    outputs = ("logits",)
    dynamic = {"input_features": {0: "batch"}, "decoder_input_ids": {0: "batch", 1: "decoder_length"}}
    sample = Workload(name="export", batch=2, decoder_length=5)
    measured = Workload(name="batch-1", batch=1, decoder_length=8)
    challenges = (
        Workload(name="single", batch=1, decoder_length=8),
        Workload(name="batch", batch=3, decoder_length=4),
        Workload(name="longer", batch=4, decoder_length=19),
    )

    def config(self, size: str) -> WhisperConfig:
        """Two layers of width 64 a side, on windows of two seconds."""
        from transformers import WhisperConfig

        return WhisperConfig(
            vocab_size=512, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, num_mel_bins=80,
            max_source_positions=100, max_target_positions=64, pad_token_id=0, bos_token_id=0, eos_token_id=0,
            decoder_start_token_id=1, begin_suppress_tokens=None, architectures=["WhisperForConditionalGeneration"],
        )  # fmt: skip

    def save_processor(self, directory: Path, config: PreTrainedConfig) -> None:
        """A log-mel extractor of the encoder's window, and a byte-level BPE tokenizer."""
        from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer

        from assay.families.tokenizers import bytes_alphabet, merged, merges, numbered

        pairs = merges(before="Ġ")
        special = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
        vocabulary = numbered((*special, *bytes_alphabet(), *merged(pairs)))
        tokenizer = WhisperTokenizer(
            vocab=vocabulary, merges=pairs, additional_special_tokens=list(special[1:]), model_max_length=64
        )
        window = round(_seconds(config.to_dict()))
        extractor = WhisperFeatureExtractor(feature_size=80, sampling_rate=RATE, chunk_length=window)
        WhisperProcessor(extractor, tokenizer).save_pretrained(directory)

    def inputs(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Spectrograms of the encoder's whole window, in the extractor's range; target tokens after the start."""
        whisper = settings(config, **_DEFAULTS)
        features = texture(rng, workload.batch, whisper["num_mel_bins"], 2 * whisper["max_source_positions"])
        avoid = (whisper["pad_token_id"], whisper["eos_token_id"])
        target = token_ids(rng, whisper["vocab_size"], (workload.batch, workload.decoder_length), avoid)
        target[:, 0] = whisper["decoder_start_token_id"]
        return {"input_features": np.float32(0.5) * features, "decoder_input_ids": target}

    def forward(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Next-token logits, (batch, decoder length, vocabulary)."""
        return {"logits": model(**inputs, use_cache=False).logits}

    def preprocessing(self, directory: Path, config: Config, rng: np.random.Generator) -> Callable[[], object]:
        """Log-mel spectrogram of one window of sound."""
        processor, raw = load_processor(directory), waveform(rng, 1, _seconds(config), RATE)[0]
        return lambda: processor(raw, sampling_rate=RATE, return_tensors="np")

    def metrics(self, config: Config, workload: Workload, latency: Metric) -> dict[str, Metric]:
        """Real-time factor of a window with its teacher-forced tokens, and seconds of sound per second."""
        seconds = workload.batch * _seconds(config)
        return {
            "real_time_factor": real_time_factor(latency, seconds),
            "audio_seconds_per_second": rate(latency, seconds, "s/s"),
        }


FAMILY = Whisper()
