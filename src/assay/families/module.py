"""A family's checkpoint as one torch module with named outputs: what is exported, run and referred to."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from assay.errors import UsageError, listed
from assay.families.base import Family


class JudgedModule(torch.nn.Module):
    """Keyword tensors in, the family's judged outputs out; the pretrained model is `model`."""

    def __init__(self, family: Family, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.family = family
        self.config = model.config  # transformers' exporter asks for it

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """One forward pass."""
        return self.family.forward(self.model, inputs)


def load_pretrained(family: Family, directory: Path, attention: str | None) -> PreTrainedModel:
    """Load with the family's auto class: safetensors only, no remote code, nothing invented."""
    options = dict(family.model_options)
    if attention is not None:
        options["attn_implementation"] = attention
    model, info = getattr(transformers, family.auto_class).from_pretrained(
        directory,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    if missing := sorted(info["missing_keys"]):
        raise UsageError(
            f"{directory}: {len(missing)} tensors that {type(model).__name__} needs are missing: {listed(missing)}"
        )
    loaded: PreTrainedModel = model.eval()
    return loaded
