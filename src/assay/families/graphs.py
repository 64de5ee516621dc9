"""What of a family's checkpoint is exported: one graph for one pass, and for decoders the graphs that keep a cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from assay.families.base import Family, Tensors
from assay.families.buckets import look_up_buckets
from assay.families.generation import KEEP, GeneratingFamily
from assay.families.module import load_pretrained
from assay.families.steps import ExportedSource, ExportedStep

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PAST = 5
"""Tokens in the cache of the sample: another number than of any other axis, so that none is taken for another."""


@dataclass(frozen=True)
class Graph:
    """A module, keyword tensors to trace it with, and for each of them the axes that vary, by name."""

    module: torch.nn.Module
    sample: Mapping[str, torch.Tensor]
    dynamic: Mapping[str, Mapping[int, str]]


def graphs(family: Family, directory: Path, sample: Tensors) -> dict[str, Graph]:
    """By file name: `model`, and `encoder` where the decoder attends to one.

    Args:
        family: the row.
        directory: a checkpoint.
        sample: inputs of one forward pass that the model takes, with padding where the family has a mask.
    """
    tensors = {name: torch.from_numpy(sample[name]) for name in family.dynamic if name in sample}
    if not isinstance(family, GeneratingFamily):
        return {"model": _whole(family.load(directory), tensors, {name: family.dynamic[name] for name in tensors})}
    model = load_pretrained(family, directory)
    look_up_buckets(model)
    if family.graph == "decoder":
        return {"model": _decoder(family, model, tensors)}
    source = {name: tensor for name, tensor in tensors.items() if name != family.target}
    encoder = Graph(ExportedSource(model), source, {name: family.dynamic[name] for name in source})
    return {"encoder": encoder, "model": _decoder(family, model, tensors, encoder)}


def _whole(
    module: torch.nn.Module, sample: Mapping[str, torch.Tensor], dynamic: Mapping[str, Mapping[int, str]]
) -> Graph:
    """One forward pass."""
    if look_up_buckets(module):
        with torch.no_grad():
            module(**sample)
    return Graph(module, sample, dynamic)


def _decoder(
    family: GeneratingFamily, model: PreTrainedModel, tensors: Mapping[str, torch.Tensor], encoder: Graph | None = None
) -> Graph:
    """The step: its sample has a cache, some new tokens, and a mask over both."""
    step = ExportedStep(family, model)
    axes = {family.target: dict(family.dynamic[family.target])}
    sample = {family.target: tensors[family.target]}
    if "attention_mask" in tensors:
        sample["attention_mask"] = tensors["attention_mask"]
        axes["attention_mask"] = {0: "batch", 1: "attended"}
    with torch.no_grad():
        if encoder:
            sample |= encoder.module(**encoder.sample)
        grown = step(**sample)
    past = {name.replace("present", "past"): tensor for name, tensor in grown.items() if name.startswith("present_")}
    sample |= {name: _noise(tensor[:, :, :PAST]) for name, tensor in past.items()}
    axes |= {name: {0: "batch", 2: "past"} for name in past}
    axes |= {name: {0: "batch", 2: "source"} for name in sample if name.startswith("cross_")}
    if not encoder:
        # The mask's padded rows stay: an all-ones mask would be dropped from the graph.
        sample["attention_mask"] = torch.nn.functional.pad(sample["attention_mask"].flip(1), (0, PAST), value=1)
        sample[KEEP] = torch.arange(2)
        axes[KEEP] = {0: "kept"}
    return Graph(step, sample, axes)


def _noise(tensor: torch.Tensor) -> torch.Tensor:
    values = np.random.default_rng(0).standard_normal(tuple(tensor.shape), dtype=np.float32)
    return torch.from_numpy(values).to(tensor.dtype)
