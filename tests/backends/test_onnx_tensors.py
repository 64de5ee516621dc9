"""Tensors of ONNX files: all of them found, and replaced where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from assay.backends.onnx_tensors import Parameters, graphs, held, initializers

LARGE = np.arange(600, dtype=np.float32).reshape(20, 30)
SMALL = np.arange(6, dtype=np.float32).reshape(2, 3)
INNER = np.float32([7, 8])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A graph with a tensor in another file, one of its own, and one in a branch."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["kept"])], "branch", [],
        [helper.make_tensor_value_info("kept", TensorProto.FLOAT, [2])], [numpy_helper.from_array(INNER, "inner")],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("If", ["condition"], ["chosen"], then_branch=branch, else_branch=branch)], "graph",
        [helper.make_tensor_value_info("condition", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(LARGE, "large"), numpy_helper.from_array(SMALL, "small"),
         numpy_helper.from_array(LARGE.T.copy(), "second")],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph), tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx.data",
        size_threshold=256,
    )  # fmt: skip
    return tmp_path


def test_every_tensor_is_found_wherever_it_lies(folder: Path) -> None:
    ((name, model),) = graphs(folder)
    assert name == "model.onnx"
    found = [(each.proto.name, each.file, each.array.tolist()) for each in held(model, folder)]
    outside = "model.onnx.data"
    assert found == [
        ("large", outside, LARGE.tolist()), ("small", None, SMALL.tolist()), ("second", outside, LARGE.T.tolist()),
        ("inner", None, INNER.tolist()), ("inner", None, INNER.tolist()),
    ]  # fmt: skip
    assert [array.shape for array in initializers(folder)] == [(20, 30), (2, 3), (30, 20), (2,), (2,)]


def test_what_is_replaced_is_where_the_runtime_reads_it_and_the_rest_stays(folder: Path, tmp_path: Path) -> None:
    ((name, model),) = graphs(folder)
    target = tmp_path / "other"
    target.mkdir()
    (target / "model.onnx.data").write_bytes((folder / "model.onnx.data").read_bytes())
    for each in held(model, folder):
        if each.proto.name in ("second", "small"):
            each.replace(-each.array.T[::-1, ::-1].T, target)  # of another layout in memory
    (target / name).write_bytes(model.SerializeToString())
    read = {each.name: numpy_helper.to_array(each) for each in onnx.load(target / name).graph.initializer}
    np.testing.assert_array_equal(read["large"], LARGE)
    np.testing.assert_array_equal(read["second"], -LARGE.T[::-1, ::-1])
    np.testing.assert_array_equal(read["small"], -SMALL[::-1, ::-1])
    assert next(array.tolist() for array in initializers(folder)) == LARGE.tolist()


def test_a_tensor_is_found_bit_for_bit_and_a_matrix_either_way_round() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    known = {"matrix": matrix, "copy": matrix.copy(), "zero": np.zeros(3, np.float32), "nan": np.float32([np.nan])}
    own = Parameters(known | {"scale": np.float32(2).reshape(()), "empty": np.zeros((0, 3), np.float32)})
    assert own.find(matrix) == [("matrix", False), ("copy", False)]
    assert own.find(np.ascontiguousarray(matrix.T)) == [("matrix", True), ("copy", True)]
    assert own.find(known["nan"]) == [("nan", False)]
    assert own.find(np.float32(2).reshape(())) == [("scale", False)]
    assert own.find(np.zeros((0, 3), np.float32)) == [("empty", False)]
    assert own.find(-known["zero"]) == [] and own.find(matrix.astype(np.float64)) == []
