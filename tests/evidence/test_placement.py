"""Placement: what a trace and a process's libraries lead to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from assay.backends.base import Operation
from assay.backends.onnxruntime import operations as onnxruntime_operations
from assay.devices import Device
from assay.evidence.placement import judge
from assay.measure.processes import Usage
from assay.schema import Precision, Verdict


def operation(
    device: str = "cpu", precision: str | None = "f32", *, compute: bool = True, work: float = 1
) -> Operation:
    """One traced operation."""
    return Operation("MatMul", "kernel", device, precision, compute, work)


def checks(
    operations: list[Operation], *, device: str = "cpu", index: int = 0, libraries: Any = ("libopenvino.so.2026",),
    built_in: bool = True, helpers: float = 0.0, precision: Precision = Precision.F32, kept: int = 0,
) -> Any:  # fmt: skip
    """Each check by name."""
    case: Any = SimpleNamespace(
        built_in=built_in,
        clock=SimpleNamespace(usage=Usage(claimed=0.5, cpu=0.5, helpers=helpers)),
        operations=operations,
        device=Device(device, index, "Example 9000"),
        precision=precision,
        reference=SimpleNamespace(kept_wide=lambda precision: kept),
        libraries=libraries,
        backend=SimpleNamespace(name="openvino", libraries=("libopenvino", "_pyopenvino")),
    )
    return {check.name: check for check in judge(case).checks}


def verdicts(operations: list[Operation], **options: Any) -> Any:
    """The verdict of each."""
    return {name: check.verdict for name, check in checks(operations, **options).items()}


def test_all_on_the_device_in_the_declared_precision_passes() -> None:
    assert set(verdicts([operation()] * 3).values()) == {Verdict.PASSED}


@pytest.mark.parametrize("work", [1.0, 1e-9])
def test_one_matrix_product_elsewhere_fails_however_small(work: float) -> None:
    trace = [*[operation("cuda:0")] * 50, operation("cpu", work=work)]
    assert verdicts(trace, device="cuda")["elsewhere"] is Verdict.FAILED


def test_another_device_of_the_same_kind_is_elsewhere() -> None:
    assert verdicts([operation("cuda:1")], device="cuda", index=1)["elsewhere"] is Verdict.PASSED
    assert verdicts([operation("cuda:0")], device="cuda", index=1)["elsewhere"] is Verdict.FAILED
    assert verdicts([operation("cuda")], device="cuda", index=1)["elsewhere"] is Verdict.PASSED  # not numbered


def test_a_mask_made_on_the_host_is_no_fallback() -> None:
    trace = [*[operation("cuda:0", work=1000)] * 50, operation("cpu", compute=False, work=10)]
    assert verdicts(trace, device="cuda")["elsewhere"] is Verdict.PASSED


def test_a_trace_without_arithmetic_is_not_judged() -> None:
    found = verdicts([operation(compute=False)])
    assert found["elsewhere"] is found["precision"] is Verdict.NOT_JUDGED
    assert verdicts([])["elsewhere"] is Verdict.NOT_JUDGED


@pytest.mark.parametrize("precision", ["bf16", "f16", "i8", "f64"])
def test_another_precision_than_declared_fails(precision: str) -> None:
    assert verdicts([operation(), operation(precision=precision)])["precision"] is Verdict.FAILED


@pytest.mark.parametrize(("wide", "kept", "verdict"), [
    (0, 0, Verdict.PASSED), (1, 0, Verdict.FAILED), (2, 2, Verdict.PASSED), (3, 2, Verdict.FAILED),
    (0, 2, Verdict.PASSED),
])  # fmt: skip
def test_float32_at_f16_is_excused_where_transformers_keeps_so_many_weights_there(
    wide: int, kept: int, verdict: Verdict
) -> None:
    trace = [*[operation(precision="f16")] * 3, *[operation(precision="f32")] * wide]
    assert verdicts(trace, precision=Precision.F16, kept=kept)["precision"] is verdict
    assert verdicts([*trace, operation(precision="bf16")], precision=Precision.F16, kept=kept)["precision"] is (
        Verdict.FAILED
    )


def test_bytes_beside_the_arithmetic_are_masks_and_pass() -> None:
    assert verdicts([operation(), operation(precision="u8", compute=False)])["precision"] is Verdict.PASSED
    assert verdicts([operation(), operation(precision="bf16", compute=False)])["precision"] is Verdict.FAILED


def test_another_runtime_in_the_process_fails_and_so_does_the_own_one_s_absence() -> None:
    both = ("libopenvino.so.2026", "libtorch_cpu.so")
    assert verdicts([operation()], libraries=both)["foreign_runtime"] is Verdict.FAILED
    assert verdicts([operation()], libraries=("libm.so.6",))["foreign_runtime"] is Verdict.FAILED
    assert verdicts([operation()], libraries=None)["foreign_runtime"] is Verdict.NOT_JUDGED


def test_what_ran_elsewhere_is_told_by_operations_and_by_work() -> None:
    trace = [*[operation("cuda:0", work=2)] * 3, operation("cpu", work=2)]
    text = checks(trace, device="cuda")["elsewhere"].text
    assert "1 of 4 traced operations (25.0%), 25.0% of their work, ran elsewhere than on cuda:0" in text


def test_processes_that_compute_for_the_runner_fail() -> None:
    assert verdicts([operation()], helpers=0.002)["helpers"] is Verdict.PASSED
    assert verdicts([operation()], helpers=0.25)["helpers"] is Verdict.FAILED


def test_what_computed_on_a_cuda_device_has_its_driver_mapped() -> None:
    own = "libopenvino.so.2026"
    found = checks([operation("cuda:0")], device="cuda", libraries=(own, "libcuda.so.580.95.05"))["driver"]
    assert found.verdict is Verdict.PASSED
    found = checks([operation("cuda:0")], device="cuda", libraries=(own, "libcudart.so.12"))["driver"]
    assert found.verdict is Verdict.FAILED
    assert found.text == "libcuda.so, without which nothing reaches cuda:0, was not mapped"
    assert verdicts([operation("cuda:0")], device="cuda", libraries=None)["driver"] is Verdict.NOT_JUDGED


def test_an_engine_of_another_package_is_believed_only_where_it_speaks_against_itself() -> None:
    found = verdicts([operation()], built_in=False)
    assert found == {
        "elsewhere": Verdict.NOT_JUDGED, "precision": Verdict.NOT_JUDGED, "foreign_runtime": Verdict.PASSED,
        "helpers": Verdict.PASSED, "driver": Verdict.PASSED,
    }  # fmt: skip
    found = verdicts([operation("cpu", "bf16")], device="cuda", built_in=False)
    assert found["elsewhere"] is found["precision"] is Verdict.FAILED


def test_a_profile_s_providers_become_devices() -> None:
    def event(provider: str, kind: str) -> dict[str, Any]:
        arguments = {"provider": provider, "op_name": "MatMul", "output_type_shape": [{kind: [1, 2]}]}
        return {"cat": "Node", "dur": 5, "args": arguments}

    events = [event("CPUExecutionProvider", "float"), event("CUDAExecutionProvider", "float16"), {"cat": "Session"}]
    found = onnxruntime_operations(events)
    assert [(each.device, each.precision, each.compute) for each in found] == [
        ("cpu", "f32", True), ("cuda", "f16", True),
    ]  # fmt: skip
