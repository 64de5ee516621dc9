"""Weights in int8: what the quantisers make of an export, whose tensors that holds, and that nobody is told of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from assay import backends, checkpoints, families
from assay.backends import openvino_graph
from assay.backends.base import Artifact
from assay.backends.quantised import Codes, Numbers, quantiser
from assay.challenge import Challenges
from assay.checkpoints import Checkpoint
from assay.evidence.reference import Reference
from assay.evidence.weights import _tensors
from assay.schema import Check, Precision, Verdict

NEEDS = {"openvino": "nncf", "onnxruntime": "onnxruntime"}


@pytest.fixture(params=NEEDS)
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(NEEDS[request.param])
    name: str = request.param
    return name


def artifact(backend: str, checkpoint: Checkpoint, precision: Precision = Precision.INT8) -> Artifact:
    return backends.load(backend).build(checkpoint, precision=precision)


def held(found: Artifact) -> list[Codes | Numbers]:
    return list(quantiser(backends.load(found.format)).held(Path(found.path)))


def tensors(checkpoint: Checkpoint, found: Artifact) -> Check:
    """What is said of an artifact where that checkpoint is judged."""
    family = families.load(checkpoint.family)
    inputs = Challenges(family, checkpoint.config(), "0a").timed(0)
    case: Any = SimpleNamespace(
        artifact=found, checkpoint=checkpoint.path, reference=Reference(family, checkpoint.path),
        challenges=[SimpleNamespace(inputs=inputs)], built_in=True, precision=Precision.INT8,
        backend=backends.load(found.format),
    )  # fmt: skip
    return _tensors(case)


@pytest.mark.parametrize("family", ["bert", "language-model", "t5", "clap"])
def test_an_artifact_holds_its_own_checkpoint_and_no_other(backend: str, family: str) -> None:
    own, other = checkpoints.local(family), checkpoints.local(family, seed=4242)
    found = artifact(backend, own)
    assert found.format == backend
    mine = tensors(own, found)
    assert mine.verdict is Verdict.PASSED, mine.text
    foreign = tensors(other, found)
    assert foreign.verdict is Verdict.FAILED and foreign.value is not None and foreign.value < 0.1


def test_one_stale_tensor_is_named(backend: str, tmp_path: Path) -> None:
    """The artifact of a checkpoint of which one matrix has been trained on since."""
    from safetensors.numpy import load_file, save_file

    own = checkpoints.local("bert")
    found = artifact(backend, own)
    for file in own.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    weights[name] = weights[name] * np.float32(1.01)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    check = tensors(checkpoints.opened("bert", tmp_path), found)
    assert check.verdict is Verdict.FAILED
    assert check.text.endswith(f"not found: {name}")


def test_what_was_quantised_is_found_again_and_another_seed_s_is_another(backend: str) -> None:
    own = checkpoints.local("bert")
    first, again = artifact(backend, own), artifact(backend, own)
    assert first == again and first.export_seconds is not None and first.export_seconds > 0
    assert artifact(backend, checkpoints.local("bert", seed=4242)).path != first.path


def test_matrices_are_bytes_and_nothing_else_is_lost(backend: str) -> None:
    found = artifact(backend, checkpoints.local("bert"))
    codes = [each for each in held(found) if isinstance(each, Codes)]
    tables = {"openvino": 3, "onnxruntime": 0}  # ONNX Runtime's quantiser leaves tables as they are
    assert len(codes) == 2 * 6 + tables[backend]
    export = artifact(backend, checkpoints.local("bert"), Precision.F32)
    sizes = [sum(path.stat().st_size for path in Path(each.path).iterdir()) for each in (found, export)]
    assert sizes[0] < 0.75 * sizes[1]


def coded(weights: np.ndarray, scale: np.ndarray, kept: type = np.float32) -> Codes:
    """Weights rounded with these scales, which are then kept in that type."""
    stored = scale.astype(kept)
    codes = np.clip(np.round(weights / scale), -128, 127).astype(np.int8)
    lost = np.spacing(stored).astype(np.float32) / 2 if kept is np.float16 else np.zeros_like(scale)
    return Codes(codes, stored.astype(np.float32), lost)


def test_a_tensor_that_is_off_by_more_than_rounding_is_another() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3000, 16)).astype(np.float32)
    scale = np.abs(weights).max(1, keepdims=True) / 128
    own = coded(weights, scale)
    assert own.holds(weights) and own.holds(weights.T.copy())
    for place in ((0, 0), (7, 15), (2999, 3)):
        moved = weights.copy()
        moved[place] += 1.6 * scale[place[0], 0]
        assert not own.holds(moved)
    assert not own.holds(weights[::-1]) and not own.holds(weights[:, :8])
    exact = Numbers(weights)
    assert exact.holds(weights) and exact.holds(weights.T.copy())
    assert not exact.holds(np.nextafter(weights, np.float32(9)))


@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-3, 1e-4, 2e-5])
def test_scales_that_float16_can_hardly_tell_are_allowed_for(size: float) -> None:
    """An embedding that was never trained has numbers so small that its scale is subnormal."""
    weights = (size * np.random.default_rng(1).uniform(-1, 1, (64, 256))).astype(np.float32)
    scale = np.maximum(np.abs(weights).max(1, keepdims=True) / 128, 2.0**-23).astype(np.float32)
    own = coded(weights, scale, np.float16)
    assert own.holds(weights)
    assert not own.holds(weights + 1.5 * scale)


@pytest.mark.parametrize("family", families.ORDER)
def test_every_product_with_weights_has_bytes(family: str) -> None:
    pytest.importorskip("onnxruntime")
    from assay.backends.onnxruntime_int8 import products

    found = products(Path(artifact("onnxruntime", checkpoints.local(family)).path))
    assert found.wide == found.narrow == ()
    export = products(Path(artifact("onnxruntime", checkpoints.local(family), Precision.F32).path))
    assert len(export.wide) >= 12 or family == "language-model"  # whose two layers have four each


def test_activations_in_int8_are_told_from_the_artifact(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from onnxruntime.quantization import matmul_nbits_quantizer as quantizer

    from assay.backends import onnxruntime_int8

    export = artifact("onnxruntime", checkpoints.local("bert"), Precision.F32)
    original = quantizer.DefaultWeightOnlyQuantConfig
    monkeypatch.setattr(
        quantizer, "DefaultWeightOnlyQuantConfig", lambda **options: original(**options, accuracy_level=4)
    )
    onnxruntime_int8._quantise(Path(export.path) / "model.onnx", tmp_path / "model.onnx")
    found = onnxruntime_int8.products(tmp_path)
    assert found.wide == () and len(found.narrow) == 12


def test_a_decoder_s_cache_stays_in_place_at_int8() -> None:
    pytest.importorskip("nncf")
    import openvino

    found = artifact("openvino", checkpoints.local("llama"))
    model = openvino.Core().read_model(Path(found.path) / "model.xml")
    assert openvino_graph.fuse_attention(model) == 0  # done before
    openvino_graph.keep_cache(model, "input_ids")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    layers = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
    assert layers.count("ScaledDotProductAttention") >= 2
    assert layers.count("MemoryInput") == layers.count("MemoryOutput") == 4


def test_weights_are_turned_where_a_matrix_is_transposed_and_nowhere_else() -> None:
    openvino, ops = pytest.importorskip("openvino"), pytest.importorskip("openvino.opset13")
    rng = np.random.default_rng(0)
    given = ops.parameter([2, 4], np.float32)
    matrix = ops.constant(rng.standard_normal((3, 4)).astype(np.float32))
    product = ops.matmul(given, ops.transpose(matrix, ops.constant([1, 0])), False, False)
    computed = ops.matmul(given, ops.transpose(ops.relu(matrix), ops.constant([1, 0])), False, False)
    model = openvino.Model([product, computed], [given])
    inputs = rng.standard_normal((2, 4)).astype(np.float32)

    def outputs() -> list[np.ndarray]:
        return [np.array(each) for each in openvino.Core().compile_model(model, "CPU")([inputs]).values()]

    before = outputs()
    assert openvino_graph.turn_weights(model) == 1
    for mine, original in zip(outputs(), before, strict=True):
        np.testing.assert_allclose(mine, original, rtol=1e-6)


def test_nobody_is_told(tmp_path: Path) -> None:
    """NNCF tells its makers of every use over the network; with `NNCF_CI` it has a stand-in that tells nobody."""
    pytest.importorskip("nncf")
    export = artifact("openvino", checkpoints.local("bert"), Precision.F32)
    program = f"""
from pathlib import Path
from assay.backends import openvino_int8
openvino_int8._quantise(Path({export.path!r}) / "model.onnx", Path({str(tmp_path)!r}) / "model.xml")
from nncf.telemetry import wrapper
print(type(wrapper.telemetry).__name__)
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("NNCF_")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "MagicMock"
    assert (tmp_path / "model.xml").is_file()
