"""Every backend: obeys, feeds every input, gives the same numbers in every shape, and tells what it executed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay import backends, checkpoints, families
from assay.backends.base import Artifact, Engine
from assay.challenge import Challenges
from assay.checkpoints import Checkpoint
from assay.schema import Precision

COLUMNS = ("cpu", "openvino", "onnxruntime")
FAMILY = "bert"


@contextmanager
def no_phase(name: str) -> Iterator[None]:
    """A phase that nobody times."""
    yield


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """The local test model."""
    return checkpoints.local(FAMILY)


@pytest.fixture(scope="module", params=COLUMNS)
def opened(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Iterator[tuple[str, Engine]]:
    """An open engine of each CPU column."""
    backend = backends.load(request.param)
    artifact = backend.build(checkpoint, precision=Precision.F32)
    device = backend.devices()[0]
    with backend.open(artifact, device=device, precision=Precision.F32, phase=no_phase) as engine:
        yield request.param, engine


def test_every_shape_agrees_with_transformers(opened: tuple[str, Engine], checkpoint: Checkpoint) -> None:
    import torch

    family = families.load(FAMILY)
    module = family.load(checkpoint.path, attention="eager")
    shapes = list(Challenges(family, checkpoint.config(), "00").shapes())
    assert len({inputs["input_ids"].shape for _, inputs in shapes}) >= 3
    for _, inputs in shapes:
        with torch.no_grad():
            expected = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        found = opened[1].run(inputs)
        mask = family.masks(inputs)["last_hidden_state"]
        difference = found["last_hidden_state"][mask] - expected["last_hidden_state"].numpy()[mask]
        # Two honest f32 runs differ by 1e-6 of the scale here (docs/judgement.md); a wrong mask by 1e-1.
        assert np.abs(difference).max() < 1e-4


def test_an_input_that_nobody_feeds_is_an_error(opened: tuple[str, Engine], checkpoint: Checkpoint) -> None:
    name, engine = opened
    if name == "cpu":
        pytest.skip("torch fills in transformers' own defaults")
    _, inputs = next(Challenges(families.load(FAMILY), checkpoint.config(), "00").shapes())
    del inputs["attention_mask"]
    with pytest.raises(KeyError, match="attention_mask"):
        engine.run(inputs)


@pytest.mark.parametrize("contiguous", [True, False])
def test_an_array_that_comes_again_is_read_again(
    opened: tuple[str, Engine], checkpoint: Checkpoint, contiguous: bool
) -> None:
    """Its numbers may be others by then, whether the runtime reads it or a copy."""
    challenges = Challenges(families.load(FAMILY), checkpoint.config(), "00")
    before, after = challenges.timed(0), challenges.timed(1)
    expected = np.array(opened[1].run(after)["last_hidden_state"])
    inputs = {
        name: np.copy(array) if contiguous else np.repeat(array, 2, axis=1)[:, ::2] for name, array in before.items()
    }
    first = np.array(opened[1].run(inputs)["last_hidden_state"])
    for name, array in inputs.items():
        array[:] = after[name]
    np.testing.assert_array_equal(opened[1].run(inputs)["last_hidden_state"], expected)
    assert np.abs(first - expected).max() > 0.1


def test_openvino_copies_nothing_out(checkpoint: Checkpoint) -> None:
    pytest.importorskip("openvino")
    backend = backends.load("openvino")
    artifact = backend.build(checkpoint, precision=Precision.F32)
    inputs = Challenges(families.load(FAMILY), checkpoint.config(), "00").timed(0)
    with backend.open(artifact, device=backend.devices()[0], precision=Precision.F32, phase=no_phase) as engine:
        assert not any(array.flags.owndata for array in engine.run(inputs).values())


def test_openvino_counts_in_a_trace_and_not_in_what_is_timed(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    compiled: list[bool] = []
    real = openvino.Core.compile_model

    def compile_model(self: Any, model: Any, device: str, properties: dict[str, Any]) -> Any:
        compiled.append(bool(properties.get("PERF_COUNT")))
        return real(self, model, device, properties)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    backend = backends.load("openvino")
    artifact = backend.build(checkpoint, precision=Precision.F32)
    inputs = Challenges(families.load(FAMILY), checkpoint.config(), "00").traced()
    with backend.open(artifact, device=backend.devices()[0], precision=Precision.F32, phase=no_phase) as engine:
        engine.run(inputs)
        assert compiled == [False]
        for _ in range(2):
            assert engine.trace(inputs)[1]
        assert compiled == [False, True]


def test_the_trace_names_devices_and_precisions(opened: tuple[str, Engine], checkpoint: Checkpoint) -> None:
    inputs = Challenges(families.load(FAMILY), checkpoint.config(), "00").traced()
    outputs, operations = opened[1].trace(inputs)
    compute = [operation for operation in operations if operation.compute]
    assert len(compute) >= 12  # two layers: queries, keys, values, output, and two matrices of the feed-forward block
    assert {operation.device for operation in operations} == {"cpu"}
    assert {operation.precision for operation in compute} == {"f32"}
    assert sum(operation.work for operation in operations) > 0
    np.testing.assert_allclose(outputs["last_hidden_state"], opened[1].run(inputs)["last_hidden_state"], atol=1e-4)


def test_openvino_is_told_the_precision(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    told: dict[str, Any] = {}
    real = openvino.Core.compile_model

    def compile_model(self: Any, model: Any, device: str, properties: dict[str, Any]) -> Any:
        compiled = real(self, model, device, properties)
        told.update({name: str(compiled.get_property(name)) for name in ("INFERENCE_PRECISION_HINT", "NUM_STREAMS")})
        return compiled

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    backend = backends.load("openvino")
    artifact = backend.build(checkpoint, precision=Precision.F32)
    backend.open(artifact, device=backend.devices()[0], precision=Precision.F32, phase=no_phase).close()
    assert "f32" in told["INFERENCE_PRECISION_HINT"] or "float" in told["INFERENCE_PRECISION_HINT"]
    assert told["NUM_STREAMS"] == "1"


def test_onnx_runtime_refuses_a_provider_that_it_did_not_take(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    from assay.backends import onnxruntime as column

    artifact = column.BACKEND.build(checkpoint, precision=Precision.F32)
    monkeypatch.setattr(column, "PROVIDER", "CUDAExecutionProvider")
    with pytest.raises(Exception, match="CUDAExecutionProvider"), pytest.warns(UserWarning, match="provider"):
        column._session(Path(artifact.path) / "model.onnx", column._options())


def test_torch_computes_f32_without_tf32(checkpoint: Checkpoint) -> None:
    import torch

    backend = backends.load("cpu")
    artifact = Artifact(family=FAMILY, path=str(checkpoint.path), format="checkpoint")
    backend.open(artifact, device=backend.devices()[0], precision=Precision.F32, phase=no_phase).close()
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"  # type: ignore[attr-defined]
    assert not torch.backends.cudnn.allow_tf32  # readable only while old and new switch agree


def test_onnxruntime_takes_subnormal_numbers_for_zero(tmp_path: Path) -> None:
    """In a process of its own: it is the thread that is told to, once."""
    from onnx import TensorProto, helper, save

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "square")]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["square"])], "square", ports[:1], ports[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "square.onnx")
    code = """if True:
        import sys, numpy as np
        from pathlib import Path
        from assay.backends.onnxruntime import Graph
        print(Graph(Path(sys.argv[1])).run({"x": np.array([1e-20, 1e-18], np.float32)})["square"].tolist())
    """
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "square.onnx")], capture_output=True, text=True, check=True
    )
    small, normal = json.loads(done.stdout)
    assert small == 0  # 1e-40, which float32 has without all of its digits
    assert normal == pytest.approx(1e-36)
