"""What else the runtimes offer than the engines do: `python -m tests.bench.alternatives WHAT [FAMILY ...]`.

    opset     one pass with attention as one operation (opset 24) over attention spelled out (20), in both runtimes
    steps     the same of a step of decoding, at test size and at published size
    fusions   one pass, or a step of what decodes, of what transformers fuses for ONNX Runtime over the export
    hint      items a second with OpenVINO's throughput hint over those with its latency hint, by batch
    compiled  seconds until a graph can run: compiled anew, and from what the runtime has kept of an earlier time

Of published sizes unless it says otherwise, in the environment of `nox -s bench`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from assay import backends, checkpoints, families
from assay.backends import onnx_export
from assay.backends.base import Artifact, Engine, Tensors
from assay.backends.onnx_export import MODEL_FILE
from assay.challenge import Challenges, draw_seed
from assay.decoding import decode
from assay.families.base import accepted
from assay.families.generation import GeneratingFamily
from assay.machine import threads
from assay.report.markdown import as_table
from assay.report.units import duration
from assay.roles.process import role_environment
from assay.schema import Precision
from tests.bench import plan
from tests.bench.interleaved import SETTLE
from tests.bench.peers import untimed
from tests.bench.ratio import Round, ratio

PASSES = ("bert", "clip", "wav2vec2", "sentence-embeddings")
"""Of one pass, whose attention is exported as one operation."""
STEPPING = ("language-model", "t5")
RUNTIMES = ("openvino", "onnxruntime")
ROUNDS, BLOCK, FEWEST = 8, 0.3, 4
"""Of both in turn; seconds of a block, and its calls at the least."""
STEPS = 32
"""Of a sequence."""
BATCHES = (1, 4, 16, 32)
SECONDS = 1.0
"""Of one hint at one batch, four times in turn."""

Call = Callable[[Tensors], Tensors]
Line = tuple[str, ...]


def artifact(family: str, opset: int, size: str = "base") -> Artifact:
    """The export of a test model, all of it under that opset; made in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=plan.quiet) as pool:
        return pool.submit(_exported, family, opset, size).result()


def _exported(family: str, opset: int, size: str) -> Artifact:
    onnx_export.OPSET = opset
    return onnx_export.export(checkpoints.local(family, size))


