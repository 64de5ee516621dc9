"""The export: provable weights, cached by content, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from assay import checkpoints
from assay.backends import onnx_export
from assay.backends.onnx_export import MANIFEST, MODEL_FILE, export
from assay.evidence.weights import _digests, onnx_digests
from assay.schema import Precision


def test_every_parameter_is_in_the_graph_bit_for_bit() -> None:
    checkpoint = checkpoints.local("bert")
    held = onnx_digests(Path(export(checkpoint, precision=Precision.F32).path))
    parameters = load_file(checkpoint.path / "model.safetensors")
    missing = {name for name, array in parameters.items() if not _digests(array) & held}
    assert missing <= {"pooler.dense.weight", "pooler.dense.bias"}  # the judged output does not use them
    assert len(parameters) > 30


def test_a_changed_parameter_is_not_found() -> None:
    checkpoint = checkpoints.local("bert")
    held = onnx_digests(Path(export(checkpoint, precision=Precision.F32).path))
    array = next(array for array in load_file(checkpoint.path / "model.safetensors").values() if array.ndim == 2).copy()
    array[0, 0] += 1e-6
    assert not _digests(array) & held


def test_the_cache_is_by_content(monkeypatch: pytest.MonkeyPatch) -> None:
    first = export(checkpoints.local("bert"), precision=Precision.F32)

    def never(*arguments: object) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr(onnx_export, "_export", never)
    assert export(checkpoints.local("bert"), precision=Precision.F32) == first
    with pytest.raises(AssertionError, match="exported again"):
        export(checkpoints.local("bert", seed=77), precision=Precision.F32)


def test_an_export_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoints.local("bert", seed=78)

    def fails(family: object, checkpoint: object, target: Path) -> None:
        target.write_bytes(b"half")
        raise RuntimeError("no such operator")

    monkeypatch.setattr(onnx_export, "_export", fails)
    before = set((checkpoints.cache_dir() / "exports").iterdir())
    with pytest.raises(RuntimeError, match="no such operator"):
        export(checkpoint, precision=Precision.F32)
    assert set((checkpoints.cache_dir() / "exports").iterdir()) == before


def test_an_export_without_its_manifest_is_made_again() -> None:
    checkpoint = checkpoints.local("bert", seed=79)
    folder = Path(export(checkpoint, precision=Precision.F32).path)
    (folder / MANIFEST).unlink()
    shutil.rmtree(folder)
    again = Path(export(checkpoint, precision=Precision.F32).path)
    assert again == folder and (again / MODEL_FILE).is_file() and (again / MANIFEST).is_file()


def test_no_path_of_the_machine_is_left_in_the_graph() -> None:
    folder = Path(export(checkpoints.local("bert"), precision=Precision.F32).path)
    assert b"site-packages" not in (folder / MODEL_FILE).read_bytes()
