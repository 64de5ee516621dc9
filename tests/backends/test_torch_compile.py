"""The compiled columns: what they need, that nothing is left to eager code in silence, and what their trace tells."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo

from assay import backends, cache
from assay.backends import torch_compile
from assay.backends.base import Operation
from assay.backends.torch_compile import COMPILED, CompiledEngine, executed, kept, prepare
from assay.devices import cpu_device
from assay.errors import Unavailable
from assay.evidence import placement
from assay.measure.processes import Usage
from assay.schema import Check, Precision, Verdict

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
"""Of torch itself, which inductor imports."""
compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX") or "g++") is None, reason="no C++ compiler for torch.compile"
)
EAGER = {"fullgraph": True, "dynamic": True, "backend": "eager"}
"""Dynamo's own rules, and no kernel."""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Dynamo counts the graphs of a function for a whole process."""
    yield
    torch._dynamo.reset()


class Block(torch.nn.Module):
    """What a transformer is made of: products, and what inductor fuses around them."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.norm, self.linear = torch.nn.LayerNorm(16, dtype=dtype), torch.nn.Linear(16, 16, dtype=dtype)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": torch.nn.functional.gelu(self.linear(self.norm(x))) + x}


class Broken(Block):
    """One that dynamo cannot follow to its end."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        torch._dynamo.graph_break()
        return super().forward(x)


def batch(rows: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(rows).standard_normal((rows, 16), dtype=np.float32)}


def traced(module: torch.nn.Module) -> list[Operation]:
    engine = CompiledEngine(module, "cpu")
    expected = engine.run(batch(3))  # compiles
    outputs, operations = engine.trace(batch(3))
    np.testing.assert_array_equal(outputs["y"], expected["y"])
    return operations


def check(operations: list[Operation], name: str, declared: Precision = Precision.F32) -> Check:
    """One that placement makes of such a trace."""
    case: Any = SimpleNamespace(
        built_in=True, clock=SimpleNamespace(usage=Usage(claimed=1.0, cpu=1.0)), operations=operations,
        device=cpu_device(), precision=declared, libraries=("libtorch_cpu.so",),
        backend=backends.load("cpu-compile"), reference=SimpleNamespace(kept_wide=lambda precision: 0),
    )  # fmt: skip
    (found,) = (each for each in placement.judge(case).checks if each.name == name)
    return found


# What it needs


def test_without_a_compiler_the_column_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        Unavailable, match=r"^torch.compile has no C\+\+ compiler no-such-compiler \(\$CXX\)$"
    ) as raised:
        backends.load("cpu-compile").devices()
    assert raised.value.looked_for[0] == "C++ compiler no-such-compiler ($CXX): not found"
    assert raised.value.looked_for[1].startswith("Python's header ")


def test_without_python_s_headers_the_column_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(Unavailable, match=r"no Python's header .*Python\.h"):
        backends.load("cpu-compile").devices()


def test_on_cuda_it_needs_the_device_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("assay.backends.cuda.cuda_devices", lambda: ("a device",))
    with pytest.raises(Unavailable, match="no-such-compiler"):
        backends.load("cuda-compile").devices()

    def none() -> None:
        raise Unavailable("no NVIDIA driver and no NVIDIA device")

    monkeypatch.setattr("assay.backends.cuda.cuda_devices", none)
    with pytest.raises(Unavailable, match="no NVIDIA driver"):
        backends.load("cuda-compile").devices()


def test_what_it_compiled_is_an_entry_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path))
    folder = kept()
    (folder / "kernel").write_bytes(bytes(1000))
    assert kept() == folder
    (entry,) = cache.entries()
    assert (entry.kind, entry.path) == ("compiled", folder) and entry.size > 1000
    assert cache.clear() == [entry]


# Nothing in silence


def test_what_dynamo_cannot_follow_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_compile, "COMPILED", EAGER)
    # As an environment variable may have it.
    with torch._dynamo.config.patch(suppress_errors=True), pytest.raises(torch._dynamo.exc.Unsupported):
        CompiledEngine(Broken(), "cpu").run(batch(3))


def test_compiling_again_and_again_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_compile, "COMPILED", EAGER)
    with torch._dynamo.config.patch(suppress_errors=True, recompile_limit=1):
        engine = CompiledEngine(Block(), "cpu")
        engine.run(batch(1))
        with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
            engine.run(batch(3))


def test_an_engine_that_compiled_nothing_runs_elsewhere_than_its_column_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_compile, "COMPILED", EAGER)
    found = check(traced(Block()), "elsewhere")
    assert found.verdict is Verdict.FAILED and found.value == 1.0
    assert "aten::gelu on cpu, in eager code" in found.text


# The trace


@compiler
@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.float32, Precision.F32), (torch.bfloat16, Precision.BF16)], ids=["f32", "bf16"]
)
def test_a_trace_shows_kernels_that_inductor_wrote_and_their_precision(
    dtype: torch.dtype, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare()
    operations = traced(Block(dtype))
    written = [each for each in operations if each.name.startswith("graph_")]
    products = [each for each in operations if each.compute]
    assert written and {each.precision for each in written} == {precision}
    assert [(each.name, each.precision) for each in products] == [("aten::addmm", precision)]
    assert all(each.work > 0 for each in (*written, *products))
    for name in ("elsewhere", "precision"):
        assert check(operations, name, precision).verdict is Verdict.PASSED
    other = Precision.F16
    assert check(operations, "precision", other).verdict is Verdict.FAILED


@compiler
def test_a_part_that_is_left_to_eager_code_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare()
    monkeypatch.setattr(torch_compile, "COMPILED", COMPILED | {"fullgraph": False})

    class Half(Block):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": torch.compiler.disable(self.linear)(super().forward(x)["y"])}

    operations = traced(Half())
    assert any(each.device == "cpu" and each.name.startswith("graph_") for each in operations)
    found = check(operations, "elsewhere")
    assert found.verdict is Verdict.FAILED and "aten::linear on cpu, in eager code" in found.text


def event(name: str, *children: Any, launched: tuple[int, ...] = (), types: tuple[str, ...] = ("float",)) -> Any:
    """As the profiler has it: with kernels of 5 µs each on these CUDA devices."""
    return SimpleNamespace(
        name=name, cpu_parent=None, cpu_children=children, input_dtypes=types,
        kernels=[SimpleNamespace(device=device, duration=5.0) for device in launched],
        time_range=SimpleNamespace(elapsed_us=lambda: 1.0),
    )  # fmt: skip


def test_on_cuda_an_operation_ran_where_its_kernels_did() -> None:
    graph = event(
        "## Call CompiledFxGraph f0 ##",
        event("triton_poi_fused_gelu_0", event("cuLaunchKernel"), launched=(1,), types=("c10::BFloat16", "int")),
        event("aten::addmm", event("aten::inner"), event("cudaLaunchKernel", launched=(1,)), types=("float",) * 3),
        event("graph_0_cpp_fused_add_0", types=()),
    )
    operations = executed([graph, event("aten::mul", launched=(1,))], {"graph_0_cpp_fused_add_0": "f32"})
    assert {(each.name, each.device, each.precision, each.work) for each in operations} == {
        ("triton_poi_fused_gelu_0", "cuda:1", "bf16", 5.0),
        ("aten::addmm", "cuda:1", "f32", 5.0),
        ("graph_0_cpp_fused_add_0", "cpu", "f32", 1.0),
        ("aten::mul", "cuda:1, in eager code", "f32", 5.0),
    }
    assert {each.device for each in executed([event("aten::mul", launched=(1,))], {})} == {"cuda:1, in eager code"}
