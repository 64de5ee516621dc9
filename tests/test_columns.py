"""Every column of a processor, all families: what `nox` runs, in the environment of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay import families
from assay.families.generation import GeneratingFamily
from assay.schema import Cell, Layer, Status, Verdict
from tests.conftest import Assay, report_in

WRITES = {"llama", "t5", "wav2vec2", "whisper", "language-model"}


# The columns that share exports run one after the other, in one test: so the exports are made once.
@pytest.mark.parametrize("columns", [("cpu",), ("openvino", "onnxruntime")], ids=["torch", "onnx"])
def test_every_family_is_real_in_every_cpu_column(assay: Assay, tmp_path: Path, columns: tuple[str, ...]) -> None:
    for name in columns:
        done = assay("run", "--backend", name, "--reports", tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
        report = report_in(tmp_path / name / "sessions")
        assert [cell.family for cell in report.cells] == list(families.ORDER)
        not_real = {cell.family: (cell.status, cell.reason) for cell in report.cells if cell.status is not Status.REAL}
        assert not_real == {}
        # Every challenge is recorded, and none is that of another cell.
        assert len({cell.seeds["challenge"] for cell in report.cells}) == len(report.cells)
        before, after = report.peaks
        assert before.at < report.cells[0].started_at < after.at  # type: ignore[operator]
        for cell in report.cells:
            check_evidence(cell)
            check_metrics(cell, exported=name != "cpu")
            assert (cell.transcript is not None) is (cell.family in WRITES), cell.transcript


def check_evidence(cell: Cell) -> None:
    """Every layer has its numbers."""
    for layer in Layer:
        evidence = cell.layer(layer)
        assert evidence is not None and evidence.verdict is Verdict.PASSED
        assert all(check.value is not None and check.bound is not None for check in evidence.checks)
    assert {"numpy", "assay"} & set(cell.software) == {"numpy"}
    assert {digest.output for digest in cell.digests} == set(families.load(cell.family).outputs)


def check_metrics(cell: Cell, *, exported: bool) -> None:
    """Every figure is there, with its raw samples; the values of a family's own are tested with the families."""
    common = {
        "latency", "first_inference_time", "preprocessing_time", "peak_memory", "inference_peak_memory",
        "unique_memory", "proportional_memory", "mapped_weights", "throughput", "knee_batch", "operations",
        "harness_time",
    }  # fmt: skip
    assert common <= set(cell.metrics)
    assert ("export_time" in cell.metrics) is exported
    assert ("compile_time" in cell.metrics) is exported
    assert len(cell.samples["latency"]) == cell.metrics["latency"].samples >= 30
    assert cell.throttling is not None and cell.throttling.seconds >= sum(cell.samples["latency"])
    assert cell.throttling.stolen is not None or not Path("/proc/stat").exists()
    assert cell.metrics["peak_memory"].value > 2**20
    assert cell.metrics["throughput"].value >= 0.99 / cell.metrics["latency"].value or "decoding" in cell.swept
    assert 0 < cell.metrics["model_flops_utilization"].value < 100
    assert cell.metrics["harness_time"].value < 0.01 * cell.metrics["latency"].value or cell.size == "tiny"
    batches = [point.workload.batch for point in cell.swept["batch"]]
    assert batches == [2 ** (step + 1) for step in range(len(batches))] and len(batches) >= 2
    if isinstance(families.load(cell.family), GeneratingFamily):
        assert {"time_to_first_token", "time_per_output_token", "cache_bytes_per_token"} <= set(cell.metrics)
        assert {"model_bandwidth_utilization", "bytes_per_step"} <= set(cell.metrics) and cell.swept["decoding"]
        assert len(cell.samples["time_per_output_token"]) >= 6 * 32
