"""The shared ONNX export with its weights in int8: what ONNX Runtime's own quantiser makes of it.

Matrix products alone get integers, a scale for every block of weights that are summed; tables of embeddings and
convolutions stay as they are. Products widen their weights; activations are float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from assay.backends.base import Artifact
from assay.backends.onnx_tensors import MATRIX
from assay.backends.onnxruntime import INTEGER
from assay.backends.quantised import Codes, Numbers, Products, made_once

BLOCK = 128
"""Weights that share a scale."""
BITS = 8
ZERO = np.uint8(128)
"""The code of zero: codes are stored without a sign."""
INTEGER_ACTIVATIONS = 4
"""The `accuracy_level` at which activations are integers too."""
MOVES = ("Transpose", "Reshape", "Split", "Slice", "Squeeze", "Unsqueeze", "Identity")
"""Operators that leave weights what they are."""


def quantised(export: Artifact) -> Artifact:
    """An exported model with its weights in int8."""
    return made_once(
        export, "onnxruntime", ("onnxruntime",), (__file__,),
        lambda source, folder: _quantise(source, folder / source.name),
    )  # fmt: skip


def _quantise(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    model = onnx.load(source)
    plain_products(model)
    options = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, bits=BITS)
    quantizer = MatMulNBitsQuantizer(model, algo_config=options)
    quantizer.process()
    onnx.save(
        quantizer.model.model, target, save_as_external_data=True, location=f"{target.name}.data", size_threshold=1024
    )


def plain_products(model: Any) -> None:
    """Write products with weights in the one way that the quantiser knows: by a constant (in, out), without a bias.

    The exporter transposes what torch has as (out, in), or takes product and bias as one operator.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    held = {tensor.name: at for at, tensor in enumerate(graph.initializer)}
    turned = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Transpose" and _rank(graph, held.get(node.input[0])) == MATRIX
    }

    def turn(original: str) -> str:
        """The name of that constant the other way round."""
        name = f"{original}, turned"
        if name not in held:
            array = np.ascontiguousarray(numpy_helper.to_array(graph.initializer[held[original]]).T)
            held[name] = len(graph.initializer)
            graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    nodes = []
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in turned:
            node.input[1] = turn(turned[node.input[1]])
        elif node.op_type == "Gemm" and node.input[1] in held and (plain := _plain(node)) is not None:
            left, right, *bias = node.input
            right = turn(right) if plain["transB"] else right
            product = f"{node.output[0]}, without bias" if bias else node.output[0]
            nodes.append(helper.make_node("MatMul", [left, right], [product], f"{node.name}, product"))
            if bias:
                nodes.append(helper.make_node("Add", [product, *bias], node.output, f"{node.name}, bias"))
            continue
        nodes.append(node)
    read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.op_type != "Transpose" or node.output[0] in read)


def _rank(graph: Any, place: int | None) -> int | None:
    return None if place is None else len(graph.initializer[place].dims)


def _plain(node: Any) -> dict[str, Any] | None:
    """The attributes of a product with a bias that is `x @ W + b` or `x @ W.T + b`; None of another."""
    from onnx import helper

    defaults = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    attributes = defaults | {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return attributes if attributes | {"transB": 0} == defaults else None


def held(folder: Path) -> Iterator[Codes | Numbers]:
    """Every tensor that an artifact's graphs hold."""
    import onnx_ir

    for file in sorted(folder.glob("*.onnx")):
        graph = onnx_ir.load(file).graph
        values = {name: value.const_value for name, value in graph.initializers.items()}
        parts: set[str] = set()
        for node in (node for node in graph.all_nodes() if node.op_type == INTEGER):
            codes, scales = (node.inputs[at].name for at in (1, 2))
            parts |= {codes, scales}
            yield _codes(values[codes].numpy(), values[scales].numpy(), node.attributes["K"].as_int())
        yield from (Numbers(value.numpy()) for name, value in values.items() if name not in parts)


def _codes(codes: np.ndarray, scales: np.ndarray, summed: int) -> Codes:
    """A matrix (out, in) from codes (out, blocks, block) and scales (out * blocks); the last block is filled up."""
    outputs = len(codes)
    scale = np.repeat(scales.reshape(outputs, -1), codes.shape[-1], axis=1)[:, :summed]
    signed = (codes.reshape(outputs, -1)[:, :summed] ^ ZERO).view(np.int8)  # less 128, as bits
    return Codes(signed, scale, np.zeros((1, 1), np.float32))


def products(folder: Path) -> Products:
    """What the trace does not tell: the runtime packs weights in float32 away, and rounds activations inside."""
    import onnx_ir

    wide, narrow = [], []
    for file in sorted(folder.glob("*.onnx")):
        for node in onnx_ir.load(file).graph.all_nodes():
            if node.op_type == INTEGER:
                attributes = {name: each.value for name, each in node.attributes.items()}
                wide += [node.name] if attributes.get("bits") != BITS else []
                narrow += [node.name] if attributes.get("accuracy_level", 0) == INTEGER_ACTIVATIONS else []
            elif node.op_type in ("MatMul", "Gemm") and _constant(node.inputs[1]):
                wide.append(node.name)
    return Products(tuple(wide), tuple(narrow))


def _constant(value: Any) -> bool:
    """Whether it is a tensor of the graph, or only moved there from one."""
    if value is None or value.const_value is not None:
        return value is not None
    producer = value.producer()
    return producer is not None and producer.op_type in MOVES and _constant(producer.inputs[0])
