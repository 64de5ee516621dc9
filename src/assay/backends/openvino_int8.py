"""The shared ONNX export with its weights in int8, as OpenVINO's own files: what NNCF makes of it.

Weights alone are integers, one scale for all that makes up an output (a row of an embedding has its own); the plugin
widens them inside its matrix products, whose arithmetic is float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from assay.backends import openvino_graph
from assay.backends.base import Artifact
from assay.backends.quantised import Codes, Numbers, Products, made_once


def quantised(export: Artifact) -> Artifact:
    """An exported model with its weights in int8."""

    def quantise(source: Path, folder: Path) -> None:
        _quantise(source, folder / source.with_suffix(".xml").name)

    return made_once(export, "openvino", ("nncf", "openvino"), (__file__, openvino_graph.__file__), quantise)


def _quantise(source: Path, target: Path) -> None:
    os.environ["NNCF_CI"] = "1"  # or it tells its makers of every call, over the network
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    openvino_graph.fuse_attention(model)
    openvino_graph.turn_weights(model)
    model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(model, target, compress_to_fp16=False)


def held(folder: Path) -> Iterator[Codes | Numbers]:
    """Every tensor that an artifact's graphs hold."""
    import openvino

    for file in sorted(folder.glob("*.xml")):
        model = openvino.Core().read_model(file)
        for node in model.get_ordered_ops():
            if node.get_type_name() != "Constant":
                continue
            scale = _scale(node) if node.get_element_type().to_string() == "i8" else None
            if scale is None:
                yield Numbers(node.data)
            else:
                # The format keeps scales in float16, to the nearest; half of that type's least step is none of its own.
                yield Codes(node.data, scale.astype(np.float32), np.spacing(np.abs(scale)).astype(np.float32) / 2)


def products(_: Path) -> Products:
    """Nothing: the trace has the type in which every product reads its weights."""
    return Products()


def _scale(codes: Any) -> np.ndarray | None:
    """What a constant of codes is multiplied by where it is read."""
    node = codes
    for _ in ("Convert", "Multiply"):
        readers: Sequence[Any] = [port.get_node() for port in node.output(0).get_target_inputs()]
        if len(readers) != 1:
            return None
        (node,) = readers
    if node.get_type_name() != "Multiply" or node.input_value(1).get_node().get_type_name() != "Constant":
        return None
    scale: np.ndarray = node.input_value(1).get_node().data
    return scale
