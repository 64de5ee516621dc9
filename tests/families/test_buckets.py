"""Buckets of relative positions: the table says what transformers computes, and no logarithm is left in a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests import zoo

from assay import checkpoints, families
from assay.backends.onnx_export import exported
from assay.families import graphs as exported_graphs
from assay.families.base import Family, accepted
from assay.families.buckets import METHODS, REACH, look_up_buckets
from assay.families.graphs import graphs

DISTANCES = torch.arange(-3 * REACH, 3 * REACH)
KIN = ["MT5ForConditionalGeneration", "UMT5ForConditionalGeneration", "WavLMForCTC", "MPNetModel"]


@pytest.mark.parametrize("architecture", KIN)
def test_a_model_answers_as_before(architecture: str, tmp_path: Path) -> None:
    folder = zoo.write(architecture, tmp_path)
    family = families.load(zoo.ARCHITECTURES[architecture][0])
    module = family.load(folder)
    drawn = family.inputs(family.describe(folder), family.challenges[-1], np.random.default_rng(0))
    inputs = {name: torch.from_numpy(array) for name, array in accepted(family.describe(folder), drawn).items()}
    with torch.no_grad():
        before = module(**inputs)
        assert look_up_buckets(module)
        after = module(**inputs)
    assert all(torch.equal(before[name], after[name]) for name in before)


def bidirectional(distances: torch.Tensor, buckets: int = 32, furthest: int = 128) -> torch.Tensor:
    from transformers.models.t5.modeling_t5 import T5Attention

    return T5Attention._relative_position_bucket(distances, True, buckets, furthest)


class Bucketed(torch.nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        setattr(self, METHODS[0], function)


@pytest.mark.parametrize("function", [bidirectional, torch.abs], ids=["t5", "without an end"])
def test_a_distance_beyond_all_that_were_tried_has_its_bucket(function: object) -> None:
    module = Bucketed(function)
    expected = getattr(module, METHODS[0])(DISTANCES)
    assert look_up_buckets(module)
    assert torch.equal(getattr(module, METHODS[0])(DISTANCES), expected)


@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (320, 800)], ids=["T5", "WavLM"])
def test_a_function_is_asked_once(buckets: int, furthest: int) -> None:
    asked = []

    def function(distances: torch.Tensor) -> torch.Tensor:
        asked.append(distances)
        return bidirectional(distances, buckets, furthest)

    module = Bucketed(function)
    look_up_buckets(module)
    for _ in range(2):
        getattr(module, METHODS[0])(DISTANCES)
    assert len(asked) == 1


def operators(family: Family) -> set[str]:
    """Of all graphs that are exported of the family's own checkpoint."""
    checkpoint = checkpoints.local(family.id)
    sample = family.inputs(family.describe(checkpoint.path), family.sample, np.random.default_rng(0))
    found = graphs(family, checkpoint.path, sample).values()
    return {node.op_type for graph in found for node in exported(graph).graph.all_nodes()}


def test_no_runtime_is_given_a_logarithm_to_round(monkeypatch: pytest.MonkeyPatch) -> None:
    family = families.load("t5")
    assert "Log" not in operators(family)
    monkeypatch.setattr(exported_graphs, "look_up_buckets", lambda model: False)
    assert "Log" in operators(family)
