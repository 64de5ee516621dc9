"""Figures of a cell: throughput and its knee, and shares of the machine's peak."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from assay import checkpoints, families, figures
from assay.measure.roofline import best
from assay.schema import Metric, Precision, Workload
from assay.session_report import MachinePeak

PEAK = MachinePeak(
    at="2026-01-01T00:00:00+00:00", bandwidth=best({"sum": 1e10}),
    products={Precision.F32: best({"torch": 1e11}), Precision.BF16: best({"torch": 4e11})},
)  # fmt: skip


def found(
    tmp_path: Path, family: str = "bert", *, precision: Precision = Precision.F32, decoding: bool = False,
    device: bool = False, peak: MachinePeak | None = PEAK,
) -> Mapping[str, Metric]:  # fmt: skip
    """Of a call of 10 ms, or a prefill of 10 and steps of 2 ms; larger batches take 1.1, 3 and 7 times as long."""
    loaded = families.load(family)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(checkpoints.local(family).config()))
    step = 0.002 if decoding else 0.01
    points = [
        {"workload": Workload(name="batch", batch=batch).model_dump(), "samples": [step * times] * 6}
        for batch, times in ((2, 1.1), (4, 3), (8, 7))
    ]
    run: dict[str, Any] = {
        "samples": [0.01] * 30, "overhead": 1e-6, "memory": {"peak_memory": 5, "device_memory": None},
        "device_samples": [0.008] * 6 if device else [],
        "decoding": {"first": [0.01] * 6, "steps": [0.002] * 32, "cache": 64} if decoding else None,
        "swept": {"decoding" if decoding else "batch": points},
    }  # fmt: skip
    work = {"operations": 10**8} | ({"prefill": 2 * 10**8, "read": 10**6, "matrices": 8 * 10**5} if decoding else {})
    built = {"checkpoint": {"artifact": {"export_seconds": None}}, "config": str(config)}
    series, grown = figures.samples(run, [0.001] * 10), figures.swept(run)
    return figures.metrics(loaded, precision, built, run, (), series, grown, work, peak)


def test_throughput_is_the_most_of_the_sweep_and_the_knee_stands_before_it(tmp_path: Path) -> None:
    metrics = found(tmp_path)
    assert metrics["throughput"].value == pytest.approx(2 / 0.011)
    assert metrics["throughput"].unit == "sentences/s"
    assert metrics["throughput_batch"].value == metrics["knee_batch"].value == 2
    assert metrics["harness_time"].value == 1e-6
    assert "device_memory" not in metrics and metrics["peak_memory"].value == 5


def test_what_the_device_s_own_clock_says_stands_beside_the_latency(tmp_path: Path) -> None:
    assert "device_time" not in found(tmp_path)
    metrics = found(tmp_path, device=True)
    assert (metrics["device_time"].value, metrics["latency"].value) == (0.008, 0.01)


def test_a_decoder_s_throughput_is_that_of_its_steps(tmp_path: Path) -> None:
    metrics = found(tmp_path, "llama", decoding=True)
    assert metrics["throughput"].value == pytest.approx(2 / 0.0022)
    assert metrics["throughput"].unit == "tokens/s"


def test_an_encoder_states_its_share_of_the_operations(tmp_path: Path) -> None:
    metrics = found(tmp_path)
    assert metrics["model_flops_utilization"].value == pytest.approx(100 * 1e8 / 0.01 / 1e11)
    assert metrics["operations"].value == 10**8
    assert "model_bandwidth_utilization" not in metrics


def test_a_decoder_states_its_prefill_s_share_and_its_steps_bytes(tmp_path: Path) -> None:
    metrics = found(tmp_path, "llama", decoding=True)
    assert metrics["model_flops_utilization"].value == pytest.approx(100 * 2e8 / 0.01 / 1e11)
    assert metrics["bytes_per_step"].value == 4 * 10**6
    assert metrics["model_bandwidth_utilization"].value == pytest.approx(100 * 4e6 / 0.002 / 1e10)


def test_weights_in_int8_are_a_quarter_of_the_bytes_and_the_arithmetic_is_that_of_float32(tmp_path: Path) -> None:
    metrics = found(tmp_path, "llama", precision=Precision.INT8, decoding=True)
    assert metrics["bytes_per_step"].value == 8 * 10**5 + 4 * 2 * 10**5
    assert metrics["model_flops_utilization"] == found(tmp_path, "llama", decoding=True)["model_flops_utilization"]


def test_half_floats_are_half_as_many_bytes_against_their_own_peak(tmp_path: Path) -> None:
    metrics = found(tmp_path, "llama", decoding=True, precision=Precision.BF16)
    assert metrics["bytes_per_step"].value == 2 * 10**6
    assert metrics["model_flops_utilization"].value == pytest.approx(100 * 2e8 / 0.01 / 4e11)


def test_without_a_peak_nothing_is_said_of_shares(tmp_path: Path) -> None:
    assert not {"model_flops_utilization", "model_bandwidth_utilization"} & set(found(tmp_path, peak=None))
    assert "model_flops_utilization" not in found(tmp_path, precision=Precision.F16)
