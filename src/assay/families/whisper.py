"""WHISPER: an encoder-decoder of speech; judged are the decoder's logits, teacher-forced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.families.base import (
    Config,
    load_processor,
    settings,
    texture,
    token_ids,
    waveform,
)
from assay.families.generation import FORCED_TOKENS, GeneratingFamily
from assay.families.rates import of_sound, together
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


class Whisper(GeneratingFamily):
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
    target = "decoder_input_ids"
    forced = Workload(name="forced", batch=3, decoder_length=3, new_tokens=FORCED_TOKENS)
    decoded = Workload(name="decode", batch=1, decoder_length=4, new_tokens=FORCED_TOKENS)

    def config(self, size: str) -> WhisperConfig:
        """Two layers of width 64 a side, on windows of two seconds; base: those of whisper-tiny."""
        from transformers import WhisperConfig

        if size == "base":
            return WhisperConfig(
                d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6, decoder_attention_heads=6,
                encoder_ffn_dim=1536, decoder_ffn_dim=1536, decoder_start_token_id=50258, pad_token_id=50257,
                bos_token_id=50257, eos_token_id=50257, architectures=["WhisperForConditionalGeneration"],
            )  # fmt: skip
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
        size, avoid = self.vocabulary(config)
        target = token_ids(rng, size, (workload.batch, workload.decoder_length), avoid)
        target[:, 0] = whisper["decoder_start_token_id"]
        return {"input_features": np.float32(0.5) * features, "decoder_input_ids": target}

    def prompt(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A window of sound, the start token, and tokens where a transcription names language and task."""
        return self.inputs(config, workload, rng)

    def vocabulary(self, config: Config) -> tuple[int, tuple[int | None, ...]]:
        """The whole vocabulary but padding and end."""
        whisper = settings(config, **_DEFAULTS)
        return whisper["vocab_size"], (whisper["pad_token_id"], whisper["eos_token_id"])

    def forward(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Next-token logits, (batch, decoder length, vocabulary)."""
        return {"logits": model(**inputs, use_cache=False).logits}

    def preprocessing(self, directory: Path, config: Config, rng: np.random.Generator) -> Callable[[], object]:
        """Log-mel spectrogram of one window of sound."""
        processor, raw = load_processor(directory), waveform(rng, 1, _seconds(config), RATE)[0]
        return lambda: processor(raw, sampling_rate=RATE, return_tensors="np")

    def decoding_metrics(
        self, config: Config, first: Metric, each: Metric, cache_bytes_per_token: float
    ) -> dict[str, Metric]:
        """With the real-time factor: a window through the encoder, its first token and all that follow."""
        figures = super().decoding_metrics(config, first, each, cache_bytes_per_token)
        del figures["prefill_tokens_per_second"]  # the encoder takes the time, not the few prompt tokens
        whole = together(first, each, self.decoded.new_tokens - 1)
        return of_sound(whole, self.decoded.batch * _seconds(config)) | figures


FAMILY = Whisper()
