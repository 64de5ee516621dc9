"""Attention that is spelled out becomes one operation, and what only looks like it stays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay import backends, checkpoints
from assay.backends.openvino_graph import LENGTH, ROWS, fuse_attention, keep_cache, tell_length
from assay.schema import Precision

openvino = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset13")

HEADS, SIZE = 4, 16
LAYERS = 2


DECODERS = pytest.mark.parametrize(
    ("family", "target", "attentions"),
    [
        ("llama", "input_ids", LAYERS), ("language-model", "input_ids", LAYERS),
        ("t5", "decoder_input_ids", 2 * LAYERS), ("whisper", "decoder_input_ids", 2 * LAYERS),  # its own, the source's
    ],
)  # fmt: skip


def stateful(family: str, target: str, attentions: int) -> Any:
    """A decoder as the backend compiles it."""
    artifact = backends.load("openvino").build(checkpoints.local(family), precision=Precision.F32)
    model = openvino.Core().read_model(Path(artifact.path) / "model.onnx")
    assert fuse_attention(model) == attentions
    tell_length(model, target)
    keep_cache(model, target)
    return model


@DECODERS
@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
def test_every_attention_of_a_decoder_is_found_and_appends_in_place(
    family: str, target: str, attentions: int, precision: str
) -> None:
    """At a precision that the processor has not OpenVINO takes f32, and no less is asked of it."""
    model = stateful(family, target, attentions)
    assert {ROWS, LENGTH} <= {name for port in model.inputs for name in port.get_names()}
    properties = {"INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": precision}
    nodes = openvino.Core().compile_model(model, "CPU", properties).get_runtime_model().get_ops()
    layers = [node.get_rt_info()["layerType"].astype(str) for node in nodes]
    readers = [
        port.get_node().get_rt_info()["layerType"].astype(str)
        for node, layer in zip(nodes, layers, strict=True) if layer == "MemoryInput"
        for port in node.output(0).get_target_inputs()
    ]  # fmt: skip
    assert layers.count("MemoryInput") == layers.count("MemoryOutput") == 2 * LAYERS
    assert readers == ["ScaledDotProductAttention"] * 2 * LAYERS  # no copy of it is made, and nobody else reads it


@DECODERS
def test_a_decoder_is_told_the_length_of_its_cache_and_asks_nobody(family: str, target: str, attentions: int) -> None:
    nodes = stateful(family, target, attentions).get_ops()
    asked = [node.input_value(0).get_node() for node in nodes if node.get_type_name() == "ShapeOf"]
    assert "ReadValue" not in {node.get_type_name() for node in asked}
    assert sum(node.get_type_name() == "ReadValue" for node in nodes) == 2 * LAYERS


def test_a_cache_has_as_many_bytes_as_the_runtime_keeps_of_it() -> None:
    """Two layers, keys and values, of four heads of 16 numbers, of two rows of three tokens and one more."""
    backend, checkpoint = backends.load("openvino"), checkpoints.local("language-model")
    device = backend.devices()[0]
    tokens = np.array([[5, 6, 7], [8, 9, 10]])
    for precision in set(backend.precisions(device)) - {Precision.INT8}:
        artifact = backend.build(checkpoint, precision=precision)
        with backend.open(artifact, device=device, precision=precision, phase=lambda _: nullcontext()) as engine:
            engine.prefill({"input_ids": tokens, "attention_mask": np.ones_like(tokens)})
            engine.step(tokens[:, 0])
            assert engine.cache_size() == 2 * 2 * 4 * 16 * 2 * 4 * (4 if precision is Precision.F32 else 2)


def same(some: Any) -> Any:
    return some


def graph(
    change: Callable[[Any], Any] = same, between: Callable[[Any], Any] = same, *, readers: int = 1, heads: int = HEADS
) -> Any:
    """Attention as the exporter spells it out, over keys and values of so many heads."""
    queries, keys, values = (
        ops.parameter([-1, count, -1, SIZE], np.float32, name=name)
        for name, count in (("queries", HEADS), ("keys", heads), ("values", heads))
    )
    scale = ops.sqrt(ops.constant(np.float32(0.25)))
    turned = ops.transpose(repeated(change(keys), heads), ops.constant([0, 1, 3, 2]))
    scores = ops.matmul(ops.multiply(queries, scale), ops.multiply(turned, scale), False, False)
    weights = ops.softmax(between(scores), -1)
    outputs = [ops.matmul(weights, repeated(values, heads), False, False) for _ in range(readers)]
    return openvino.Model(outputs, [queries, keys, values])


def read(other: Callable[[Any], Any] = same, *, causal: bool = False, readers: int = 0) -> Any:
    """Attention of opset 24 as OpenVINO reads it: the mask fitted to the keys, and zeros for what is no number."""
    queries, keys, values = (
        ops.parameter([-1, HEADS, -1, SIZE], np.float32, name=name) for name in ("queries", "keys", "values")
    )
    mask = ops.constant(np.linspace(-1, 1, 7, dtype=np.float32).reshape(1, 1, 1, 7))
    fitted = ops.pad(mask, [0, 0, 0, 0], ops.constant([0, 0, 0, 0]), "constant", ops.constant(np.float32(-np.inf)))
    scale = ops.convert_like(ops.constant(np.float32(0.3)), queries)
    one = ops.scaled_dot_product_attention(queries, keys, values, fitted, scale, causal=causal)
    zero = ops.convert_like(ops.constant(np.float32(0)), one)
    chosen = ops.select(ops.is_nan(other(one)), zero, one)
    return openvino.Model([chosen, *(ops.relu(one) for _ in range(readers))], [queries, keys, values])


def test_what_the_reader_puts_around_attention_is_taken_away() -> None:
    whole, bare = read(), read()
    assert fuse_attention(bare) == 1 and fuse_attention(bare) == 0
    kinds = [node.get_type_name() for node in bare.get_ops()]
    assert kinds.count("ScaledDotProductAttention") == 1
    assert not {"Pad", "Select", "IsNaN", "ConvertLike"} & set(kinds)
    np.testing.assert_allclose(answers(bare)[0], answers(whole)[0], atol=1e-5)


@pytest.mark.parametrize("made", [lambda: read(readers=1), lambda: read(ops.relu)], ids=["read twice", "of another"])
def test_a_choice_that_is_another_stays(made: Callable[[], Any]) -> None:
    whole, bare = made(), made()
    assert fuse_attention(bare) == 1
    assert {"Select", "IsNaN"} <= {node.get_type_name() for node in bare.get_ops()}
    for mine, theirs in zip(answers(bare), answers(whole), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_causal_attention_is_left_alone() -> None:
    assert fuse_attention(read(causal=True)) == 0


def repeated(some: Any, heads: int) -> Any:
    if heads == HEADS:
        return some
    length = ops.gather(ops.shape_of(some), ops.constant([2]), ops.constant(0))
    fives = ops.concat([ops.constant([1, heads, HEADS // heads]), length, ops.constant([SIZE])], 0)
    fours = ops.concat([ops.constant([-1, HEADS]), length, ops.constant([SIZE])], 0)
    wide = ops.broadcast(ops.unsqueeze(cut(some, 0), ops.constant([2])), fives, "BIDIRECTIONAL")
    return ops.reshape(wide, fours, False)


def cut(some: Any, start: int) -> Any:
    whole = (ops.constant([each]) for each in (start, np.iinfo(np.int64).max, 1, 2))
    return ops.slice(some, *whole)


def answers(model: Any, heads: int = HEADS) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal((1, count, length, SIZE), np.float32)
        for count, length in ((HEADS, 3), (heads, 7), (heads, 7))
    ]
    results = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(arrays)
    return list(results.values())


@pytest.mark.parametrize("heads", [HEADS, 2, 1])
def test_one_operation_gives_the_same(heads: int) -> None:
    spelled, fused = graph(heads=heads), graph(heads=heads)
    assert fuse_attention(fused) == 1
    kinds = [node.get_type_name() for node in fused.get_ops()]
    assert "ScaledDotProductAttention" in kinds and "Softmax" not in kinds
    assert "Broadcast" not in kinds
    # Sums of 16 and of 7 products in another order: a few units of 6e-8 of numbers of about 1.
    np.testing.assert_allclose(answers(fused, heads)[0], answers(spelled, heads)[0], atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        graph(readers=2),
        graph(between=ops.relu),
    ],
    ids=["weights that somebody else reads", "scores that something is done to"],
)
def test_what_only_looks_like_it_stays(other: Any) -> None:
    before = [node.get_type_name() for node in other.get_ops()]
    assert fuse_attention(other) == 0
    assert sorted(node.get_type_name() for node in other.get_ops()) == sorted(before)


def test_a_slice_that_leaves_something_out_is_kept() -> None:
    spelled, fused = (graph(lambda keys: cut(keys, 0)) for _ in range(2))
    partial = graph(lambda keys: ops.pad(cut(keys, 3), [0, 0, 0, 0], [0, 0, 3, 0], "constant"))
    also = graph(lambda keys: ops.pad(cut(keys, 3), [0, 0, 0, 0], [0, 0, 3, 0], "constant"))
    assert fuse_attention(fused) == fuse_attention(also) == 1
    np.testing.assert_allclose(answers(fused)[0], answers(spelled)[0], atol=1e-5)
    np.testing.assert_allclose(answers(also)[0], answers(partial)[0], atol=1e-5)
    assert np.abs(answers(partial)[0] - answers(spelled)[0]).max() > 1e-2
