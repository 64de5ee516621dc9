"""CLAP: sounds and captions in one space; judged are both embeddings and their similarities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assay.errors import UsageError
from assay.families.base import (
    Config,
    Family,
    load_processor,
    settings,
    text,
    texture,
    waveform,
)
from assay.families.rates import of_sound, rate
from assay.schema import Metric, Workload

if TYPE_CHECKING:
    import torch
    from transformers import ClapConfig, PreTrainedConfig, PreTrainedModel

RATE = 48_000
"""Samples a second of every CLAP checkpoint."""
SECONDS = 10
"""The window of its feature extractor, and the frames of a window (hops of 480 samples, both ends counted)."""
FRAMES = 1001


class Clap(Family):
    """The CLAP row."""

    id = "clap"
    title = "CLAP"
    kind = "audio"
    item = "clips"
    graph = "dual-encoder"
    auto_class = "AutoModel"
    model_options = {"attn_implementation": "eager"}  # its audio tower has no other
    architectures = ("ClapModel",)
    modules = ("transformers.models.clap.modeling_clap",)
    outputs = ("text_embeds", "audio_embeds", "logits_per_audio")
    pairwise = ("logits_per_audio",)
    dynamic = {
        "input_ids": {0: "captions", 1: "length"},
        "attention_mask": {0: "captions", 1: "length"},
        "input_features": {0: "sounds"},
    }
    sample = Workload(name="export", batch=2, length=9, seconds=SECONDS, padded=True)
    measured = Workload(name="batch-1", batch=1, length=16, seconds=SECONDS)
    challenges = (
        Workload(name="single", batch=1, length=16, seconds=SECONDS),
        Workload(name="padded", batch=3, length=13, seconds=SECONDS, padded=True),
        Workload(name="longer", batch=4, length=29, seconds=SECONDS, padded=True),
    )

    def config(self, size: str) -> ClapConfig:
        """A text tower of width 64, an audio tower of two stages, 16 and 32 wide; base: those of clap-htsat-unfused."""
        from transformers import ClapConfig

        if size == "base":
            return ClapConfig(architectures=["ClapModel"])
        return ClapConfig(
            text_config={
                "vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                "intermediate_size": 128, "max_position_embeddings": 66, "pad_token_id": 1,
            },
            audio_config={
                "patch_size": 16, "patch_stride": [16, 16], "patch_embeds_hidden_size": 16, "hidden_size": 32,
                "depths": [2, 2], "num_attention_heads": [2, 4], "num_hidden_layers": 2,
            },
            projection_dim=32, architectures=["ClapModel"],
        )  # fmt: skip

    def accept(self, config: Config, directory: Path) -> None:
        """Refuse other architectures, and audio towers that fuse several spectrograms of long sounds."""
        super().accept(config, directory)
        if settings(config, "audio_config", enable_fusion=False)["enable_fusion"]:
            raise UsageError(f"{directory}: the CLAP row takes unfused checkpoints; config.json sets enable_fusion")

    def save_processor(self, directory: Path, config: PreTrainedConfig) -> None:
        """A mel extractor without fusion, and RoBERTa's byte-level BPE tokenizer."""
        from transformers import ClapFeatureExtractor, ClapProcessor, RobertaTokenizer

        from assay.families.tokenizers import bytes_alphabet, merged, merges, numbered

        pairs = merges(before="Ġ")
        special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
        vocabulary = numbered((*special, *bytes_alphabet(), *merged(pairs)))
        extractor = ClapFeatureExtractor(
            sampling_rate=RATE, max_length_s=SECONDS, truncation="rand_trunc", frequency_min=50
        )
        tokenizer = RobertaTokenizer(vocab=vocabulary, merges=pairs, model_max_length=64)
        ClapProcessor(extractor, tokenizer).save_pretrained(directory)

    def inputs(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """As many sounds as captions; spectrograms in decibels, (batch, 1, frames, mel bins)."""
        words = settings(config, "text_config", vocab_size=50265, pad_token_id=1)
        audio = settings(config, "audio_config", num_mel_bins=64, spec_size=256)
        frames = min(FRAMES, audio["spec_size"] * (audio["spec_size"] // audio["num_mel_bins"]))
        decibels = texture(rng, workload.batch, 1, frames, audio["num_mel_bins"])
        decibels *= 20
        captions = text(rng, workload, words["vocab_size"], padding=words["pad_token_id"])
        return {**captions, "input_features": decibels}

    def forward(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Unit embeddings (captions, width) and (sounds, width), similarities (sounds, captions)."""
        found = model(**inputs)
        return {name: found[name] for name in self.outputs}

    def preprocessing(self, directory: Path, config: Config, rng: np.random.Generator) -> Callable[[], object]:
        """Mel spectrogram of one window of sound."""
        processor, raw = load_processor(directory), waveform(rng, 1, SECONDS, RATE)[0]
        return lambda: processor(audio=raw, sampling_rate=RATE, return_tensors="np")

    def metrics(self, config: Config, workload: Workload, latency: Metric) -> dict[str, Metric]:
        """Real-time factor, its inverse, and clips per second, each with one caption."""
        clips = {"clips_per_second": rate(latency, workload.batch, "clips/s")}
        return of_sound(latency, workload.batch * SECONDS) | clips


FAMILY = Clap()
