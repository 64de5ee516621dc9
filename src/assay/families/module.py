"""A family's checkpoint as one torch module with named outputs: what is exported, run and referred to."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from assay.errors import UsageError, listed
from assay.families.base import ACCEPTS, Family
from assay.schema import Precision

DTYPES = {Precision.F32: torch.float32, Precision.BF16: torch.bfloat16, Precision.F16: torch.float16}
"""By the precision of the arithmetic."""

# Transformers compiles a thousand patterns before its first load; a process that is forked from here finds them.
get_checkpoint_conversion_mapping("bert")

MATRIX = 2


class JudgedModule(torch.nn.Module):
    """Keyword tensors in, the family's judged outputs out; the pretrained model is `model`.

    `extra` names the checkpoint's tensors that the model has no place for.
    """

    def __init__(self, family: Family, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.family = family
        self.config = model.config  # transformers' exporter asks for it
        self.extra: tuple[str, ...] = tuple(getattr(model, "unexpected", ()))

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """One forward pass."""
        return self.family.forward(self.model, inputs)


def describe(family: Family, directory: Path) -> dict[str, Any]:
    """A checkpoint's configuration as transformers reads it, and under `ACCEPTS` what its model's forward takes.

    Raises:
        UsageError: transformers does not know the configuration, or has no such model for it.
    """
    config = _configuration(directory)
    described: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    described |= {alias: described[name] for alias, name in config.attribute_map.items() if name in described}
    return described | {ACCEPTS: _parameters(_model_class(family, config, directory).forward)}


def _configuration(directory: Path) -> PreTrainedConfig:
    try:
        return transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{directory}: transformers cannot read config.json: {reason}") from error


def _model_class(family: Family, config: PreTrainedConfig, directory: Path) -> type[PreTrainedModel]:
    known = getattr(transformers, family.auto_class)._model_mapping
    if type(config) not in known:
        raise UsageError(f"{directory}: {family.auto_class} has no model for a {type(config).__name__}")
    classes = known[type(config)]
    found: type[PreTrainedModel] = classes[0] if isinstance(classes, tuple) else classes
    return found


def _parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def load_pretrained(
    family: Family, directory: Path, attention: str | None = None, precision: Precision = Precision.F32
) -> PreTrainedModel:
    """Load with the family's auto class: safetensors only, no remote code, nothing invented."""
    config = _configuration(directory)
    taken = _parameters(_model_class(family, config, directory).__init__)
    options = {name: value for name, value in family.model_options.items() if name in taken}
    if attention is not None:
        options["attn_implementation"] = attention
    model, info = getattr(transformers, family.auto_class).from_pretrained(
        directory,
        dtype=DTYPES[precision],
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # only to name them below
        **options,
    )
    if mismatched := sorted(info["mismatched_keys"]):
        name, found, wanted = mismatched[0]
        raise UsageError(
            f"{directory}: {len(mismatched)} tensors do not have the shape that config.json gives them: "
            f"{name} is {tuple(found)}, not {tuple(wanted)}"
        )
    if missing := sorted(info["missing_keys"]):
        raise UsageError(
            f"{directory}: {len(missing)} tensors that {type(model).__name__} needs are missing: {listed(missing)}"
        )
    model.unexpected = sorted(info["unexpected_keys"])
    loaded: PreTrainedModel = model.eval()
    return loaded


def kept_wide(model: PreTrainedModel, precision: Precision) -> int:
    """How many of its matrices transformers keeps in float32 when it loads this model in that precision.

    A model says so itself (`_keep_in_fp32_modules`): at f16 T5 keeps the second matrix of each feed-forward block,
    whose products overflow.
    """
    kept = [re.compile(name.replace("*", ".*")) for name in model._get_dtype_plan(DTYPES[precision.arithmetic])]
    return sum(
        parameter.ndim == MATRIX and any(each.search(name) for each in kept)
        for name, parameter in model.named_parameters()
    )
