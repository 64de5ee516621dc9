"""Which stage is guilty: faults that are put in at one stage and in one layer must be found there."""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.conftest import Assay, report_in
from tests.trial.impostors import FOLDER

from assay import backends, checkpoints, families
from assay.backends.base import Backend
from assay.challenge import Challenges
from assay.checkpoints import Checkpoint
from assay.decoding import decode
from assay.families.generation import GeneratingFamily
from assay.roles.diagnosis import perform
from assay.roles.outputs import Written
from assay.schema import Diagnosis, Precision, Status, Verdict

SEED = "0d" * 16


def impostor(name: str) -> Any:
    """One of the backends that must be caught, in this process."""
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    return getattr(importlib.import_module("assay_faulty"), name)


def diagnosed(
    backend: Backend,
    checkpoint: Checkpoint,
    folder: Path,
    *,
    call: str = "padded",
    precision: Precision = Precision.F32,
) -> Diagnosis:
    """What the role says of one call, as builder and runner leave it."""
    family, artifact, device = families.load(checkpoint.family), None, backend.devices()[0]
    artifact = backend.build(checkpoint, precision=precision)
    for name in ("run", "diagnosis"):
        (folder / name).mkdir()
    written = Written(folder / "run")
    config = folder / "config.json"
    config.write_text(json.dumps(family.describe(checkpoint.path)), encoding="utf-8")
    challenges = Challenges(family, json.loads(config.read_text()), SEED)
    kind = "sequence" if call == "forced" else "pass"
    with backend.open(artifact, device=device, precision=precision, phase=lambda name: nullcontext()) as engine:
        if kind == "sequence":
            prompt, tokens = challenges.forced()
            written.save("forced", {"logits": decode(engine, prompt, tokens.shape[1], tokens).logits})
        else:
            written.save(f"challenge-{call}", engine.run(dict(challenges.shapes())[call]))
    request = {
        "backend": backend.name, "device": asdict(device), "precision": str(precision), "seed": SEED,
        "config": str(config), "suspect": {"call": call, "kind": kind, "weights": "checkpoint"},
        "checkpoint": str(checkpoint.path), "artifact": asdict(artifact), "run": str(folder / "run"), "kept": [],
        "digests": written.digests, "number": None,
    }  # fmt: skip
    return Diagnosis.model_validate(perform(request, folder / "diagnosis"))


def verdicts(diagnosis: Diagnosis) -> dict[str, Verdict]:
    return {stage.name: stage.verdict for stage in diagnosis.stages}


