"""The export: provable weights, cached by content, whole or not at all."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from assay import checkpoints, families
from assay.backends import onnx_export
from assay.backends.base import Artifact
from assay.backends.onnx_export import MANIFEST, MODEL_FILE, export, export_twin
from assay.backends.onnx_tensors import Parameters, initializers
from assay.cache import cache_dir


def held_by(artifact: Artifact) -> frozenset[tuple[tuple[int, ...], bytes]]:
    """Shapes and bytes of the tensors in an artifact's graph."""
    return frozenset(map(content, initializers(Path(artifact.path))))


def content(array: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    return array.shape, array.tobytes()


def test_every_parameter_is_in_the_graph_bit_for_bit() -> None:
    checkpoint = checkpoints.local("bert")
    parameters = load_file(checkpoint.path / "model.safetensors")
    own = Parameters(parameters)
    held = {name for array in initializers(Path(export(checkpoint).path)) for name, _ in own.find(array)}
    assert parameters.keys() - held <= {"pooler.dense.weight", "pooler.dense.bias"}  # no judged output uses them
    assert len(parameters) > 30


def test_a_changed_parameter_is_not_found() -> None:
    checkpoint = checkpoints.local("bert")
    parameters = load_file(checkpoint.path / "model.safetensors")
    name = next(name for name, array in parameters.items() if array.ndim == 2)
    for place in ((0, 0), (-1, -1)):  # with what is looked at first, and without
        changed = parameters[name].copy()
        changed[place] += 1e-6
        own = Parameters(parameters | {name: changed})
        assert name not in {
            found for array in initializers(Path(export(checkpoint).path)) for found, _ in own.find(array)
        }


def test_the_cache_is_by_content(monkeypatch: pytest.MonkeyPatch) -> None:
    first = export(checkpoints.local("bert"))

    def never(*arguments: object) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr(onnx_export, "_export", never)
    assert export(checkpoints.local("bert")) == first
    with pytest.raises(AssertionError, match="exported again"):
        export(checkpoints.local("bert", seed=77))


def test_an_export_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoints.local("bert", seed=78)

    def fails(family: object, checkpoint: object, target: Path) -> None:
        (target / MODEL_FILE).write_bytes(b"half")
        raise RuntimeError("no such operator")

    monkeypatch.setattr(onnx_export, "_export", fails)
    before = set((cache_dir() / "exports").iterdir())
    with pytest.raises(RuntimeError, match="no such operator"):
        export(checkpoint)
    assert set((cache_dir() / "exports").iterdir()) == before


def test_an_export_without_its_manifest_is_made_again() -> None:
    checkpoint = checkpoints.local("bert", seed=79)
    folder = Path(export(checkpoint).path)
    (folder / MANIFEST).unlink()
    shutil.rmtree(folder)
    again = Path(export(checkpoint).path)
    assert again == folder and (again / MODEL_FILE).is_file() and (again / MANIFEST).is_file()


def test_no_path_of_the_machine_is_left_in_the_graph() -> None:
    folder = Path(export(checkpoints.local("bert")).path)
    assert b"site-packages" not in (folder / MODEL_FILE).read_bytes()


def test_the_twin_s_graph_is_the_same_with_the_twin_s_tensors() -> None:
    checkpoint = checkpoints.local("t5")  # tied embeddings, and matrices of equal shape
    twin = checkpoints.twin(checkpoint)
    whole_way = export(twin)
    substituted = export_twin(checkpoint, twin)
    assert substituted.path != whole_way.path
    assert held_by(substituted) == held_by(whole_way)
    assert not held_by(substituted) & {
        content(each)
        for array in load_file(checkpoint.path / "model.safetensors").values()
        for each in (array, array.T)
    }


def test_weights_that_are_not_the_checkpoint_s_own_have_no_place(tmp_path: Path) -> None:
    """A loader may fuse tensors; a twin that kept the fused ones would be no twin."""
    source = Path(export(checkpoints.local("bert")).path)
    other = checkpoints.local("bert", seed=5)
    with pytest.raises(onnx_export._Ambiguous):
        onnx_export._substitute(source, other, checkpoints.twin(other), tmp_path / MODEL_FILE)


def test_the_exporter_s_reason_is_the_innermost_in_one_line() -> None:
    outer, inner = RuntimeError("Failed to export. This is step 1/3"), ValueError("\nCould not guard on u0\nmore")
    outer.__cause__ = inner
    assert onnx_export._cause(outer) == "ValueError: Could not guard on u0"
    assert onnx_export._cause(RuntimeError()) == "RuntimeError: no reason given"


@pytest.mark.parametrize(("length", "fixed"), [("s53", False), (9, True), (SimpleNamespace(value="9"), True)])
def test_a_length_that_the_export_fixed_is_refused(length: object, fixed: bool) -> None:
    value = SimpleNamespace(name="input_ids", shape=["batch", length])
    program, family = SimpleNamespace(graph=SimpleNamespace(inputs=[value])), families.load("bert")
    with pytest.raises(onnx_export.NotExported, match="length of input_ids at 9") if fixed else nullcontext():
        onnx_export._refuse_fixed(program, family, checkpoints.local("bert").config())


def test_a_twin_whose_tensors_cannot_be_placed_goes_the_whole_way(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoints.local("bert")
    twin = checkpoints.twin(checkpoint)

    def ambiguous(*arguments: object) -> None:
        raise onnx_export._Ambiguous

    monkeypatch.setattr(onnx_export, "_one_replacement", ambiguous)
    monkeypatch.setattr(onnx_export, "OPSET", 21)  # a key of its own, or the cache would answer
    assert export_twin(checkpoint, twin) == export(twin)
