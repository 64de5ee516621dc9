"""CLIP: images and captions in one space; judged are both embeddings and their similarities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assay.families.base import Config, Family, load_processor, picture, settings, text, texture
from assay.families.rates import rate
from assay.schema import Metric, Workload

if TYPE_CHECKING:
    import torch
    from transformers import CLIPConfig, PreTrainedConfig, PreTrainedModel

FULL = frozenset({"siglip"})
"""Text towers that pool at the last position: captions fill the tower, padding included, and there is no mask."""
LEGACY_END = 2
"""With this `eos_token_id` the text tower pools at the highest id of a row, which is the real end token."""


def captions(config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Captions as the text tower takes them: ended by the token at which it pools, or padded to its whole length."""
    if config.get("model_type") in FULL:
        return full_captions(config, workload, rng)
    tower = settings(config, "text_config", vocab_size=49408, eos_token_id=49407)
    end = tower["vocab_size"] - 1 if tower["eos_token_id"] == LEGACY_END else tower["eos_token_id"]
    return text(rng, workload, tower["vocab_size"], padding=0, end=end)


def full_captions(config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Captions for a tower that pools at its last position."""
    tower = settings(config, "text_config", vocab_size=32000, max_position_embeddings=64, pad_token_id=1)
    padding, length = tower["pad_token_id"], tower["max_position_embeddings"]
    words = text(rng, workload, tower["vocab_size"], padding=padding)["input_ids"][:, :length]
    return {"input_ids": np.pad(words, ((0, 0), (0, length - words.shape[1])), constant_values=padding)}


class Clip(Family):
    """The CLIP row."""

    id = "clip"
    title = "CLIP"
    kind = "vision"
    item = "images"
    graph = "dual-encoder"
    auto_class = "AutoModel"
    architectures = ("CLIPModel", "SiglipModel")
    modules = ("transformers.models.clip.modeling_clip",)
    outputs = ("text_embeds", "image_embeds", "logits_per_image")
    pairwise = ("logits_per_image",)
    dynamic = {
        "input_ids": {0: "captions", 1: "length"},
        "attention_mask": {0: "captions", 1: "length"},
        "pixel_values": {0: "images"},
    }
    sample = Workload(name="export", batch=2, length=9, padded=True)
    measured = Workload(name="batch-1", batch=1, length=16)
    challenges = (
        Workload(name="single", batch=1, length=16),
        Workload(name="padded", batch=3, length=13, padded=True),
        Workload(name="longer", batch=4, length=29, padded=True),
    )

    def config(self, size: str) -> CLIPConfig:
        """Two towers of two layers and width 64, 32-pixel images; base: those of clip-vit-base-patch32."""
        from transformers import CLIPConfig

        if size == "base":
            return CLIPConfig(architectures=["CLIPModel"])
        width = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        return CLIPConfig(
            text_config={
                **width, "vocab_size": 640, "max_position_embeddings": 40, "projection_dim": 32,
                "bos_token_id": 638, "eos_token_id": 639, "pad_token_id": 639,
            },
            vision_config={**width, "image_size": 32, "patch_size": 8, "projection_dim": 32},
            projection_dim=32, architectures=["CLIPModel"],
        )  # fmt: skip

    def save_processor(self, directory: Path, config: PreTrainedConfig) -> None:
        """An image processor of the vision tower's size and a BPE tokenizer."""
        from transformers import CLIPProcessor
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        edge = config.vision_config.image_size
        images = CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge})
        CLIPProcessor(images, clip_tokenizer(config)).save_pretrained(directory)

    def inputs(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """As many images as captions."""
        vision = settings(config, "vision_config", num_channels=3, image_size=224)
        shape = (workload.batch, vision["num_channels"], vision["image_size"], vision["image_size"])
        return {**captions(config, workload, rng), "pixel_values": texture(rng, *shape)}

    def forward(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Unit embeddings (captions, width) and (images, width), similarities (images, captions)."""
        found = model(**inputs)
        return {name: found[name] for name in self.outputs}

    def preprocessing(self, directory: Path, config: Config, rng: np.random.Generator) -> Callable[[], object]:
        """Resize, crop and normalise one image."""
        processor, raw = load_processor(directory), picture(rng)
        return lambda: processor(images=raw, return_tensors="np")

    def metrics(self, config: Config, workload: Workload, latency: Metric) -> dict[str, Metric]:
        """Images per second, each with one caption."""
        return {"images_per_second": rate(latency, workload.batch, "images/s")}


def clip_tokenizer(config: PreTrainedConfig) -> object:
    """CLIP's BPE, whose tokens mark the end of a word with `</w>`, with the configuration's special ids."""
    from transformers import CLIPTokenizer

    from assay.families.tokenizers import bytes_alphabet, merged, merges, numbered

    pairs = merges(after="</w>")
    vocabulary = numbered((*bytes_alphabet(), *(f"{each}</w>" for each in bytes_alphabet()), *merged(pairs)))
    size = config.text_config.vocab_size
    assert len(vocabulary) <= size - 2, "the vocabulary must leave room for the special tokens at its end"
    vocabulary |= {"<|startoftext|>": size - 2, "<|endoftext|>": size - 1}
    length = config.text_config.max_position_embeddings
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=length)


FAMILY = Clip()
