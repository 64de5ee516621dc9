"""Other ways to run the same model: each runtime's own tool, and a bare loop over its Python interface."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from assay import families
from assay.backends.base import Tensors
from assay.backends.onnx_export import MODEL_FILE
from assay.families.generation import GeneratingFamily
from assay.machine import threads
from tests.bench import genai
from tests.bench.setting import Setting

Call = Callable[[Tensors], Tensors]

BENCHMARK_APP = "benchmark_app"
APP_SECONDS = 1
"""Seconds of calls that benchmark_app makes; it takes whole ones."""
_TOLD = re.compile(r"(Count|Duration|Median|Average):\s+([\d.]+) (iterations|us|ms)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "iterations": 1.0}


def opened(setting: Setting) -> Call:
    """The peer's way to run the model once, or to generate once: numpy arrays in, arrays that can be read out."""
    return _OPEN[setting.contestant](setting)


def openvino_loop(setting: Setting) -> Call:
    """The same graph in an infer request of OpenVINO, nothing copied, with the settings that its manual advises."""
    import openvino

    properties = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads(),
    }  # fmt: skip
    compiled = openvino.Core().compile_model(_graph(setting), "CPU", properties)
    request = compiled.create_infer_request()
    names = [sorted(port.get_names()) for port in compiled.outputs]

    def call(inputs: Tensors) -> Tensors:
        request.start_async(dict(inputs), share_inputs=True)  # `infer` is slower wherever another process runs
        request.wait()
        return {name: request.get_output_tensor(index).data for index, each in enumerate(names) for name in each}

    return call


def onnxruntime_loop(setting: Setting) -> Call:
    """The same graph in a session of ONNX Runtime as it comes, but for the number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    session = onnxruntime.InferenceSession(_graph(setting), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, dict(inputs)), strict=True))


def torch_loop(setting: Setting) -> Call:
    """The same checkpoint in eager torch."""
    import torch

    from assay.families.module import load_pretrained

    family = families.load(setting.family)
    torch.set_num_threads(threads())
    model = load_pretrained(family, Path(setting.checkpoint), None)

    def call(inputs: Tensors) -> Tensors:
        with torch.inference_mode():
            outputs = family.forward(model, {name: torch.from_numpy(array) for name, array in inputs.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return call


def transformers_generate(setting: Setting) -> Call:
    """The same checkpoint by `generate` in eager torch: greedy, with transformers' own cache, to the last token."""
    import torch
    from transformers import GenerationMixin

    from assay.families.module import load_pretrained

    family = families.load(setting.family)
    assert isinstance(family, GeneratingFamily)
    torch.set_num_threads(threads())
    model = load_pretrained(family, Path(setting.checkpoint), None)
    model.generation_config.eos_token_id = None  # a random model ends anywhere

    def call(inputs: Tensors) -> Tensors:
        # Whisper's own `generate` cuts, prompts and suppresses around the one that all models share.
        with torch.inference_mode():
            found = GenerationMixin.generate(
                model, **{name: torch.from_numpy(array) for name, array in inputs.items()},
                do_sample=False, max_new_tokens=setting.workload.new_tokens, use_cache=True, pad_token_id=0,
            )  # fmt: skip
        return {"tokens": found[:, -setting.workload.new_tokens :].numpy()}

    return call


def openvino_genai(setting: Setting) -> Call:
    """The backends' own export in the pipeline of openvino-genai."""
    folder = tempfile.TemporaryDirectory()
    genai.write(Path(setting.artifact["path"]), Path(folder.name))
    generate = genai.pipeline(Path(folder.name), setting.workload.new_tokens)
    folder.cleanup()
    return generate


def benchmark_app(setting: Setting, inputs: Tensors) -> Callable[[range], list[float]]:
    """OpenVINO's own tool on the same graph, a new process for each block, with one figure of the block.

    It gets the same inputs in every call.
    """
    folder = tempfile.TemporaryDirectory()
    given, shapes, types = [], [], []
    for name, array in inputs.items():
        np.save(Path(folder.name, f"{name}.npy"), array)
        given.append(f"{name}:{folder.name}/{name}.npy")
        shapes.append(f"{name}{list(array.shape)}".replace(" ", ""))
        types.append(f"{name}:{array.dtype.kind}{8 * array.itemsize}")
    hint = Path(folder.name, "properties.json")
    hint.write_text(json.dumps({"CPU": {"PERFORMANCE_HINT": "LATENCY"}}), encoding="utf-8")
    # It takes no number of threads beside a hint, unless the hint comes in a file.
    command = [
        sys.executable, "-c", "from openvino.tools.benchmark.main import main; main()",
        "-m", _graph(setting), "-d", "CPU", "-hint", "none", "-load_config", hint, "-nthreads", str(threads()),
        "-infer_precision", "f32", "-api", "async", "-nireq", "1", "-t", str(APP_SECONDS),
        # Left to itself it takes whatever looks like an image for bytes.
        "-data_shape", ",".join(shapes), "-iop", ",".join(types), "-i", *given,
    ]  # fmt: skip

    def block(_numbers: range, _folder: object = folder) -> list[float]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = told(done.stdout)
        if done.returncode or seconds is None:
            raise RuntimeError(f"benchmark_app: {(done.stdout + done.stderr)[-2000:]}")
        return [seconds]

    return block


def told(text: str) -> float | None:
    """Seconds that a call takes whoever waits for it, of what benchmark_app prints; None where it does not say.

    Its latencies are the runtime's own, from when it begins to compute until it is done. What a call takes beyond that
    (handing inputs over, waking who waits) is told by all of its time and the number of calls, one at a time: so much
    is added to the median.
    """
    found = {name: float(number) * _SECONDS[unit] for name, number, unit in _TOLD.findall(text)}
    if not {"Count", "Duration", "Median", "Average"} <= found.keys():
        return None
    return found["Median"] + found["Duration"] / found["Count"] - found["Average"]


def untimed(_name: str) -> AbstractContextManager[None]:
    """A phase that nobody times."""
    return nullcontext()


def _graph(setting: Setting) -> Path:
    return Path(setting.artifact["path"]) / MODEL_FILE


_OPEN: dict[str, Callable[[Setting], Call]] = {
    "openvino loop": openvino_loop,
    "onnxruntime loop": onnxruntime_loop,
    "torch loop": torch_loop,
    "transformers generate": transformers_generate,
    "openvino-genai": openvino_genai,
}
