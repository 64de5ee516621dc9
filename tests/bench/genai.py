"""The exported decoder as a model that openvino-genai opens, made without optimum, which needs older transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from assay.backends.base import Tensors
from assay.backends.onnx_export import MODEL_FILE
from assay.families.generation import KEEP
from assay.machine import threads

_FILE = "openvino_model.xml"
_END = 0
"""openvino-genai wants an end token, though it is told to ignore it."""


def write(artifact: Path, folder: Path) -> None:
    """Write the graph with its cache as state, and with the inputs and files that openvino-genai looks for."""
    import openvino
    from openvino import opset13 as ops
    from openvino._offline_transformations import apply_make_stateful_transformation

    model = openvino.Core().read_model(artifact / MODEL_FILE)
    size = ops.shape_of(model.input("input_ids"), output_type="i64")
    rows, length = (ops.gather(size, _numbers(axis), ops.constant(np.int64(0))) for axis in (0, 1))
    _replace(model, KEEP, ops.subtract(length, _numbers(1)))
    beams = ops.parameter([-1], np.int32)  # which row goes on which: one row goes on itself
    beams.output(0).get_tensor().set_names({"beam_idx"})
    model.add_parameters([beams])
    past = [name for port in model.inputs for name in port.get_names() if name.startswith("past_")]
    apply_make_stateful_transformation(model, {name: name.replace("past", "present") for name in past})
    for state in (node for node in model.get_ops() if node.get_type_name() == "ReadValue"):
        shape = state.get_output_partial_shape(0)
        heads, width = shape[1].get_length(), shape[3].get_length()
        empty = ops.concat([rows, _numbers(heads), _numbers(0), _numbers(width)], axis=0)
        state.set_arguments([ops.broadcast(ops.constant(np.float32(0)), empty)])
    model.validate_nodes_and_infer_types()
    openvino.save_model(model, folder / _FILE, compress_to_fp16=False)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": {_END}}}', encoding="utf-8")


def pipeline(folder: Path, new_tokens: int) -> Callable[[Tensors], Tensors]:
    """The pipeline in f32, greedy, to the last token; attention as the graph has it, for pages need it fused."""
    import openvino
    import openvino_genai

    generator = openvino_genai.LLMPipeline(
        folder, "CPU", ATTENTION_BACKEND="SDPA", PERFORMANCE_HINT="LATENCY", INFERENCE_PRECISION_HINT="f32",
        KV_CACHE_PRECISION="f32", INFERENCE_NUM_THREADS=threads(),
    )  # fmt: skip
    config = openvino_genai.GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, ignore_eos=True, eos_token_id=_END
    )

    def generate(inputs: Tensors) -> Tensors:
        tensors = (openvino.Tensor(inputs[name]) for name in ("input_ids", "attention_mask"))
        found = generator.generate(openvino_genai.TokenizedInputs(*tensors), config)
        return {"tokens": np.array(found.tokens)}

    return generate


def _numbers(*values: int) -> Any:
    from openvino import opset13 as ops

    return ops.constant(np.array(values, np.int64))


def _replace(model: Any, name: str, node: Any) -> None:
    """Compute what was an input."""
    port = model.input(name)
    for target in list(port.get_target_inputs()):
        target.replace_source_output(node.output(0))
    model.remove_parameter(port.get_node())
