"""What each column computes in: what it says before it runs, what it then does, and what the trace says of that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from assay import backends, checkpoints, families
from assay.backends import onnxruntime as onnx_column
from assay.backends import openvino as column
from assay.backends.base import Artifact, Engine, Operation
from assay.challenge import Challenges
from assay.checkpoints import Checkpoint
from assay.devices import cpu_device
from assay.evidence import placement
from assay.evidence.reference import Reference
from assay.families.module import DTYPES, kept_wide
from assay.measure.peak import flags
from assay.measure.processes import Usage
from assay.schema import FLOATS, Check, Precision, Verdict

LOWER = (Precision.BF16, Precision.F16)


@pytest.fixture(scope="module")
def bert() -> Checkpoint:
    return checkpoints.local("bert")


@contextmanager
def no_phase(name: str) -> Iterator[None]:
    yield


def traced(backend: str, checkpoint: Checkpoint, precision: Precision) -> tuple[Engine, list[Operation]]:
    """The engine, and what it executed of one call."""
    loaded, family = backends.load(backend), families.load(checkpoint.family)
    artifact = loaded.build(checkpoint, precision=precision)
    engine = loaded.open(artifact, device=cpu_device(), precision=precision, phase=no_phase)
    inputs = Challenges(family, family.describe(checkpoint.path), "00").traced()
    return engine, engine.trace(inputs)[1]


def precision_check(
    operations: list[Operation], declared: Precision, reference: Any, artifact: Artifact | None = None,
    backend: str = "openvino",
) -> Check:  # fmt: skip
    """The one that placement makes of such a trace."""
    case: Any = SimpleNamespace(
        built_in=True, clock=SimpleNamespace(usage=Usage(claimed=1.0, cpu=1.0)), operations=operations,
        device=cpu_device(), precision=declared, libraries=("libopenvino.so",), backend=backends.load(backend),
        reference=reference, artifact=artifact,
    )  # fmt: skip
    (found,) = (check for check in placement.judge(case).checks if check.name == "precision")
    return found


NOTHING_KEPT = SimpleNamespace(kept_wide=lambda precision: 0)

# OpenVINO


SKYLAKE = "fpu sse2 avx avx2 avx512f avx512dq avx512cd avx512bw avx512vl"
COOPER_LAKE = f"{SKYLAKE} avx512_vnni avx512_bf16"
SAPPHIRE_RAPIDS = f"{COOPER_LAKE} avx_vnni avx512_fp16 amx_bf16 amx_tile amx_int8"


@pytest.mark.parametrize(
    ("cpuinfo", "able"),
    [
        ("flags : fpu sse2 avx", ()),
        ("flags : fpu sse2 avx avx2 f16c", (Precision.INT8,)),
        (f"flags : {SKYLAKE}", (Precision.INT8,)),
        (f"flags : {COOPER_LAKE}", (Precision.BF16, Precision.INT8)),
        (f"flags : {SAPPHIRE_RAPIDS}", (*LOWER, Precision.INT8)),
        ("Features : fp asimd asimdhp", (Precision.F16,)),
        ("Features : fp asimd", ()),
        ("", ()),
    ],
)
def test_openvino_has_what_the_processor_s_flags_tell(
    cpuinfo: str, able: tuple[Precision, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\n{cpuinfo}\n")
    monkeypatch.setattr(column, "flags", lambda: flags(tmp_path))
    monkeypatch.setattr(column, "find_spec", lambda name: name == "nncf")
    device = cpu_device()
    assert column.BACKEND.precisions(device) == (Precision.F32, *able)
    for precision in set(LOWER) - set(able):
        absent = column.BACKEND.lacks(device, precision)
        assert absent.reason == (
            f"{device.name} has no instructions for {precision} that OpenVINO uses: it would compute in f32"
        )
        assert absent.looked_for and all(line.startswith("processor flags ") for line in absent.looked_for)


def test_openvino_without_avx2_says_what_it_would_do_with_weights_in_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column, "flags", frozenset)
    monkeypatch.setattr(column, "find_spec", lambda name: name == "nncf")
    absent = column.BACKEND.lacks(cpu_device(), Precision.INT8)
    assert absent.reason.endswith(
        "has no instructions for int8 that OpenVINO uses: it would widen weights before it computes"
    )
    assert absent.looked_for == ("processor flags avx2: not found",)


def test_openvino_names_the_flags_that_are_missing_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column, "flags", lambda: frozenset(COOPER_LAKE.split()))
    assert column.BACKEND.lacks(cpu_device(), Precision.F16).looked_for == (
        "processor flags avx_vnni, avx512_fp16: not found", "processor flags asimdhp: not found",
    )  # fmt: skip


def test_openvino_has_no_int8_without_what_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column, "flags", lambda: frozenset(SAPPHIRE_RAPIDS.split()))
    monkeypatch.setattr(column, "find_spec", lambda name: None)
    assert column.BACKEND.precisions(cpu_device()) == FLOATS
    absent = column.BACKEND.lacks(cpu_device(), Precision.INT8)
    assert absent.reason == "weights are made int8 by NNCF, which is not installed: pip install 'assay[int8]'"
    assert absent.looked_for == ("package nncf: not found",)


def test_openvino_promises_nothing_that_its_plugin_does_not() -> None:
    openvino = pytest.importorskip("openvino")
    own = set(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    names = {Precision.F32: "FP32", Precision.BF16: "BF16", Precision.F16: "FP16", Precision.INT8: "INT8"}
    assert {names[each] for each in column.BACKEND.precisions(cpu_device())} <= own


@pytest.mark.parametrize("declared", LOWER)
def test_what_openvino_executes_in_f32_is_not_what_was_declared(bert: Checkpoint, declared: Precision) -> None:
    pytest.importorskip("openvino")
    engine, operations = traced("openvino", bert, Precision.F32)
    engine.close()
    found = precision_check(operations, declared, NOTHING_KEPT)
    assert found.verdict is Verdict.FAILED
    assert f"ran in another precision than {declared}: " in found.text and "in f32" in found.text
    assert precision_check(operations, Precision.F32, NOTHING_KEPT).verdict is Verdict.PASSED


# Weights in int8


@pytest.mark.parametrize(("backend", "needed"), [("openvino", "nncf"), ("onnxruntime", "onnxruntime")])
def test_products_with_weights_in_int8_are_int8_and_no_others(backend: str, needed: str, bert: Checkpoint) -> None:
    pytest.importorskip(needed)
    loaded = backends.load(backend)
    artifacts = {each: loaded.build(bert, precision=each) for each in (Precision.F32, Precision.INT8)}
    operations = {}
    for precision in artifacts:
        engine, operations[precision] = traced(backend, bert, precision)
        engine.close()
    own = artifacts[Precision.INT8]
    weighed = [each for each in operations[Precision.INT8] if each.weights]
    assert len(weighed) == 12  # of two layers, six each
    assert {(each.weights, each.precision) for each in weighed} == {("i8", "f32")}
    found = precision_check(operations[Precision.INT8], Precision.INT8, NOTHING_KEPT, own, backend)
    assert found.verdict is Verdict.PASSED
    assert found.text == "all of 12 matrix products with weights read them in int8; arithmetic was in f32"
    wide = precision_check(operations[Precision.F32], Precision.INT8, NOTHING_KEPT, artifacts[Precision.F32], backend)
    assert wide.verdict is Verdict.FAILED
    assert wide.text.startswith("12 of 12 matrix products read weights of another type than int8: ")
    for left, verdict in ((1, Verdict.PASSED), (2, Verdict.FAILED)):  # 8 % and 17 %
        some = [replace(each, weights="f32") if at < left else each for at, each in enumerate(weighed)]
        assert precision_check(some, Precision.INT8, NOTHING_KEPT, own, backend).verdict is verdict
    for lower in ("bf16", "i8"):  # activations as integers are no weights
        narrow = [*weighed[:11], replace(weighed[11], precision=lower)]
        assert precision_check(narrow, Precision.INT8, NOTHING_KEPT, own, backend).verdict is Verdict.FAILED
    untold = [replace(each, weights=None) for each in weighed]
    assert precision_check(untold, Precision.INT8, NOTHING_KEPT, own, backend).verdict is Verdict.NOT_JUDGED


# ONNX Runtime


@pytest.mark.parametrize("precision", LOWER)
def test_onnx_runtime_multiplies_no_matrices_in_half_floats(precision: Precision, tmp_path: Path) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    half = {Precision.BF16: onnx.TensorProto.BFLOAT16, Precision.F16: onnx.TensorProto.FLOAT16}[precision]
    helper, single = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=half),
        helper.make_node("MatMul", ["half", "half"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=single),
    ]
    tensors = [helper.make_tensor_value_info(name, single, [8, 8]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "product", tensors[:1], tensors[1:]), ir_version=10,
        opset_imports=[helper.make_opsetid("", 20)],
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    if precision is Precision.BF16:
        with pytest.raises(Exception, match="Could not find an implementation for MatMul"):
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[onnx_column.PROVIDER])
        return
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[onnx_column.PROVIDER])
    session.run(None, {"x": np.ones((8, 8), np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    assert {each.precision for each in onnx_column.operations(events) if each.compute} == {"f32"}


def test_onnx_runtime_says_so_before_it_runs() -> None:
    assert onnx_column.BACKEND.precisions(cpu_device()) == (Precision.F32, Precision.INT8)
    absent = onnx_column.BACKEND.lacks(cpu_device(), Precision.BF16)
    assert absent.reason == "ONNX Runtime's CPU provider has matrix products in f32 alone"
    assert absent.looked_for == ("kernels of CPUExecutionProvider for MatMul, Gemm and Conv in bf16: none",)


# torch


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("name", families.ORDER)
def test_a_torch_column_holds_what_transformers_loads_in_that_precision(name: str, precision: Precision) -> None:
    family, checkpoint = families.load(name), checkpoints.local(name)
    loaded = getattr(transformers, family.auto_class).from_pretrained(checkpoint.path, dtype=DTYPES[precision])
    theirs = dict((*loaded.named_parameters(), *loaded.named_buffers()))
    ours = family.load(checkpoint.path, precision=precision).model
    own = dict((*ours.named_parameters(), *ours.named_buffers()))
    assert own.keys() <= theirs.keys()
    for key, tensor in own.items():
        assert tensor.dtype is theirs[key].dtype, key
        assert torch.equal(tensor, theirs[key]), key
    assert DTYPES[precision] in {tensor.dtype for tensor in own.values()}


def test_casting_a_whole_model_would_not_be_the_same() -> None:
    """Rotary frequencies would lose their digits, and so would angles of late positions."""
    path = checkpoints.local("llama").path
    ours = families.load("llama").load(path, precision=Precision.BF16)
    cast = families.load("llama").load(path).to(torch.bfloat16)
    kept, lost = (dict(module.named_buffers())["model.model.rotary_emb.inv_freq"] for module in (ours, cast))
    assert kept.dtype is torch.float32
    assert float(((lost.float() - kept) / kept).abs().max()) > 2.0**-10


# What transformers keeps in float32


def test_t5_alone_of_the_ten_keeps_matrices_in_float32_and_at_f16_alone() -> None:
    for name in families.ORDER:
        model = families.load(name).load(checkpoints.local(name).path).model
        kept = {precision: kept_wide(model, precision) for precision in FLOATS}
        layers = 4 if name == "t5" else 0  # two a side
        assert kept == {Precision.F32: 0, Precision.BF16: 0, Precision.F16: layers}


def test_so_many_products_in_float32_are_excused_and_no_more() -> None:
    checkpoint = checkpoints.local("t5")
    reference = Reference(families.load("t5"), checkpoint.path)
    engine, operations = traced("cpu", checkpoint, Precision.F16)
    engine.close()
    found = precision_check(operations, Precision.F16, reference)
    assert found.verdict is Verdict.PASSED
    assert found.text.endswith("ran in f16, but for 4 in f32, where transformers keeps their weights")
    one_more = next(each for each in operations if each.compute and each.precision == "f32")
    assert precision_check([*operations, one_more], Precision.F16, reference).verdict is Verdict.FAILED
    assert precision_check(operations, Precision.F16, NOTHING_KEPT).verdict is Verdict.FAILED
