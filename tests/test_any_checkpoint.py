"""Checkpoints as people have them, as real cells: one of every wide row, and what is wrong with them in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from assay import checkpoints, families, session, tensor_files
from assay.errors import UsageError
from assay.plan import make_plan
from assay.schema import Layer, Status
from assay.session_report import SessionReport
from tests import strategies as make
from tests import zoo
from tests.conftest import Assay, report_in

CHOSEN = (
    "RobertaForMaskedLM", "SiglipModel", "Qwen2ForCausalLM", "BartForConditionalGeneration", "HubertForCTC",
    "MPNetModel", "OPTForCausalLM",
)  # fmt: skip
"""One architecture that is not the row's own, in the order of the rows."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The chosen checkpoints; one is bf16, tied and in shards, one is f16."""
    folders = [zoo.write(architecture, tmp_path_factory.mktemp(architecture)) for architecture in CHOSEN]
    zoo.republish("Qwen2ForCausalLM", folders[2], "bfloat16", "50KB")
    zoo.republish("OPTForCausalLM", folders[6], "float16", "1GB")
    assert len(tensor_files.weight_files(folders[2])) > 2
    return folders


@pytest.mark.xdist_group("any")  # one after the other: the exports are made once
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_any_checkpoint_is_real_through_the_export(
    assay: Assay, published: list[Path], tmp_path: Path, backend: str
) -> None:
    done = assay("run", "--backend", backend, *published, "--reports", tmp_path)
    report = report_in(tmp_path / "sessions")
    assert {cell.family: (cell.status, cell.reason) for cell in report.cells if cell.status is not Status.REAL} == {}
    assert done.returncode == 0, done.stderr
    assert [cell.family for cell in report.cells] == [zoo.ARCHITECTURES[each][0] for each in CHOSEN]
    for cell, folder in zip(report.cells, published, strict=True):
        assert cell.checkpoint is not None
        assert (cell.size, cell.checkpoint.source, cell.checkpoint.name) == ("own", "path", folder.name)
        assert cell.checkpoint.sha256 == checkpoints.digest(folder)
        (weights,) = (evidence for evidence in cell.evidence if evidence.layer is Layer.WEIGHTS)
        tensors = weights.check("tensors")
        assert tensors is not None and tensors.value == 1, tensors
        assert "preprocessing_time" not in cell.metrics
        assert any(note.startswith("no ") and note.endswith("all inputs are synthetic") for note in cell.notes)
        assert not any(str(folder) in note for note in cell.notes)
        assert cell.transcript is None
    assert "5 tensors have no place in the model that is judged: lm_head.bias" in report.cells[0].notes[0]


def test_what_is_wrong_with_a_checkpoint_is_named(assay: Assay, tmp_path: Path) -> None:
    """A tensor that is not there, one of another shape, and a model without the cache that decoding needs."""
    folders = [
        zoo.write(each, tmp_path / each) for each in ("RobertaModel", "Qwen3ForCausalLM", "MambaForCausalLM")
    ]  # fmt: skip
    respelt(folders[0], "encoder.layer.1.output.dense.bias", None)
    respelt(folders[1], "model.layers.0.mlp.up_proj.weight", 5)
    done = assay("run", "--backend", "onnxruntime", *folders, "--reports", tmp_path / "reports")
    assert done.returncode == 1
    report: SessionReport = report_in(tmp_path / "reports" / "sessions")
    assert [cell.status for cell in report.cells] == [Status.FAILED] * 3
    missing, shape, loop = (cell.reason for cell in report.cells)
    assert "1 tensors that RobertaModel needs are missing: encoder.layer.1.output.dense.bias" in missing
    assert "model.layers.0.mlp.up_proj.weight is (5, 64), not (128, 64)" in shape
    assert loop.startswith("builder, export: NotExported: ")  # a recurrent model keeps no keys and values
    assert not any("\n" in reason for reason in (missing, shape, loop))


def respelt(folder: Path, name: str, rows: int | None) -> None:
    """Take a tensor out, or cut it to so many rows."""
    tensors = load_file(folder / "model.safetensors")
    tensor = tensors.pop(name)
    save_file(tensors | ({} if rows is None else {name: tensor[:rows].copy()}), folder / "model.safetensors")


def test_two_checkpoints_of_a_row_are_refused(assay: Assay, tmp_path: Path) -> None:
    folders = [zoo.write(each, tmp_path / each) for each in ("PhiForCausalLM", "GemmaForCausalLM")]
    done = assay("run", "--backend", "cpu", *folders)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith("GemmaForCausalLM belongs to the row llama, and so does PhiForCausalLM: one a run")


def test_resuming_asks_which_checkpoint_it_was(tmp_path: Path) -> None:
    first, second = (str(zoo.write("RobertaModel", tmp_path / name, seed)) for seed, name in enumerate("ab"))
    plan = make_plan(backend="cpu", found=[first])
    cell = make.cell(size="own", checkpoint=plan.models["bert"].ref())
    assert session._same(plan, make.report(cell))
    assert not session._same(make_plan(backend="cpu", found=[second]), make.report(cell))


def test_old_names_are_loaded_and_twinned(tmp_path: Path) -> None:
    """`gamma`, `beta` and a prefix: transformers renames as it loads, and the twin has the file's own names."""
    folder = zoo.write("BertForSequenceClassification", tmp_path / "new")
    tensors = load_file(folder / "model.safetensors")
    names = {name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
             for name in tensors}  # fmt: skip
    assert any(name != old for name, old in names.items())
    save_file({old: tensors[name] for name, old in names.items()}, folder / "model.safetensors", {"format": "pt"})
    opened = checkpoints.opened("bert", folder)
    family, twin = families.load("bert"), checkpoints.twin(opened)
    own, others = (family.load(each.path).state_dict() for each in (opened, twin))
    for name, tensor in own.items():
        assert (tensor != others[name]).any(), name
    assert set(dict(tensor_files.tensors(twin.path))) == set(names.values())


def test_newer_sentence_transformers_folders(tmp_path: Path) -> None:
    from assay.families.sentence_embeddings import Pooling

    folder = zoo.write("MPNetModel", tmp_path)
    assert Pooling.of(folder) == Pooling("mean", normalise=False)
    before = checkpoints.digest(folder)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"embedding_dimension": 64, "pooling_mode": "cls"}))
    assert Pooling.of(folder).mode == "cls"
    assert checkpoints.digest(folder) != before
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    assert Pooling.of(folder).mode == "cls"
    pooling.write_text(json.dumps({"pooling_mode": "lasttoken"}))
    with pytest.raises(UsageError, match="pooling by lasttoken; this row knows mean, cls and max"):
        checkpoints.opened("sentence-embeddings", folder)