def loaded(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The backend, where the role looks it up by name."""
    monkeypatch.setattr(backends, "load", lambda name: backend)
    return backend


def test_other_weights_in_the_artifact_are_found_in_the_graph_and_in_their_layer(assay: Assay, tmp_path: Path) -> None:
    command = ("run", "--backend", "tampered", "--family", "bert", "--reports", tmp_path)
    done = assay(*command, env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 1, done.stderr
    (cell,) = report_in(tmp_path / "sessions").cells
    assert cell.status is Status.INACCURATE
    diagnosis = cell.diagnosis
    assert diagnosis is not None and diagnosis.weights == "checkpoint"
    assert verdicts(diagnosis) == {
        "torch": Verdict.PASSED, "exported program": Verdict.PASSED, "ONNX": Verdict.FAILED,
        "target runtime": Verdict.FAILED,
    }  # fmt: skip
    assert diagnosis.guilty == "ONNX"
    assert diagnosis.layer is not None and diagnosis.layer.name == impostor("LAYER")
    assert diagnosis.text == f"the difference enters at ONNX, first in {impostor('LAYER')}"


def test_a_layer_that_the_runtime_rounds_is_found_in_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    diagnosis = diagnosed(loaded(impostor("rounded"), monkeypatch), checkpoints.local("bert"), tmp_path)
    assert verdicts(diagnosis) == {
        "torch": Verdict.PASSED, "exported program": Verdict.PASSED, "ONNX": Verdict.PASSED,
        "target runtime": Verdict.FAILED,
    }  # fmt: skip
    assert diagnosis.layer is not None and diagnosis.layer.name == impostor("LAYER")


def test_at_int8_torch_computes_in_float32_and_the_runtime_is_guilty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An artifact of other weights, made in the place of the checkpoint's."""
    pytest.importorskip("onnxruntime")
    backend, other = backends.load("onnxruntime"), checkpoints.local("bert", seed=4242)
    of_other = backend.build(other, precision=Precision.INT8)
    monkeypatch.setattr(backend, "build", lambda checkpoint, precision: of_other)
    diagnosis = diagnosed(
        loaded(backend, monkeypatch), checkpoints.local("bert"), tmp_path, precision=Precision.INT8
    )  # fmt: skip
    assert verdicts(diagnosis) == {"torch": Verdict.PASSED, "target runtime": Verdict.FAILED}
    assert diagnosis.guilty == "target runtime"
    assert diagnosis.not_examined == "the layers of onnxruntime cannot be watched"


def test_a_function_that_the_export_replaces_is_found_in_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diagnosis = diagnosed(loaded(impostor("wrong_gelu"), monkeypatch), checkpoints.local("bert"), tmp_path)
    assert diagnosis.guilty == "exported program"
    assert diagnosis.layer is not None
    assert diagnosis.layer.name == "encoder.layer.0.intermediate.intermediate_act_fn"


def test_a_graph_that_is_not_the_exporter_s_is_not_compared_with_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported anew without the fault, the program is not the artifact's: it clears nobody."""
    backend = loaded(impostor("wrong_gelu"), monkeypatch)
    monkeypatch.setattr(type(backend), "stages", backends.onnxruntime.OnnxRuntime.stages)
    diagnosis = diagnosed(backend, checkpoints.local("bert"), tmp_path)
    assert verdicts(diagnosis)["exported program"] is Verdict.NOT_JUDGED
    assert diagnosis.guilty == "ONNX"
    assert diagnosis.text.startswith("the difference enters at exported program or ONNX")


def test_a_checkpoint_that_overflows_is_found_in_torch_itself(tmp_path: Path) -> None:
    honest = checkpoints.local("bert")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    tensors = load_file(honest.path / "model.safetensors")
    tensors["embeddings.LayerNorm.weight"] *= np.float32(1e5)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_bytes((honest.path / "config.json").read_bytes())
    found = diagnosed(backends.load("cpu"), replace(honest, path=folder), tmp_path, precision=Precision.F16)
    assert found.guilty == "torch"
    assert found.layer is not None and found.layer.name == "embeddings.LayerNorm"
    assert "not finite" in found.layer.text


def test_an_honest_call_has_no_guilty_stage(tmp_path: Path) -> None:
    found = diagnosed(backends.load("onnxruntime"), checkpoints.local("llama"), tmp_path)
    assert set(verdicts(found).values()) == {Verdict.PASSED} and len(found.stages) == 4
    assert found.guilty is None and found.layer is None


def test_a_sequence_is_decoded_at_every_stage(tmp_path: Path) -> None:
    checkpoint = checkpoints.local("whisper")
    assert isinstance(families.load("whisper"), GeneratingFamily)
    found = diagnosed(backends.load("openvino"), checkpoint, tmp_path, call="forced")
    assert set(verdicts(found).values()) == {Verdict.PASSED} and len(found.stages) == 4


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [("lowered", True, None), ("undiagnosable", False, "ended in its phase 'export': killed by SIGKILL")],
)
def test_a_torch_column_is_watched_module_by_module(
    assay: Assay, tmp_path: Path, name: str, layer: bool, reason: str | None
) -> None:
    """A diagnosis that is killed costs the cell nothing but the rest of the diagnosis."""
    done = assay("run", "--backend", name, "--family", "bert", "--reports", tmp_path)
    assert done.returncode == 1, done.stderr
    (cell,) = report_in(tmp_path / "sessions").cells
    assert cell.status is Status.INACCURATE and cell.evidence
    found = cell.diagnosis
    assert found is not None and verdicts(found)["torch"] is Verdict.PASSED
    assert (found.layer is not None) is layer
    if found.layer:
        assert found.guilty == "target runtime" and found.layer.name.startswith("embeddings.")
    assert found.not_examined == (reason and f"the diagnosis {reason}")
