"""X-CLIP: videos and captions in one space; judged are both embeddings and their similarities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.families.base import Config, Family, load_processor, picture, settings, text, texture
from assay.families.rates import rate
from assay.schema import Metric, Workload

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, XCLIPConfig

_VISION: dict[str, Any] = {"num_channels": 3, "image_size": 224, "num_frames": 8}


class XClip(Family):
    """The XCLIP row."""

    id = "xclip"
    title = "XCLIP"
    kind = "vision"
    item = "clips"
    graph = "dual-encoder"
    auto_class = "AutoModel"
    architectures = ("XCLIPModel",)
    modules = ("transformers.models.x_clip.modeling_x_clip",)
    outputs = ("text_embeds", "video_embeds", "logits_per_video")
    pairwise = ("text_embeds", "logits_per_video")
    dynamic = {
        "input_ids": {0: "captions", 1: "length"},
        "attention_mask": {0: "captions", 1: "length"},
        "pixel_values": {0: "videos"},
    }
    sample = Workload(name="export", batch=2, length=9, padded=True)
    measured = Workload(name="batch-1", batch=1, length=16)
    challenges = (
        Workload(name="single", batch=1, length=16),
        Workload(name="padded", batch=3, length=13, padded=True),
        Workload(name="longer", batch=4, length=29, padded=True),
    )

    def config(self, size: str) -> XCLIPConfig:
        """Towers of two layers and width 64 over four frames of 32 pixels; base: those of xclip-base-patch32."""
        from transformers import XCLIPConfig

        if size == "base":
            return XCLIPConfig(architectures=["XCLIPModel"])
        width = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        return XCLIPConfig(
            text_config={
                **width, "vocab_size": 640, "max_position_embeddings": 40,
                "bos_token_id": 638, "eos_token_id": 639, "pad_token_id": 639,
            },
            vision_config={
                **width, "image_size": 32, "patch_size": 8, "num_frames": 4, "mit_hidden_size": 32,
                "mit_intermediate_size": 64, "mit_num_hidden_layers": 1, "mit_num_attention_heads": 4,
            },
            projection_dim=32, prompt_num_attention_heads=4, architectures=["XCLIPModel"],
        )  # fmt: skip

    def save_processor(self, directory: Path, config: PreTrainedConfig) -> None:
        """A video processor of the vision tower's size and CLIP's tokenizer."""
        from transformers import XCLIPProcessor
        from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

        from assay.families.clip import clip_tokenizer

        edge = config.vision_config.image_size
        frames = VideoMAEImageProcessorPil(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge})
        XCLIPProcessor(frames, clip_tokenizer(config)).save_pretrained(directory)

    def inputs(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """As many videos as captions; the number of frames is the configuration's."""
        vocabulary = settings(config, "text_config", vocab_size=49408)["vocab_size"]
        vision = settings(config, "vision_config", **_VISION)
        shape = (vision["num_frames"], vision["num_channels"], vision["image_size"], vision["image_size"])
        return {
            # The text tower always pools at the highest id, whatever the configuration's eos_token_id.
            **text(rng, workload, vocabulary, padding=0, end=vocabulary - 1),
            "pixel_values": texture(rng, workload.batch, *shape),
        }

    def forward(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Unit embeddings (videos, captions, width) and (videos, width), similarities (videos, captions)."""
        found = model(**inputs)
        return {name: found[name] for name in self.outputs}

    def preprocessing(self, directory: Path, config: Config, rng: np.random.Generator) -> Callable[[], object]:
        """Resize, crop and normalise the frames of one video."""
        frames = settings(config, "vision_config", **_VISION)["num_frames"]
        processor, raw = load_processor(directory), [picture(rng) for _ in range(frames)]
        return lambda: processor(videos=raw, return_tensors="np")

    def metrics(self, config: Config, workload: Workload, latency: Metric) -> dict[str, Metric]:
        """Clips per second, each with one caption, and frames per second."""
        frames = settings(config, "vision_config", **_VISION)["num_frames"]
        return {
            "clips_per_second": rate(latency, workload.batch, "clips/s"),
            "frames_per_second": rate(latency, workload.batch * frames, "frames/s"),
        }


FAMILY = XClip()
