"""Every architecture of the wide rows: found, loaded, fed with what it takes, and honest within the bound."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import zoo

from assay import checkpoints, families
from assay.challenge import Challenges
from assay.errors import UsageError
from assay.evidence.case import Answer
from assay.evidence.reference import Reference
from assay.families.base import ACCEPTS, fit
from assay.schema import Precision


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
def test_an_architecture_finds_its_row_and_is_judged_there(architecture: str, tmp_path: Path) -> None:
    row = zoo.ARCHITECTURES[architecture][0]
    folder = zoo.write(architecture, tmp_path)
    assert checkpoints.row(checkpoints.find(str(folder))) == row
    family, path = families.load(row), checkpoints.opened(row, folder).path
    challenges = Challenges(family, family.describe(path), "0a")
    workload, inputs = list(challenges.shapes())[1]  # the padded one
    assert set(inputs) <= set(family.dynamic)
    reference, module = Reference(family, path), family.load(path)
    expected, (noise,) = reference.outputs(inputs), reference.noise([inputs], Precision.F32, seed=1)

    def share() -> float:
        with torch.no_grad():
            found = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        outputs = {name: tensor.numpy() for name, tensor in found.items()}
        answer = Answer(workload, inputs, outputs, expected, noise, family.masks(inputs))
        return answer.deviation(Precision.F32).share

    assert 0.01 < share() < 1
    with torch.no_grad():  # what the bound must catch: the weights as TF32 would read them
        for parameter in module.parameters():
            parameter.copy_((parameter.view(torch.int32) & ~0x1FFF).view(torch.float32))
    assert share() > 10


def described(architecture: str, folder: Path) -> tuple[str, dict[str, object]]:
    row = zoo.ARCHITECTURES[architecture][0]
    return row, dict(families.load(row).describe(zoo.write(architecture, folder)))


def drawn(architecture: str, folder: Path) -> dict[str, np.ndarray]:
    row, config = described(architecture, folder)
    return dict(Challenges(families.load(row), config, "0a").shapes())["padded"]


def test_roberta_is_padded_with_its_own_id_and_has_one_segment(tmp_path: Path) -> None:
    inputs = drawn("RobertaModel", tmp_path)  # its positions are counted from the ids that are not 1
    np.testing.assert_array_equal(inputs["input_ids"] == 1, inputs["attention_mask"] == 0)
    assert 0 in inputs["attention_mask"]
    assert not inputs["token_type_ids"].any()


@pytest.mark.parametrize("architecture", ["DistilBertForMaskedLM", "ModernBertForMaskedLM", "MPNetForMaskedLM"])
def test_what_a_model_does_not_take_it_does_not_get(architecture: str, tmp_path: Path) -> None:
    assert set(drawn(architecture, tmp_path)) == {"input_ids", "attention_mask"}


def test_siglip_gets_whole_captions_without_a_mask(tmp_path: Path) -> None:
    inputs = drawn("SiglipModel", tmp_path)
    assert set(inputs) == {"input_ids", "pixel_values"}
    assert inputs["input_ids"].shape == (3, 40)
    assert (inputs["input_ids"][:, 13:] == 1).all() and (inputs["input_ids"][0, :13] != 1).all()


def test_a_described_configuration_is_all_that_inputs_need(tmp_path: Path) -> None:
    for architecture in ("RobertaModel", "SiglipModel", "BartForConditionalGeneration"):
        row, config = described(architecture, tmp_path / architecture)
        (tmp_path / f"{row}.json").write_text(json.dumps(config))
    code = """
import json, sys
from pathlib import Path
from assay import families
from assay.challenge import Challenges
for file in Path(sys.argv[1]).glob("*.json"):
    dict(Challenges(families.load(file.stem), json.loads(file.read_text()), "seed").shapes())
assert not {"torch", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


def test_a_description_fills_in_what_the_file_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "distilbert", "dim": 64}))
    config = families.load("bert").describe(tmp_path)
    assert (config["vocab_size"], config["pad_token_id"]) == (30522, 0)
    assert config["hidden_size"] == config["dim"] == 64  # the name that all models share, and its own
    assert "attention_mask" in config[ACCEPTS] and "token_type_ids" not in config[ACCEPTS]


def test_what_transformers_does_not_know_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard-of", "architectures": ["BertModel"]}))
    with pytest.raises(UsageError, match=r"transformers cannot read config.json: .*unheard-of") as caught:
        families.load("bert").describe(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(UsageError, match="AutoModelForCausalLM has no model for a ViTConfig"):
        families.load("language-model").describe(tmp_path)


def source(folder: Path, *architectures: str) -> checkpoints.Source:
    (folder / "config.json").write_text(json.dumps({"architectures": architectures}))
    return checkpoints.find(str(folder))


@pytest.mark.parametrize("name", families.ORDER)
def test_no_two_rows_claim_an_architecture_alike(name: str, tmp_path: Path) -> None:
    for architecture in families.load(name).architectures:
        found = source(tmp_path, architecture.replace("*", "Anything"))
        claims = [families.load(each).claim({"architectures": [architecture]}, found.path) for each in families.ORDER]
        assert max(claims) > sorted(claims)[-2]


def test_the_most_specific_row_wins(tmp_path: Path) -> None:
    assert checkpoints.row(source(tmp_path, "LlamaForCausalLM")) == "llama"  # Language Model takes it by a pattern
    assert checkpoints.row(source(tmp_path, "StableLmForCausalLM")) == "language-model"
    assert checkpoints.row(source(tmp_path, "BertModel")) == "bert"
    (tmp_path / "modules.json").write_text("[]")
    assert checkpoints.row(source(tmp_path, "BertModel")) == "sentence-embeddings"
    with pytest.raises(UsageError, match=r"no row takes it; config.json says VideoMAEModel"):
        checkpoints.row(source(tmp_path, "VideoMAEModel"))
    with pytest.raises(UsageError, match="says no architecture"):
        checkpoints.row(source(tmp_path))


def test_names_fit_better_than_patterns() -> None:
    assert [fit(each, ("GPT2LMHeadModel", "*ForCausalLM")) for each in (
        "GPT2LMHeadModel", "OPTForCausalLM", "BertModel")] == [2, 1, 0]  # fmt: skip


def test_a_row_stays_a_task(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"LLAMA row takes LlamaForCausalLM, .*; config.json says OPTForCausalLM"):
        families.load("llama").accept({"architectures": ["OPTForCausalLM"]}, tmp_path)
    families.load("language-model").accept({"architectures": ["OPTForCausalLM"]}, tmp_path)
    with pytest.raises(UsageError, match="Siglip2Model"):  # its images are patches, another task
        families.load("clip").accept({"architectures": ["Siglip2Model"]}, tmp_path)
