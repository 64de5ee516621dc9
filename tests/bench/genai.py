"""The exported decoder as a model that openvino-genai opens, made without optimum, which needs older transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from assay.backends.base import Tensors
from assay.backends.onnx_export import MODEL_FILE
from assay.backends.openvino_graph import fuse_attention, keep_cache
from assay.families.generation import KEEP
from assay.machine import threads

_FILE = "openvino_model.xml"
_END = 0
"""openvino-genai wants an end token, though it is told to ignore it."""


def write(artifact: Path, folder: Path) -> None:
    """Write the graph as assay's engine compiles it, with the one input computed that openvino-genai does not feed."""
    import openvino
    from openvino import opset13 as ops

    model = openvino.Core().read_model(artifact / MODEL_FILE)
    fuse_attention(model)
    keep_cache(model, "input_ids")
    keep = model.input(KEEP)
    size = ops.shape_of(model.input("input_ids"), output_type="i64")
    length = ops.gather(size, ops.constant(np.array([1])), ops.constant(np.int64(0)))
    last = ops.subtract(length, ops.constant(np.array([1])))
    for reader in list(keep.get_target_inputs()):
        reader.replace_source_output(last.output(0))
    model.remove_parameter(keep.get_node())
    openvino.save_model(model, folder / _FILE, compress_to_fp16=False)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": {_END}}}', encoding="utf-8")


def pipeline(folder: Path, new_tokens: int) -> Callable[[Tensors], Tensors]:
    """The pipeline in f32, greedy, to the last token; stateful, for pages would need positions as an input."""
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