def fused(family: str, folder: Path) -> Artifact:
    """What transformers makes for ONNX Runtime's CPU provider, with its own choice of an opset."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=plan.quiet) as pool:
        pool.submit(_fuse, family, folder).result()
    return Artifact(family=family, path=str(folder), format="onnx")


def _fuse(family: str, folder: Path) -> None:
    import onnx_ir
    import torch
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    from assay.families.graphs import graphs

    row, checkpoint = families.load(family), checkpoints.local(family, "base")
    described = row.describe(checkpoint.path)
    sample = accepted(described, row.inputs(described, row.sample, np.random.default_rng(0)))
    for name, graph in graphs(row, checkpoint.path, sample).items():
        shapes = {each: dict.fromkeys(axes, torch.export.Dim.AUTO) for each, axes in graph.dynamic.items()}
        config = OnnxConfig(dynamic=True, dynamic_shapes=shapes, ort_fusions="cpu")
        with torch.no_grad():
            program = OnnxExporter().export(graph.module, graph.sample, config).program
        onnx_ir.save(program, str(folder / f"{name}.onnx"), external_data=f"{name}.onnx.data")


def inputs(family: str, size: str = "base", seed: str | None = None) -> Challenges:
    """Fresh inputs of any number and batch."""
    row = families.load(family)
    return Challenges(row, row.describe(checkpoints.local(family, size).path), seed or draw_seed())


def engines(runtime: str, artifacts: Sequence[Artifact]) -> list[Engine]:
    """Of one runtime, in this process."""
    backend = backends.load(runtime)
    return [
        backend.open(each, device=backend.devices()[0], precision=Precision.F32, phase=untimed) for each in artifacts
    ]


def in_turn(first: Call, second: Call, fresh: Callable[[int], Tensors], numbers: range, calls: int) -> list[Round]:
    """Blocks of calls of both, in turn the one and the other first; no two calls have the same inputs."""
    rounds = []
    for number in numbers:
        found = {}
        for call in (first, second) if number % 2 else (second, first):
            time.sleep(SETTLE)
            start = (2 * number + (call is first)) * (calls + 1)
            block = [fresh(start + each) for each in range(calls + 1)]
            found[call] = [_seconds(call, each) for each in block][1:]
        rounds.append((found[first], found[second]))
    return rounds


def _seconds(call: Callable[..., object], *given: Tensors) -> float:
    started = time.perf_counter()
    call(*given)
    return time.perf_counter() - started


def opset(family: str) -> Iterator[Line]:
    """Both exports in both runtimes."""
    artifacts = [artifact(family, opset) for opset in (24, 20)]
    for runtime in RUNTIMES:
        yield family, runtime, *_compared(_passes(runtime, artifacts, inputs(family).timed))


def steps(family: str) -> Iterator[Line]:
    """The same, a sequence a block."""
    for size in ("tiny", "base"):
        artifacts = [artifact(family, opset, size) for opset in (24, 20)]
        for runtime in RUNTIMES:
            yield family, f"{runtime}, {size}", *_compared(_sequences(runtime, artifacts, inputs(family, size)))


def fusions(family: str) -> Iterator[Line]:
    """Both graphs in ONNX Runtime, after their outputs for one input were held against each other."""
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [fused(family, Path(folder)), artifact(family, onnx_export.OPSET)]
        try:
            found = [engine.run(inputs(family, seed="0" * 32).timed(0)) for engine in engines("onnxruntime", artifacts)]
        except RuntimeError as error:
            print(error, file=sys.stderr)
            yield family, *("–",) * 4, "one that does not run"
            return
        for name, array in found[1].items():
            np.testing.assert_allclose(found[0][name], array, rtol=0, atol=1e-3 * float(np.abs(array).max()))
        if isinstance(families.load(family), GeneratingFamily):
            yield family, *_compared(_sequences("onnxruntime", artifacts, inputs(family)))
        else:
            yield family, *_compared(_passes("onnxruntime", artifacts, inputs(family).timed))


def _passes(runtime: str, artifacts: Sequence[Artifact], fresh: Callable[[int], Tensors]) -> list[Round]:
    """Of two artifacts in one process, in turn the one and the other opened first, which costs 1 or 2 %."""
    rounds, calls = [], 0
    for turn, order in enumerate((1, -1)):
        first, second = (engine.run for engine in engines(runtime, artifacts[::order])[::order])
        warm = [_seconds(first, fresh(-number)) for number in (1, 2, 3)]
        calls = calls or max(FEWEST, round(BLOCK / warm[-1]))
        rounds += in_turn(first, second, fresh, range(turn * ROUNDS, (turn + 1) * ROUNDS), calls)
    return rounds


def _sequences(runtime: str, artifacts: Sequence[Artifact], prompts: Challenges) -> list[Round]:
    """The same of the steps of sequences."""
    rounds: list[Round] = []
    for order in (1, -1):
        pair = engines(runtime, artifacts[::order])[::order]
        rounds += [_decoded(pair, prompts, number) for number in range(ROUNDS + 1)][1:]
    return rounds


def _decoded(pair: Sequence[Engine], prompts: Challenges, number: int) -> Round:
    found = {
        engine: decode(engine, prompts.decoded(2 * number + turn), STEPS).steps
        for turn, engine in enumerate(pair if number % 2 else pair[::-1])
    }
    return found[pair[0]], found[pair[1]]


def _compared(rounds: list[Round]) -> Line:
    found = ratio(rounds)
    times = [duration(median(each for block in side for each in block)) for side in zip(*rounds, strict=True)]
    return *times[::-1], f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}", found.verdict


def hint(family: str) -> Iterator[Line]:
    """The same graph, with one request at a time, and with as many as OpenVINO thinks best."""
    import openvino

    path, challenges, core = _graph(family), inputs(family), openvino.Core()
    models = {
        name: core.compile_model(path, "CPU", _properties() | {"PERFORMANCE_HINT": name})
        for name in ("LATENCY", "THROUGHPUT")
    }
    queues = {name: openvino.AsyncInferQueue(model) for name, model in models.items()}
    for batch in BATCHES:
        given = [challenges.larger(batch, number) if batch > 1 else challenges.timed(number) for number in range(8)]
        rates: dict[str, list[float]] = {name: [] for name in queues}
        for turn in range(5):
            for name, queue in queues.items():
                rate = batch * _calls_per_second(queue, given)
                rates[name] += [rate] if turn else []
        low, high = (median(each) for each in rates.values())
        yield family, str(batch), f"{low:.4g}", f"{high:.4g}", f"{high / low:.2f}"


def _calls_per_second(queue: Any, given: list[dict[str, np.ndarray]]) -> float:
    started = time.perf_counter()
    count = 0
    while time.perf_counter() - started < SECONDS:
        queue.start_async(given[count % len(given)], share_inputs=True)
        count += 1
    queue.wait_all()
    return count / (time.perf_counter() - started)


def compiled(family: str) -> Iterator[Line]:
    """Medians of three."""
    path = _graph(family)
    with tempfile.TemporaryDirectory() as folder:
        kept = {"CACHE_DIR": folder}
        _openvino(path, kept)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        yield _line(family, "openvino", [lambda: _openvino(path, {}), lambda: _openvino(path, kept)], size)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "saved.onnx")
        _onnxruntime(path, saved)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        yield _line(family, "onnxruntime", [lambda: _onnxruntime(path), lambda: _onnxruntime(saved)], size)


def _line(family: str, runtime: str, ways: list[Callable[[], None]], size: int) -> Line:
    times = [[_seconds(way) for way in ways] for _ in range(3)]
    anew, kept = (median(each) for each in zip(*times, strict=True))
    return family, runtime, duration(anew), duration(kept), f"{kept / anew:.2f}", f"{size / 1e6:,.0f} MB"


def _openvino(path: Path, kept: dict[str, str]) -> None:
    import openvino

    openvino.Core().compile_model(path, "CPU", _properties() | kept).create_infer_request()


def _onnxruntime(path: Path, save: Path | None = None) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3
    if save:
        options.optimized_model_filepath = str(save)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "saved.data")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _graph(family: str) -> Path:
    return Path(artifact(family, onnx_export.OPSET).path) / MODEL_FILE


def _properties() -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "INFERENCE_NUM_THREADS": threads(),
        "PERFORMANCE_HINT": "LATENCY", "EXECUTION_MODE_HINT": "ACCURACY",
    }  # fmt: skip


OPSETS = ("family", "runtime", "opset 20", "opset 24", "ratio", "95 % interval", "opset 24 is")
WHAT: dict[str, tuple[Callable[[str], Iterator[Line]], Sequence[str], Line]] = {
    "opset": (opset, PASSES, OPSETS),
    "steps": (steps, STEPPING, OPSETS),
    "fusions": (fusions, PASSES + STEPPING, ("family", "the export", "fused", "ratio", "95 % interval", "fused is")),
    "hint": (
        hint, ("bert", "clip", "sentence-embeddings"),
        ("family", "batch", "latency hint, items/s", "throughput hint, items/s", "ratio"),
    ),
    "compiled": (compiled, (*PASSES, "xclip"), ("family", "runtime", "compiled anew", "kept", "ratio", "on disk")),
}  # fmt: skip
"""By name: how, of which families where none is named, and what the table's columns are."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="tests.bench.alternatives", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("what", choices=WHAT, metavar="WHAT", help=", ".join(WHAT))
    parser.add_argument("family", nargs="*", metavar="FAMILY")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.family) - set(families.names()):
        parser.error(f"no such family: {', '.join(sorted(unknown))}")
    os.environ |= role_environment(spins=True)
    way, usual, head = WHAT[asked.what]
    lines = []
    for family in asked.family or usual:
        for line in way(family):
            lines.append(line)
            print(" ".join(line), file=sys.stderr, flush=True)
    print(as_table(head, lines))


if __name__ == "__main__":
    main()
